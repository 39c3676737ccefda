/*
 * One slot: a thread that loops next -> photon -> response on a connection of its own.
 *
 * Invariants: a photon begins after `next` and is closed before the slot waits again; the log is
 * closed before the answer is posted; nothing a handler did to this thread is left for the next
 * photon; nothing a handler throws ends the slot at once; a slot that ends for any reason is not
 * counted any more, so capacity is never lost in silence.
 *
 * Errors of the JVM (no memory, above all) may have struck anything that photons share: a class
 * half initialised, a worker of a pool, this very loop. The invocation is answered with the error
 * and the process drains: its neighbours finish, then blockd starts another. Ending it at once
 * (-XX:+ExitOnOutOfMemoryError) would take all neighbours with it.
 */
package lantern.runtime;

import java.io.IOException;
import lantern.photon.Photon;
import lantern.photon.PhotonThread;
import lantern.photon.Photons;
import lantern.photon.ThreadLocals;

/** A slot; see the head of this file. */
final class Slot extends PhotonThread {
    /** Attempts at `next` before the sandbox is given up, with a growing pause: about five seconds. */
    private static final int MOST_FAILURES = 10;
    private static final long PAUSE_MS = 100;
    /** How deep in causes an error of the JVM is looked for. */
    private static final int MOST_CAUSES = 16;

    private final Settings settings;
    private final Handler handler;
    private final Slots slots;
    private final ClassLoader loader;
    private final RuntimeApi api;
    /** What this slot has; null while it waits for one. */
    private volatile Invocation invocation;
    /** As `slots` counts it: 1 idle, 2 busy, 0 not at all. */
    private int counted = 1;

    Slot(String name, Settings settings, Handler handler, Slots slots, ClassLoader loader) {
        super(name);
        this.settings = settings;
        this.handler = handler;
        this.slots = slots;
        this.loader = loader;
        this.api = new RuntimeApi(settings);
    }

    @Override
    public void run() {
        try (api) {
            loop();
        } catch (Throwable thrown) {
            try {
                abandon(thrown);
            } catch (Throwable again) {
                // Not even that: nothing is left to hope for in this process.
                Runtime.getRuntime().halt(1);
            }
        }
    }

    private void loop() {
        String name = getName();
        boolean more = true;
        while (more) {
            Invocation next = next();
            if (next == null) {
                counted = 0;
                slots.gone();
                return;
            }
            invocation = next;
            counted = 2;
            slots.taken();
            serve(next);
            invocation = null;
            reset(name);
            counted = 0;
            if (ThreadLocals.available()) {
                more = slots.keep();
                counted = more ? 1 : 0;
            } else {
                slots.replace();
                more = false;
            }
        }
        slots.left();
    }

    /** Lets a `next` that waits end; an invocation that is on its way in it still comes. From any thread. */
    void stopWaiting() {
        if (invocation == null) {
            api.lastRequest();
        }
    }

    /** An error outside the handler, where the slot cannot know how far it came. */
    private void abandon(Throwable thrown) {
        slots.drain();
        try {
            System.err.println("lantern: " + getName() + " ends, and the sandbox after those that run: " + thrown);
            if (invocation != null) {
                invocation.log.close();
                api.fail(invocation, Failure.of(thrown));
            }
        } catch (IOException | RuntimeException | Error e) {
            // blockd answers for it when the process ends, or at its deadline.
        }
        if (counted == 1) {
            slots.gone();
        } else if (counted == 2) {
            slots.keep();
            slots.left();
        } else {
            slots.left();
        }
    }

    /** The next invocation; null if none is to be taken any more. */
    private Invocation next() {
        for (int failures = 1;; failures++) {
            if (slots.isDraining()) {
                return null;
            }
            try {
                return api.next();
            } catch (IOException e) {
                if (slots.isDraining()) {
                    return null;
                }
                if (failures == MOST_FAILURES) {
                    System.err.println("lantern: the Runtime API at " + settings.apiHost + ":" + settings.apiPort
                        + " cannot be used: " + e.getMessage());
                    Runtime.getRuntime().halt(1);
                }
                pause(PAUSE_MS * failures);
            }
        }
    }

    private void serve(Invocation invocation) {
        Photon photon = new Photon();
        photon.attachment = invocation;
        byte[] reply = null;
        Failure failure = null;
        boolean damaged = false;
        Object token = Photons.enter(photon);
        try {
            reply = handler.handle(photon, new InvocationContext(settings, invocation));
        } catch (Throwable thrown) {
            damaged = damages(thrown);
            failure = failure(thrown);
        } finally {
            Photons.exit(token);
        }
        interrupted();
        photon.close();
        invocation.log.close();
        try {
            if (failure == null) {
                api.respond(invocation, reply);
            } else {
                api.fail(invocation, failure);
            }
        } catch (IOException e) {
            System.err.println("lantern: the answer to " + invocation.requestId + " was lost: " + e.getMessage());
        }
        if (damaged) {
            System.err.println("lantern: the sandbox ends after the invocations that run, for " + failure.type + " in "
                + invocation.requestId);
            slots.drain();
        }
    }

    /** Whether others may suffer from it too. A stack that was too deep is the handler's own. */
    private static boolean damages(Throwable thrown) {
        Throwable at = thrown;
        for (int depth = 0; at != null && depth < MOST_CAUSES; depth++) {
            if (at instanceof VirtualMachineError) {
                return !(at instanceof StackOverflowError);
            }
            at = at.getCause();
        }
        return false;
    }

    private static Failure failure(Throwable thrown) {
        try {
            StringBuilder text = new StringBuilder();
            java.io.StringWriter trace = new java.io.StringWriter();
            thrown.printStackTrace(new java.io.PrintWriter(trace, true));
            System.err.println(text.append(trace));
            return Failure.of(thrown);
        } catch (Throwable again) {
            // An exception whose own methods throw, or no memory to describe it.
            return Failure.of(thrown.getClass().getName(), "the handler failed, and its error cannot be described");
        }
    }

    private void reset(String name) {
        Photons.wipe();
        if (getContextClassLoader() != loader) {
            setContextClassLoader(loader);
        }
        if (getPriority() != NORM_PRIORITY) {
            setPriority(NORM_PRIORITY);
        }
        if (!getName().equals(name)) {
            setName(name);
        }
        setUncaughtExceptionHandler(null);
        interrupted();
    }

    private static void pause(long millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException e) {
            // Only a stray interrupt of a handler's; the slot goes on.
        }
    }
}
