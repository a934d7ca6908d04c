package dev.vaquita

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.channels.awaitClose
import kotlinx.coroutines.channels.trySendBlocking
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.callbackFlow
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.launch

/** A piece of an answer. */
sealed interface Piece {
    /** The model thinks. */
    data class Reasoning(val text: String) : Piece

    /** The model answers. */
    data class Answer(val text: String) : Piece

    /** The answer has ended. */
    data class End(val turn: VaquitaTurn) : Piece
}

/** Answers [user] as a flow, on the default dispatcher. Cancelling its collection ends the answer. */
fun VaquitaSession.answers(user: String?, options: VaquitaOptions = VaquitaOptions()): Flow<Piece> =
    callbackFlow {
            val listener =
                object : VaquitaListener {
                    override fun onReasoning(piece: String) {
                        trySendBlocking(Piece.Reasoning(piece))
                    }

                    override fun onAnswer(piece: String) {
                        trySendBlocking(Piece.Answer(piece))
                    }
                }
            launch {
                try {
                    val turn = generate(user, options, listener)
                    trySendBlocking(Piece.End(turn))
                    close()
                } catch (error: VaquitaException) {
                    close(error)
                }
            }
            awaitClose { this@answers.cancel() }
        }
        .flowOn(Dispatchers.Default)
