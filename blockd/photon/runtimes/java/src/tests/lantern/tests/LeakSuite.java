/*
 * Runs the probes under the agent: secrets planted in one photon and looked for in others, that run
 * afterwards on the same thread, afterwards on another, and at the same time. Main of a JVM of its own:
 *
 *     java @options -javaagent:lantern-agent.jar -Dlantern.java.exclude=lantern.tests,leak.excluded \
 *         -cp lantern-runtime.jar:tests lantern.tests.LeakSuite
 */
package lantern.tests;

import java.io.File;
import java.lang.ref.WeakReference;
import java.lang.reflect.Method;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import lantern.photon.Isolation;
import lantern.photon.Photon;
import lantern.photon.PhotonThread;
import lantern.photon.Photons;
import leak.Copies;
import leak.Probe;
import leak.Probes;
import leak.Semantics;
import leak.Worker;

/** See the head of this file. */
public final class LeakSuite {
    private LeakSuite() {}

    /** Runs the suite. */
    public static void main(String[] arguments) {
        for (Probe probe : Probes.all()) {
            Check.test((probe.isolated() ? "isolated:     " : "not isolated: ") + probe.name(), () -> probe(probe));
        }
        Check.test("what stays as it is within a photon", () -> {
            for (int i = 0; i < 3; i++) {
                inPhoton(() -> {
                    Semantics.check();
                    return null;
                });
            }
        });
        Check.test("a copy that fails leaves nothing half made", () -> twice(Copies::fails));
        Check.test("long chains are copied", () -> twice(Copies::chains));
        Check.test("two threads of a photon copy at once", LeakSuite::together);
        Check.test("a library's own worker thread", LeakSuite::worker);
        Check.test("isolated:     statics of a class of another loader", LeakSuite::otherLoader);
        Check.test("each photon's Random is its own", LeakSuite::random);
        Check.test("64 photons count at once, each for itself", LeakSuite::counting);
        Check.test("memory is released", LeakSuite::releases);
        Check.test("what could not be copied is known", () -> Check.equal(0, Isolation.reports().size()));
        Check.finish();
    }

    private static void probe(Probe probe) throws Exception {
        String before = inPhoton(probe::look);
        Check.equal(Probe.NOTHING, before);
        // On one thread, one after the other, as a slot does.
        List<String> found = new ArrayList<>();
        onThread(() -> {
            photon(() -> {
                probe.plant("secret-1");
                return null;
            });
            found.add(photon(probe::look));
            return null;
        });
        // While the one that planted still runs.
        CountDownLatch planted = new CountDownLatch(1);
        CountDownLatch looked = new CountDownLatch(1);
        FutureTask<Object> planter = new FutureTask<>(() -> {
            photon(() -> {
                try {
                    probe.plant("secret-2");
                } finally {
                    planted.countDown();
                }
                looked.await();
                return null;
            });
            return null;
        });
        new Runner(planter).start();
        planted.await();
        found.add(inPhoton(probe::look));
        looked.countDown();
        planter.get();
        found.add(inPhoton(probe::look));
        for (String each : found) {
            Check.that(probe.isolated() == each.equals(Probe.NOTHING),
                probe.isolated() ? "found " + each : "said not to be isolated, but nothing was found");
        }
    }

    private static void twice(Check.Body body) throws Exception {
        for (int i = 0; i < 2; i++) {
            inPhoton(() -> {
                body.run();
                return null;
            });
        }
    }

    private static void together() throws Exception {
        for (int i = 0; i < 2; i++) {
            FutureTask<Object> task = new FutureTask<>(() -> photon(() -> {
                Copies.together();
                return null;
            }));
            Runner runner = new Runner(task);
            // Its photon cannot be closed while two threads wait for each other, and the suite goes on.
            runner.setDaemon(true);
            runner.start();
            task.get(20, TimeUnit.SECONDS);
        }
    }

    /** A thread that is not of a JDK pool: its starter's while that runs, and then nobody's. */
    private static void worker() throws Exception {
        CountDownLatch started = new CountDownLatch(1);
        CountDownLatch end = new CountDownLatch(1);
        FutureTask<String> first = new FutureTask<>(() -> photon(() -> {
            Worker.write("first");
            started.countDown();
            end.await();
            return Worker.read();
        }));
        new Runner(first).start();
        started.await();
        Check.equal("first", inPhoton(Worker::read));
        end.countDown();
        Check.equal("first", first.get());
        for (String later : List.of("second", "third")) {
            Check.equal(Probe.NOTHING, inPhoton(() -> {
                String before = Worker.read();
                Worker.write(later);
                return before;
            }));
            Check.equal(Probe.NOTHING, Worker.read());
        }
        Check.equal(Probe.NOTHING, inPhoton(Semantics::text));
    }

    private static void otherLoader() throws Exception {
        List<URL> urls = new ArrayList<>();
        for (String part : System.getProperty("java.class.path").split(File.pathSeparator)) {
            urls.add(new File(part).toURI().toURL());
        }
        try (URLClassLoader loader = new URLClassLoader(urls.toArray(new URL[0]), ClassLoader.getPlatformClassLoader())) {
            Class<?> statics = loader.loadClass("leak.Statics");
            Check.that(statics != Class.forName("leak.Statics"), "it is the same class");
            Method set = statics.getDeclaredMethod("hidden", String.class);
            Method get = statics.getDeclaredMethod("hidden");
            set.setAccessible(true);
            get.setAccessible(true);
            Check.equal("secret", inPhoton(() -> {
                set.invoke(null, "secret");
                return get.invoke(null);
            }));
            Check.equal(Probe.NOTHING, inPhoton(() -> get.invoke(null)));
        }
    }

    private static void random() throws Exception {
        List<Long> numbers = new ArrayList<>(List.of(Semantics.random()));
        for (int i = 0; i < 3; i++) {
            numbers.add(inPhoton(Semantics::random));
        }
        Check.equal(4L, numbers.stream().distinct().count());
    }

    private static void counting() throws Exception {
        List<FutureTask<Integer>> all = new ArrayList<>();
        for (int i = 0; i < 64; i++) {
            FutureTask<Integer> task = new FutureTask<>(() -> photon(() -> Semantics.count(20_000)));
            all.add(task);
            new Runner(task).start();
        }
        for (FutureTask<Integer> task : all) {
            Check.equal(20_000, task.get());
        }
    }

    private static void releases() throws Exception {
        List<WeakReference<Photon>> photons = new ArrayList<>();
        onThread(() -> {
            // Ten times the heap that the suite is given.
            for (int i = 0; i < 1000; i++) {
                Photon photon = new Photon();
                photons.add(new WeakReference<>(photon));
                run(photon, () -> {
                    Semantics.litter();
                    return null;
                });
            }
            return null;
        });
        for (int i = 0; i < 50 && photons.stream().anyMatch(photon -> photon.get() != null); i++) {
            System.gc();
            Thread.sleep(10);
        }
        Check.equal(0L, photons.stream().filter(photon -> photon.get() != null).count());
    }

    private static <T> T inPhoton(Callable<T> body) throws Exception {
        return onThread(() -> photon(body));
    }

    private static <T> T onThread(Callable<T> body) throws Exception {
        FutureTask<T> task = new FutureTask<>(body);
        new Runner(task).start();
        try {
            return task.get();
        } catch (ExecutionException e) {
            throw new Exception(e.getCause());
        }
    }

    private static <T> T photon(Callable<T> body) throws Exception {
        return run(new Photon(), body);
    }

    private static <T> T run(Photon photon, Callable<T> body) throws Exception {
        Object token = Photons.enter(photon);
        try {
            return body.call();
        } finally {
            Photons.exit(token);
            photon.close();
            Photons.wipe();
        }
    }

    private static final class Runner extends PhotonThread {
        private final Runnable body;

        Runner(Runnable body) {
            super("runner");
            this.body = body;
        }

        @Override
        public void run() {
            body.run();
        }
    }
}
