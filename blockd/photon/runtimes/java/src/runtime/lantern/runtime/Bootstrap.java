/*
 * The first process of a Java sandbox: loads the handler named by _HANDLER and serves photons.
 *
 *     java @options -javaagent:lantern-agent.jar -cp lantern-runtime.jar:APPLICATION lantern.runtime.Bootstrap
 *
 * Without the agent it works too, but static fields are then shared by all photons. Exit codes:
 * 1 the handler could not be loaded (reported to init/error first), the Runtime API is gone, or the
 * process drained after an error of the JVM (Slot); 2 the environment is wrong.
 */
package lantern.runtime;

import java.io.IOException;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;

/** Main of the Java runtime. */
public final class Bootstrap {
    private static final int EXIT_INIT = 1;
    private static final int EXIT_DRAINED = 1;
    private static final int EXIT_SETTINGS = 2;
    /** How long a drained process waits for an invocation that may be on its way in a waiting call. */
    private static final long LAST_CALL_MS = 100;

    private Bootstrap() {}

    /** Serves until the process is ended. */
    public static void main(String[] arguments) {
        Settings settings;
        try {
            settings = Settings.from(System.getenv());
        } catch (IllegalArgumentException e) {
            System.err.println("lantern: " + e.getMessage());
            System.exit(EXIT_SETTINGS);
            return;
        }
        System.setOut(new RoutedOutput(System.out));
        System.setErr(new RoutedOutput(System.err));
        ClassLoader loader = ClassLoader.getSystemClassLoader();
        Handler handler;
        try {
            handler = HandlerLoader.load(settings.handler, loader);
        } catch (Throwable thrown) {
            if (thrown instanceof HandlerLoader.LoadException) {
                System.err.println("lantern: " + thrown.getMessage());
            } else {
                thrown.printStackTrace();
            }
            report(settings, thrown);
            Runtime.getRuntime().halt(EXIT_INIT);
            return;
        }
        serve(settings, handler, loader);
    }

    private static void serve(Settings settings, Handler handler, ClassLoader loader) {
        new Host(settings, handler, loader).slots.begin();
    }

    /** This process, as its slots see it. */
    private static final class Host implements Slots.Host {
        final Slots slots;
        private final Settings settings;
        private final Handler handler;
        private final ClassLoader loader;
        private final AtomicInteger number = new AtomicInteger();
        private final Set<Slot> all = ConcurrentHashMap.newKeySet();

        Host(Settings settings, Handler handler, ClassLoader loader) {
            this.settings = settings;
            this.handler = handler;
            this.loader = loader;
            slots = new Slots(settings.maxConcurrency, this);
        }

        @Override
        public void start() {
            all.removeIf(slot -> slot.getState() == Thread.State.TERMINATED);
            Slot slot = new Slot("photon-" + number.incrementAndGet(), settings, handler, slots, loader);
            all.add(slot);
            boolean started = false;
            try {
                slot.start();
                started = true;
            } finally {
                if (!started) {
                    all.remove(slot);
                }
            }
        }

        @Override
        public void stopWaiting() {
            all.forEach(Slot::stopWaiting);
        }

        @Override
        public void end() {
            try {
                Thread.sleep(LAST_CALL_MS);
            } catch (InterruptedException e) {
                // Only a stray interrupt of a handler's.
            }
            if (slots.busy() == 0) {
                Runtime.getRuntime().halt(EXIT_DRAINED);
            }
        }
    }

    private static void report(Settings settings, Throwable thrown) {
        Failure failure = thrown instanceof HandlerLoader.LoadException
            ? Failure.of(((HandlerLoader.LoadException) thrown).type, thrown.getMessage())
            : Failure.of(thrown);
        try (RuntimeApi api = new RuntimeApi(settings)) {
            api.failInit(failure);
        } catch (IOException e) {
            System.err.println("lantern: init/error could not be posted: " + e.getMessage());
        }
    }
}
