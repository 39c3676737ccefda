/*
 * One slot: a thread that loops next -> photon -> response on a connection of its own.
 *
 * Invariants: a photon begins after `next` and is closed before the slot waits again; the log is
 * closed before the answer is posted; nothing a handler did to this thread is left for the next
 * photon; nothing a handler throws ends the slot.
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

    private final Settings settings;
    private final Handler handler;
    private final Slots slots;
    private final ClassLoader loader;

    Slot(String name, Settings settings, Handler handler, Slots slots, ClassLoader loader) {
        super(name);
        this.settings = settings;
        this.handler = handler;
        this.slots = slots;
        this.loader = loader;
    }

    @Override
    public void run() {
        String name = getName();
        try (RuntimeApi api = new RuntimeApi(settings)) {
            boolean more = true;
            while (more) {
                Invocation invocation = next(api);
                slots.taken();
                serve(api, invocation);
                reset(name);
                if (ThreadLocals.available()) {
                    more = slots.keep();
                } else {
                    slots.replace();
                    more = false;
                }
            }
        }
    }

    private Invocation next(RuntimeApi api) {
        for (int failures = 1;; failures++) {
            try {
                return api.next();
            } catch (IOException e) {
                if (failures == MOST_FAILURES) {
                    System.err.println("lantern: the Runtime API at " + settings.apiHost + ":" + settings.apiPort
                        + " cannot be used: " + e.getMessage());
                    Runtime.getRuntime().halt(1);
                }
                pause(PAUSE_MS * failures);
            }
        }
    }

    private void serve(RuntimeApi api, Invocation invocation) {
        Photon photon = new Photon();
        photon.attachment = invocation;
        byte[] reply = null;
        Failure failure = null;
        Object token = Photons.enter(photon);
        try {
            reply = handler.handle(photon, new InvocationContext(settings, invocation));
        } catch (Throwable thrown) {
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
