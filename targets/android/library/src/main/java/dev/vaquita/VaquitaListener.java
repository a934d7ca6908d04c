package dev.vaquita;

/** Takes an answer as it comes, in the thread that called {@link VaquitaSession#generate}. */
public interface VaquitaListener {
    /** So many tokens of the prompt were read, of so many. */
    default void onPrompt(int done, int total) {}

    /** The model thinks. Pieces are whole characters. */
    default void onReasoning(String piece) {}

    /** The model answers. */
    void onAnswer(String piece);

    /** All that came as the answer so far was reasoning: it ended with a tag that nothing had opened. */
    default void onWasReasoning() {}
}
