package dev.vaquita;

import java.io.File;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;

/** An app, as the library's users write it. Run with a model and a folder to write to. */
public final class Check {
    private static final String QUESTION = "723 * 8 = ?";

    static class Said implements VaquitaListener {
        final StringBuilder reasoning = new StringBuilder();
        final StringBuilder answer = new StringBuilder();
        volatile int pieces;

        @Override
        public void onReasoning(String piece) {
            reasoning.append(piece);
            pieces++;
        }

        @Override
        public void onAnswer(String piece) {
            answer.append(piece);
            pieces++;
        }
    }

    static void check(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    static void fails(VaquitaException.Kind kind, String words, Runnable call) {
        try {
            call.run();
        } catch (VaquitaException error) {
            check(error.kind() == kind && error.getMessage().contains(words), error.kind() + ": " + error.getMessage());
            return;
        }
        throw new AssertionError("it did not fail: " + words);
    }

    static VaquitaOptions greedy() {
        VaquitaOptions options = new VaquitaOptions();
        options.temperature = 0;
        options.maxTokens = 200;
        return options;
    }

    static Said ask(VaquitaSession session) {
        Said said = new Said();
        session.generate(QUESTION, greedy(), said);
        check(said.answer.toString().equals("5784"), said.answer.toString());
        return said;
    }

    static void streaming(VaquitaModel model, String folder) {
        try (VaquitaSession session = model.createSession();
                VaquitaSession later = model.createSession()) {
            Said said = new Said();
            VaquitaTurn turn = session.generate(QUESTION, greedy(), said);
            check(said.answer.toString().equals("5784"), said.answer.toString());
            check(said.reasoning.toString().startsWith("3*8=24, write 4 carry 2."), said.reasoning.toString());
            check(said.pieces > 10 && turn.stop == VaquitaTurn.Stop.END, "pieces");
            check(turn.tokens > 10 && turn.promptTokens > 0 && turn.tokensPerSecond > 0, "figures");
            check(Double.isNaN(turn.joulesPerToken) || turn.joulesPerToken > 0, "unmeasured is not 0");
            session.save(folder + "/session");
            later.restore(folder + "/session");
            Said first = new Said();
            Said second = new Said();
            session.generate("What is the capital of France?", greedy(), first);
            VaquitaTurn restored = later.generate("What is the capital of France?", greedy(), second);
            check(restored.cachedTokens > 0, "cached");
            check(first.answer.toString().equals(second.answer.toString()), "restored");
            fails(VaquitaException.Kind.NOT_FOUND, "none", () -> later.restore(folder + "/none"));
            fails(VaquitaException.Kind.ARGUMENT, "pirate", () -> later.addMessage("pirate", "arr"));
            fails(VaquitaException.Kind.ARGUMENT, "null", () -> later.setSystem(null));
            later.reset();
            later.setSystem("Sei kurz. \ud83d\udc0b");
            later.generate("\ud83d\udc0b?", greedy(), new Said());
        }
    }

    static void cancelling(VaquitaModel model) throws InterruptedException {
        try (VaquitaSession session = model.createSession()) {
            CountDownLatch started = new CountDownLatch(1);
            CountDownLatch cancelled = new CountDownLatch(1);
            AtomicInteger after = new AtomicInteger();
            Thread other =
                    new Thread(
                            () -> {
                                await(started);
                                fails(VaquitaException.Kind.BUSY, "at work", session::reset);
                                session.cancel();
                                cancelled.countDown();
                            });
            other.start();
            VaquitaListener listener =
                    new VaquitaListener() {
                        @Override
                        public void onReasoning(String piece) {
                            if (started.getCount() == 0) {
                                after.incrementAndGet();
                            }
                            started.countDown();
                            await(cancelled);
                        }

                        @Override
                        public void onAnswer(String piece) {
                            after.incrementAndGet();
                        }
                    };
            VaquitaTurn turn = session.generate(QUESTION, greedy(), listener);
            other.join();
            check(turn.stop == VaquitaTurn.Stop.CANCELLED, "cancelled");
            check(after.get() <= 1, "pieces after it was cancelled: " + after.get()); // what was held back
            ask(session);
        }
    }

    static void listenersMayThrow(VaquitaModel model) {
        try (VaquitaSession session = model.createSession()) {
            try {
                session.generate(
                        QUESTION,
                        greedy(),
                        new VaquitaListener() {
                            @Override
                            public void onReasoning(String piece) {
                                throw new IllegalStateException("mine");
                            }

                            @Override
                            public void onAnswer(String piece) {}
                        });
                throw new AssertionError("it was lost");
            } catch (IllegalStateException error) {
                check(error.getMessage().equals("mine"), "another exception");
            }
            ask(session);
        }
    }

    static void twoSessions(VaquitaModel model) throws InterruptedException {
        AtomicInteger right = new AtomicInteger();
        Thread[] threads = new Thread[2];
        for (int i = 0; i < threads.length; i++) {
            threads[i] =
                    new Thread(
                            () -> {
                                try (VaquitaSession session = model.createSession()) {
                                    ask(session);
                                    right.incrementAndGet();
                                }
                            });
            threads[i].start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        check(right.get() == 2, "both answer");
    }

    static void closeWhileGenerating(VaquitaModel model) throws InterruptedException {
        VaquitaSession session = model.createSession();
        CountDownLatch started = new CountDownLatch(1);
        AtomicInteger ended = new AtomicInteger();
        Thread other =
                new Thread(
                        () -> {
                            VaquitaOptions endless = new VaquitaOptions();
                            Said said =
                                    new Said() {
                                        @Override
                                        public void onReasoning(String piece) {
                                            started.countDown();
                                        }
                                    };
                            VaquitaTurn turn = session.generate(QUESTION, endless, said);
                            ended.set(turn.stop.ordinal() + 1);
                        });
        other.start();
        await(started);
        session.close();
        other.join();
        check(ended.get() > 0, "it ended");
        fails(VaquitaException.Kind.CLOSED, "closed", session::reset);
        session.close();
        session.cancel();

        VaquitaSession own = model.createSession();
        VaquitaTurn turn =
                own.generate(
                        QUESTION,
                        greedy(),
                        new VaquitaListener() {
                            @Override
                            public void onReasoning(String piece) {
                                own.close();
                            }

                            @Override
                            public void onAnswer(String piece) {}
                        });
        check(turn.stop == VaquitaTurn.Stop.CANCELLED, "closed by its listener");
        fails(VaquitaException.Kind.CLOSED, "closed", own::reset);
    }

    static void memoryAndHeat(String path) {
        VaquitaModel.Options options = new VaquitaModel.Options();
        options.context = 512;
        options.threads = 2;
        // Everything fits, also beside a virtual machine.
        options.memory = "4GiB";
        VaquitaModel model = VaquitaModel.open(path, options);
        check(model.memory().budget == 4L << 30 && model.memory().dense > 0, "budget");
        options.cache = "q8";
        try (VaquitaModel small = VaquitaModel.open(path, options)) {
            check(small.memory().cache < model.memory().cache * 7 / 10, "a small cache");
        }
        check(model.onThermalStatusChanged(4) == 1, "critical");
        check(model.onThermalStatusChanged(0) == 2, "nominal");
        model.onTrimMemory(20);
        model.onTrimMemory(40);
        VaquitaSession session = model.createSession();
        fails(VaquitaException.Kind.MEMORY, "1 sessions", model::createSession);
        model.close();
        ask(session); // it goes on without its model
        session.close();
        fails(VaquitaException.Kind.CLOSED, "closed", model::memory);
        model.close();
        options.memory = "1M";
        fails(VaquitaException.Kind.MEMORY, "needs at least", () -> VaquitaModel.open(path, options));
        options.memory = null;
        fails(VaquitaException.Kind.NOT_FOUND, "nothing.gguf", () -> VaquitaModel.open("/nothing.gguf", options));
        fails(VaquitaException.Kind.ARGUMENT, "null", () -> VaquitaModel.open(null, options));
        options.cache = "q3";
        fails(VaquitaException.Kind.ARGUMENT, "allowed: f32, f16, q8", () -> VaquitaModel.open(path, options));
        options.cache = null;
        options.threads = -1;
        fails(VaquitaException.Kind.ARGUMENT, "threads", () -> VaquitaModel.open(path, options));
    }

    /** Drafts change no answer, and a conversation that begins like one of an earlier model goes on from it. */
    static void draftsAndKeptPrompts(String path, String folder) {
        VaquitaModel.Options options = new VaquitaModel.Options();
        options.context = 512;
        options.drafts = "lookup:4";
        options.promptFolder = folder + "/prompts";
        options.promptBytes = 64 << 20;
        VaquitaTurn[] turns = new VaquitaTurn[2];
        for (int i = 0; i < turns.length; i++) {
            try (VaquitaModel model = VaquitaModel.open(path, options);
                    VaquitaSession session = model.createSession()) {
                session.setSystem(
                        "You are a patient teacher who explains each step of a calculation in short sentences, names"
                                + " the digits that are carried, and ends with the result alone in its own line.");
                turns[i] = session.generate(QUESTION, greedy(), new Said());
            }
        }
        check(turns[0].cachedTokens == 0 && turns[1].cachedTokens > 32, "kept prompts");
        check(turns[0].tokens == turns[1].tokens, "the same answer");
        check(turns[0].draftedTokens > 0 && turns[0].acceptedTokens <= turns[0].draftedTokens, "drafts");
        options.drafts = "guess";
        fails(VaquitaException.Kind.ARGUMENT, "lookup:DEPTH", () -> VaquitaModel.open(path, options));
        options.drafts = null;
        options.promptFolder = path;
        fails(VaquitaException.Kind.IO, "cannot be kept there", () -> VaquitaModel.open(path, options));
        options.promptFolder = null;
        options.promptBytes = -1;
        fails(VaquitaException.Kind.ARGUMENT, "promptBytes", () -> VaquitaModel.open(path, options));
    }

    static void await(CountDownLatch latch) {
        try {
            latch.await();
        } catch (InterruptedException error) {
            throw new AssertionError(error);
        }
    }

    public static void main(String[] arguments) throws InterruptedException {
        String path = new File(arguments[0]).getPath();
        try (VaquitaModel model = VaquitaModel.open(path, new VaquitaModel.Options())) {
            streaming(model, arguments[1]);
            cancelling(model);
            listenersMayThrow(model);
            twoSessions(model);
            closeWhileGenerating(model);
        }
        memoryAndHeat(path);
        draftsAndKeptPrompts(path, arguments[1]);
        System.out.println("all checks passed");
    }
}
