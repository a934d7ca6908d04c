package dev.vaquita;

/** The native methods; see targets/android/src. */
final class Native {
    static {
        System.loadLibrary("vaquita_jni");
    }

    private Native() {}

    static native long open(
            String path,
            String memory,
            int context,
            int sessions,
            int threads,
            String cache,
            String drafts,
            String promptFolder,
            long promptBytes);

    static native void closeModel(long model);

    static native void setMemoryBudget(long model, long bytes);

    static native void trim(long model, boolean critical);

    static native int thermalHint(long model, int thermal);

    static native long[] memory(long model);

    static native long createSession(long model);

    static native void closeSession(long session);

    static native void cancel(long session);

    static final int SYSTEM = 0;
    static final int TOOLS = 1;
    static final int SAVE = 2;
    static final int RESTORE = 3;
    static final int RESET = 4;
    static final int VARIABLES = 5;

    static native void change(long session, int what, String value);

    static native void addMessage(long session, String role, String content);

    static native double[] generate(
            long session,
            String user,
            int maxTokens,
            float temperature,
            int topK,
            float topP,
            float minP,
            float repetitionPenalty,
            long seed,
            String[] stop,
            Events events);

    /** What generating calls. */
    interface Events {
        int PROMPT = 0;
        int TOKEN = 1;
        int REASONING = 2;
        int ANSWER = 3;
        int WAS_REASONING = 4;

        /** Says whether to go on. */
        boolean on(int kind, String text, int done, int total);
    }
}
