package dev.vaquita;

/** Where memory goes, in bytes; -1 where it is not measured, or no budget says it. */
public final class VaquitaMemory {
    /** Resident memory of the process now. */
    public final long process;

    /** The most so far. */
    public final long processPeak;

    /** The budget. */
    public final long budget;

    /** Planned for weights that are not routed experts. */
    public final long dense;

    /** Planned for the caches of all sessions. */
    public final long cache;

    /** Planned for what a chunk of a prompt computes with. */
    public final long scratch;

    /** What streamed experts may take; -1 where the file is mapped. */
    public final long expertsLimit;

    /** What they take now. */
    public final long experts;

    VaquitaMemory(long[] figures) {
        process = figures[0];
        processPeak = figures[1];
        budget = figures[2];
        dense = figures[3];
        cache = figures[4];
        scratch = figures[5];
        expertsLimit = figures[6];
        experts = figures[7];
    }
}
