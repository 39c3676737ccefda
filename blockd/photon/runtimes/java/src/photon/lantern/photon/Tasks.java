/*
 * Carries the submitter's photon into executors' threads.
 *
 * The rewritten ThreadPoolExecutor.execute wraps what it is given; FutureTask and ForkJoinTask
 * (which is also what streams and CompletableFuture run) remember their maker's photon themselves.
 * Invariant: a task runs in its submitter's view, also in the base view where that was none, even
 * if its worker was started by another photon.
 */
package lantern.photon;

import java.util.concurrent.FutureTask;

/** Tasks with their photon; see the head of this file. */
public final class Tasks {
    private Tasks() {}

    private static final class Carried implements Runnable {
        private final Photon photon;
        private final Runnable task;

        Carried(Photon photon, Runnable task) {
            this.photon = photon;
            this.task = task;
        }

        @Override
        public void run() {
            Tasks.run(task, photon);
        }

        @Override
        public String toString() {
            return task.toString();
        }
    }

    /** Runs a task for a photon. */
    public static void run(Runnable task, Photon photon) {
        Object token = Photons.enter(photon);
        try {
            task.run();
        } finally {
            Photons.exit(token);
        }
    }

    /** A task that runs for the current photon, wherever it runs. */
    public static Runnable carry(Runnable task) {
        // Null is the executor's to refuse; a FutureTask remembers its photon itself.
        return task == null || task instanceof FutureTask || task instanceof Carried ? task
            : new Carried(Photons.current(), task);
    }
}
