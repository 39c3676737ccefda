/*
 * The first process of a Java sandbox: loads the handler named by _HANDLER and serves photons.
 *
 *     java @options -javaagent:lantern-agent.jar -cp lantern-runtime.jar:APPLICATION lantern.runtime.Bootstrap
 *
 * Without the agent it works too, but static fields are then shared by all photons. Exit codes:
 * 1 the handler could not be loaded (reported to init/error first), or the Runtime API is gone;
 * 2 the environment is wrong.
 */
package lantern.runtime;

import java.io.IOException;

/** Main of the Java runtime. */
public final class Bootstrap {
    private static final int EXIT_INIT = 1;
    private static final int EXIT_SETTINGS = 2;

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
        Slots[] slots = new Slots[1];
        java.util.concurrent.atomic.AtomicInteger number = new java.util.concurrent.atomic.AtomicInteger();
        slots[0] = new Slots(settings.maxConcurrency,
            () -> new Slot("photon-" + number.incrementAndGet(), settings, handler, slots[0], loader).start());
        slots[0].begin();
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
