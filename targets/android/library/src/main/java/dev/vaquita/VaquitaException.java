package dev.vaquita;

/** Something failed; the message says what, and what to do. */
public final class VaquitaException extends RuntimeException {
    /** Kinds that a program can act upon. */
    public enum Kind {
        /** An argument makes no sense. */
        ARGUMENT,
        /** There is no such file. */
        NOT_FOUND,
        /** A file cannot be read or written. */
        IO,
        /** A file is not what it should be: no model, or damaged, or another version's. */
        BAD_FILE,
        /** The memory budget is too small. */
        MEMORY,
        /** The conversation is longer than the context. */
        CONTEXT_FULL,
        /** The conversation cannot be put into the model's chat template. */
        TEMPLATE,
        /** The model failed. */
        MODEL,
        /** The session is at work in another call. */
        BUSY,
        /** The model or the session was closed. */
        CLOSED,
        /** A mistake in vaquita: close the session that it happened to. */
        INTERNAL
    }

    private static final long serialVersionUID = 1;

    private final Kind kind;

    VaquitaException(Kind kind, String message) {
        super(message);
        this.kind = kind;
    }

    /** Called by the native half. */
    VaquitaException(String kind, String message) {
        this(Kind.valueOf(kind), message);
    }

    /** The kind. */
    public Kind kind() {
        return kind;
    }
}
