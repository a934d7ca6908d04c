package dev.vaquita;

import java.util.concurrent.locks.ReentrantLock;
import java.util.function.LongFunction;

/**
 * A conversation. It does one thing at a time: a second thread gets an exception of kind BUSY, except from {@link #cancel}
 * and {@link #close}, which work at any time.
 */
public final class VaquitaSession implements AutoCloseable {
    /** Held by the thread that is at work. */
    private final ReentrantLock work = new ReentrantLock();

    /** 0 once it is closed; changed and used for cancelling under `this`. */
    private long handle;

    private volatile boolean cancelled;

    /** Calls that generate, or are about to: a cancel counts from their first line on. */
    private int generating;
    private volatile boolean closing;

    VaquitaSession(long handle) {
        this.handle = handle;
    }

    /**
     * Answers {@code user}, or what was said so far where it is null, and returns when the answer has ended. Pieces go to
     * {@code listener} in this thread; what it throws ends the answer and comes out of here.
     *
     * <p>The answer goes into the conversation without its reasoning, also one that was cut short. Where this fails, or was
     * cancelled before the model answered anything, the conversation is as it was.
     */
    public VaquitaTurn generate(String user, VaquitaOptions options, VaquitaListener listener) {
        Native.Events events =
                (kind, text, done, total) -> {
                    if (kind == Native.Events.PROMPT) {
                        listener.onPrompt(done, total);
                    } else if (kind == Native.Events.REASONING) {
                        listener.onReasoning(text);
                    } else if (kind == Native.Events.ANSWER) {
                        listener.onAnswer(text);
                    } else if (kind == Native.Events.WAS_REASONING) {
                        listener.onWasReasoning();
                    }
                    return !cancelled && !closing;
                };
        enter();
        try {
            return working(
                    session -> {
                        return new VaquitaTurn(
                                Native.generate(
                                        session,
                                        user,
                                        options.maxTokens,
                                        options.temperature,
                                        options.topK,
                                        options.topP,
                                        options.minP,
                                        options.repetitionPenalty,
                                        options.seed,
                                        options.stop,
                                        events));
                    });
        } finally {
            exit();
        }
    }

    private synchronized void enter() {
        generating++;
    }

    private synchronized void exit() {
        if (--generating == 0) {
            cancelled = false;
        }
    }

    /** Ends the answer that is being generated before the next layer is computed; from any thread. */
    public synchronized void cancel() {
        cancelled = generating > 0;
        if (handle != 0) {
            Native.cancel(handle);
        }
    }

    /** Sets the system prompt; an empty one removes it. */
    public void setSystem(String text) {
        change(Native.SYSTEM, text);
    }

    /** Sets the tools that the model may call: a list in JSON, as OpenAI's interface writes them. */
    public void setTools(String json) {
        change(Native.TOOLS, json);
    }

    /**
     * Sets variables of the model's chat template, in place of those that were set: an object in JSON, such as
     * {@code {"enable_thinking": false}}; an empty text removes them.
     */
    public void setTemplateVariables(String json) {
        change(Native.VARIABLES, json);
    }

    /** Adds a message without an answer; the role is system, user, assistant or tool. */
    public void addMessage(String role, String content) {
        working(
                session -> {
                    Native.addMessage(session, role, content);
                    return null;
                });
    }

    /** Forgets what was said, but for the system prompt and the tools. */
    public void reset() {
        change(Native.RESET, "");
    }

    /** Writes the conversation and its cache to a file. */
    public void save(String path) {
        change(Native.SAVE, path);
    }

    /** Goes on with a saved conversation of the same model; where that fails, this one stays. */
    public void restore(String path) {
        change(Native.RESTORE, path);
    }

    /**
     * Closes the session. An answer that is being generated is cancelled first, and this waits for it to end; from a
     * listener, the session is closed when the answer has ended.
     */
    @Override
    public void close() {
        closing = true;
        cancel();
        if (!work.isHeldByCurrentThread()) {
            work.lock();
            leave();
        }
    }

    private void change(int what, String value) {
        working(
                session -> {
                    Native.change(session, what, value);
                    return null;
                });
    }

    private <T> T working(LongFunction<T> what) {
        if (work.isHeldByCurrentThread() || !work.tryLock()) {
            throw new VaquitaException(
                    VaquitaException.Kind.BUSY, "the session is at work; cancel that, or wait until it ends");
        }
        try {
            if (handle == 0) {
                throw new VaquitaException(VaquitaException.Kind.CLOSED, "the session was closed");
            }
            return what.apply(handle);
        } finally {
            leave();
        }
    }

    /** Ends work, and the session where it is to be closed. */
    private void leave() {
        if (closing) {
            synchronized (this) {
                if (handle != 0) {
                    Native.closeSession(handle);
                    handle = 0;
                }
            }
        }
        work.unlock();
    }
}
