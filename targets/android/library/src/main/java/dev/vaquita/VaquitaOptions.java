package dev.vaquita;

/** How an answer is generated. */
public final class VaquitaOptions {
    /** At most so many tokens, the reasoning among them; 0: until the context is full. */
    public int maxTokens = 0;

    /** 0 always takes the likeliest token. */
    public float temperature = 0.6f;

    /** Only the likeliest so many tokens; 0: all. */
    public int topK = 0;

    /** The likeliest tokens that together have this probability. */
    public float topP = 0.95f;

    /** Tokens at least so likely relative to the likeliest. */
    public float minP = 0;

    /** Penalty on tokens that were used lately; 1: none. */
    public float repetitionPenalty = 1;

    /** The same seed gives the same answer. */
    public long seed = 0;

    /** Texts that end the answer. */
    public String[] stop = {};
}
