package dev.vaquita;

/** What an answer cost. A figure that was not measured is NaN. */
public final class VaquitaTurn {
    /** Why an answer ended. */
    public enum Stop {
        /** The model ended it. */
        END,
        /** A stop text came up. */
        TEXT,
        /** As many tokens as were allowed. */
        LENGTH,
        /** The context is full. */
        CONTEXT_FULL,
        /** It was cancelled. */
        CANCELLED
    }

    /** Why it ended. */
    public final Stop stop;

    /** Tokens of the prompt, the whole conversation. */
    public final int promptTokens;

    /** Those that were in the cache already. */
    public final int cachedTokens;

    /** Tokens generated. */
    public final int tokens;

    /** From the call to the first token. */
    public final double firstTokenSeconds;

    /** Tokens of the prompt read per second. */
    public final double promptTokensPerSecond;

    /** Tokens generated per second, after the first. */
    public final double tokensPerSecond;

    /** Joules until the first token. */
    public final double promptJoules;

    /** Joules per token after the first. */
    public final double joulesPerToken;

    /** Share of streamed experts that were in memory when they were needed. */
    public final double hitRate;

    /** Bytes of experts read from the file meanwhile. */
    public final double bytesRead;

    /** Tokens that were drafted. */
    public final long draftedTokens;

    /** Drafted tokens that the model confirmed. */
    public final long acceptedTokens;

    VaquitaTurn(double[] figures) {
        stop = Stop.values()[(int) figures[0]];
        promptTokens = (int) figures[1];
        cachedTokens = (int) figures[2];
        tokens = (int) figures[3];
        firstTokenSeconds = figures[4];
        promptTokensPerSecond = figures[5];
        tokensPerSecond = figures[6];
        promptJoules = figures[7];
        joulesPerToken = figures[8];
        hitRate = figures[9];
        bytesRead = figures[10];
        draftedTokens = (long) figures[11];
        acceptedTokens = (long) figures[12];
    }
}
