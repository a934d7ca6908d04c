package dev.vaquita;

/** A model. It may be used from any thread. */
public final class VaquitaModel implements AutoCloseable {
    /** How a model is opened. */
    public static final class Options {
        /** Memory of the whole process: "2GiB", "60%" or "auto"; null maps the file and leaves memory to the system. */
        public String memory = null;

        /** Tokens that a conversation may have; 0: the model's. */
        public int context = 0;

        /** Sessions at the same time that the memory budget is to hold. */
        public int sessions = 1;

        /** Threads; 0: one per core of the fastest cluster, bound to it. */
        public int threads = 0;

        /**
         * Numbers of the sessions' caches: "f16", or "q8", which takes about half the memory and costs a little
         * precision; null: "f16".
         */
        public String cache = null;

        /**
         * How tokens are drafted and then checked together, which changes no answer: "auto" or "mtp:2" by the file's
         * multi-token-prediction layer, "lookup:4" by text that occurred before; null: "off".
         */
        public String drafts = null;

        /**
         * Folder that keeps prompts and answers, so that a conversation that begins like an earlier one starts at once,
         * also after the app was restarted: one of the app's own, such as a folder in {@code getCacheDir()}. Null: they
         * are not kept.
         */
        public String promptFolder = null;

        /** Maximum size of that folder in bytes; 0: 2 GiB. */
        public long promptBytes = 0;
    }

    /** How hot the device is: all threads compute, three quarters, half, or one. */
    public enum Thermal {
        NOMINAL,
        FAIR,
        SERIOUS,
        CRITICAL
    }

    // ComponentCallbacks2's and PowerManager's, so that this class needs no Android to compile.
    private static final int TRIM_MEMORY_UI_HIDDEN = 20;
    private static final int TRIM_MEMORY_BACKGROUND = 40;
    private static final int THERMAL_STATUS_MODERATE = 2;
    private static final int THERMAL_STATUS_SEVERE = 3;

    private long handle;

    private VaquitaModel(long handle) {
        this.handle = handle;
    }

    /** Opens a GGUF file. It is to be closed. */
    public static VaquitaModel open(String path, Options options) {
        return new VaquitaModel(
                Native.open(
                        path,
                        options.memory,
                        options.context,
                        options.sessions,
                        options.threads,
                        options.cache,
                        options.drafts,
                        options.promptFolder,
                        options.promptBytes));
    }

    /** Begins a conversation. It is to be closed. */
    public synchronized VaquitaSession createSession() {
        return new VaquitaSession(Native.createSession(opened()));
    }

    /** Changes the memory of the whole process, by the next layer, also while a session generates. */
    public synchronized void setMemoryBudget(long bytes) {
        Native.setMemoryBudget(opened(), bytes);
    }

    /**
     * For {@code ComponentCallbacks2.onTrimMemory}: when the app's window goes, experts beyond one token's are given
     * back; in the background, all that is not needed to compute at all. {@link #setMemoryBudget} takes it back.
     */
    public synchronized void onTrimMemory(int level) {
        if (level >= TRIM_MEMORY_UI_HIDDEN) {
            Native.trim(opened(), level >= TRIM_MEMORY_BACKGROUND);
        }
    }

    /** Computes with fewer threads while the device is hot; answers stay the same. Gives the number. */
    public synchronized int thermalHint(Thermal thermal) {
        return Native.thermalHint(opened(), thermal.ordinal());
    }

    /** For {@code PowerManager.OnThermalStatusChangedListener}. */
    public int onThermalStatusChanged(int status) {
        if (status < THERMAL_STATUS_MODERATE) {
            return thermalHint(Thermal.NOMINAL);
        }
        if (status == THERMAL_STATUS_MODERATE) {
            return thermalHint(Thermal.FAIR);
        }
        return thermalHint(status == THERMAL_STATUS_SEVERE ? Thermal.SERIOUS : Thermal.CRITICAL);
    }

    /** Where memory goes. */
    public synchronized VaquitaMemory memory() {
        return new VaquitaMemory(Native.memory(opened()));
    }

    /** Closes the model. Sessions that are open go on; its memory goes with the last of them. */
    @Override
    public synchronized void close() {
        if (handle != 0) {
            Native.closeModel(handle);
            handle = 0;
        }
    }

    private long opened() {
        if (handle == 0) {
            throw new VaquitaException(VaquitaException.Kind.CLOSED, "the model was closed");
        }
        return handle;
    }
}
