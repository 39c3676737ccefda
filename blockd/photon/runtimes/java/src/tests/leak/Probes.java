/*
 * The leak suite's probes: the README's table of what is isolated and what is not, executed.
 */
package leak;

import java.io.ByteArrayInputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.reflect.Field;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.Provider;
import java.security.Security;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.SimpleTimeZone;
import java.util.TimeZone;
import java.util.Timer;
import java.util.TimerTask;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ForkJoinPool;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.stream.IntStream;

/** The table. */
public final class Probes {
    private static final ThreadFactory DAEMONS = task -> {
        Thread thread = new Thread(task);
        thread.setDaemon(true);
        return thread;
    };
    static final ExecutorService SHARED_POOL = Executors.newFixedThreadPool(1, DAEMONS);
    static final ScheduledExecutorService SHARED_SCHEDULER = Executors.newScheduledThreadPool(1, DAEMONS);
    static final ForkJoinPool SHARED_FORK_JOIN = new ForkJoinPool(1);
    static final Timer SHARED_TIMER = new Timer(true);
    static final ThreadLocal<String> LOCAL = ThreadLocal.withInitial(() -> Probe.NOTHING);
    static final InheritableThreadLocal<String> INHERITABLE = new InheritableThreadLocal<>();
    static final List<String> CONSTANT = new ArrayList<>();

    private Probes() {}

    interface Plant {
        void plant(String secret) throws Exception;
    }

    private static Probe probe(String name, boolean isolated, Plant plant, Callable<String> look) {
        return new Probe(name, isolated) {
            @Override
            public void plant(String secret) throws Exception {
                plant.plant(secret);
                if (!secret.equals(look())) {
                    throw new AssertionError(name() + ": a photon does not find what it planted itself, but " + look());
                }
            }

            @Override
            public String look() throws Exception {
                return look.call();
            }
        };
    }

    private static Probe isolated(String name, Plant plant, Callable<String> look) {
        return probe(name, true, plant, look);
    }

    private static String first(List<String> list) {
        return list.isEmpty() ? Probe.NOTHING : list.get(0);
    }

    /** All probes. */
    public static List<Probe> all() {
        List<Probe> all = new ArrayList<>();
        values(all);
        objects(all);
        reflection(all);
        threads(all);
        locals(all);
        streams(all);
        notIsolated(all);
        process(all);
        return all;
    }

    private static void values(List<Probe> all) {
        all.add(isolated("static String", secret -> Statics.text = secret, () -> Statics.text));
        all.add(isolated("static of another class, through a subclass",
            secret -> Statics.Child.text = secret, Statics.Child::through));
        all.add(isolated("private static behind methods", Statics::hidden, Statics::hidden));
        all.add(isolated("static of nested classes", Statics.Inner::set, Statics.Inner::get));
        all.add(isolated("static that is null at first", secret -> Statics.none = secret,
            () -> Statics.none == null ? Probe.NOTHING : (String) Statics.none));
        all.add(isolated("statics of all primitive types", secret -> {
            int n = secret.hashCode();
            Statics.z = false;
            Statics.b = (byte) n;
            Statics.c = (char) n;
            Statics.s = (short) n;
            Statics.i = n;
            Statics.j = n;
            Statics.f = n;
            Statics.d = n;
            Statics.v = n;
            Statics.text = secret;
        }, () -> Statics.z && Statics.b == 1 && Statics.c == 'c' && Statics.s == 2 && Statics.i == 3 && Statics.j == 4
            && Statics.f == 5 && Statics.d == 6 && Statics.v == 7 ? Probe.NOTHING : Statics.text));
        all.add(isolated("static written in a lambda", secret -> {
            Runnable write = () -> Statics.text = secret;
            write.run();
        }, () -> Statics.text));
        all.add(isolated("initialiser run within a photon", secret -> {
            Statics.text = secret;
            if (!Statics.Late.SEEN.equals(Probe.NOTHING)) {
                throw new AssertionError("a class initialiser saw a photon's value");
            }
        }, () -> Statics.Late.copied.equals(Probe.NOTHING) ? Statics.text : Statics.Late.copied));
    }

    private static void objects(List<Probe> all) {
        all.add(isolated("array changed in place", secret -> Statics.array[0] = secret, () -> Statics.array[0]));
        all.add(isolated("array of arrays changed in place", secret -> {
            Statics.matrix[1][0] = 1;
            Statics.text = secret;
        }, () -> Statics.matrix[1][0] == 0 ? Probe.NOTHING : Statics.text));
        all.add(isolated("list changed in place", secret -> Statics.list.add(secret), () -> first(Statics.list)));
        all.add(isolated("object in a map changed in place", secret -> Statics.map.get("k").value = secret,
            () -> Statics.map.get("k").value.equals("v") ? Probe.NOTHING : Statics.map.get("k").value));
        all.add(isolated("list in a concurrent map", secret -> Statics.nested.get("k").add(secret),
            () -> Statics.nested.get("k").size() == 1 ? Probe.NOTHING : Statics.nested.get("k").get(1)));
        all.add(isolated("object graph with a cycle", secret -> Statics.cycle.next.value = secret,
            () -> Statics.cycle.next.value.equals("b") ? Probe.NOTHING : Statics.alias.next.value));
        all.add(isolated("StringBuilder, Date, atomics", secret -> {
            Statics.builder.append(secret);
            Statics.date.setTime(1);
            Statics.atomic.set(1);
        }, () -> Statics.date.getTime() == 0 && Statics.atomic.get() == 0 && Statics.builder.length() == 0
            ? Probe.NOTHING : Statics.builder.toString()));
        all.add(isolated("AtomicReference to an object", secret -> Statics.reference.get().value = secret,
            () -> Statics.reference.get().value.equals("initial") ? Probe.NOTHING : Statics.reference.get().value));
        all.add(isolated("Collections.synchronizedList", secret -> Statics.synchronizedList.add(secret),
            () -> first(Statics.synchronizedList)));
        all.add(isolated("List.of mutable lists", secret -> Statics.immutableOfMutable.get(1).add(secret),
            () -> first(Statics.immutableOfMutable.get(1))));
        all.add(isolated("EnumMap", secret -> Statics.enums.get(Statics.Color.RED).add(secret),
            () -> first(Statics.enums.get(Statics.Color.RED))));
        all.add(isolated("application's LinkedHashMap subclass", secret -> Statics.lru.get("one").value = secret,
            () -> Statics.lru.get("one").value.equals("1") ? Probe.NOTHING : Statics.lru.get("one").value));
        all.add(isolated("cache segment: a ReentrantLock with an AtomicReferenceArray", secret -> {
            Statics.segment.lock();
            Statics.segment.table.set(1, new Statics.Node(secret));
            Statics.segment.unlock();
        }, () -> {
            Statics.segment.lock();
            try {
                return Statics.segment.table.get(1) == null ? Probe.NOTHING : Statics.segment.table.get(1).value;
            } finally {
                Statics.segment.unlock();
            }
        }));
        all.add(isolated("record that holds a list", secret -> Statics.pair.right().add(secret),
            () -> first(Statics.pair.right())));
    }

    private static void reflection(List<Probe> all) {
        all.add(isolated("reflection: Field.set and get", secret -> field("hidden").set(null, secret),
            () -> (String) field("hidden").get(null)));
        all.add(isolated("reflection: setInt, getLong", secret -> {
            field("i").setInt(null, 99);
            Statics.text = secret;
        }, () -> field("i").getLong(null) == 3 ? Probe.NOTHING : Statics.text));
        all.add(isolated("reflection by method reference", secret -> Statics.hidden(secret), () -> {
            Field field = field("hidden");
            Reader reader = field::get;
            return (String) reader.read(null);
        }));
        all.add(isolated("MethodHandle of a static", secret -> {
            MethodHandle setter = MethodHandles.privateLookupIn(Statics.class, MethodHandles.lookup())
                .findStaticSetter(Statics.class, "hidden", String.class);
            try {
                setter.invoke(secret);
            } catch (Throwable thrown) {
                throw new AssertionError(thrown);
            }
        }, () -> {
            try {
                return (String) MethodHandles.privateLookupIn(Statics.class, MethodHandles.lookup())
                    .findStaticGetter(Statics.class, "hidden", String.class).invoke();
            } catch (Throwable thrown) {
                throw new AssertionError(thrown);
            }
        }));
    }

    interface Reader {
        Object read(Object on) throws IllegalAccessException;
    }

    private static Field field(String name) throws NoSuchFieldException {
        Field field = Statics.class.getDeclaredField(name);
        field.setAccessible(true);
        return field;
    }

    private static void threads(List<Probe> all) {
        all.add(isolated("a thread that the photon starts", secret -> join(() -> Statics.text = secret), () -> Statics.text));
        all.add(isolated("a thread that refuses to inherit", secret -> {
            Thread thread = new Thread(null, () -> Statics.text = secret, "rude", 0, false);
            thread.start();
            thread.join();
        }, () -> Statics.text));
        all.add(isolated("a pool that the photon makes", secret -> {
            ExecutorService pool = Executors.newFixedThreadPool(2);
            pool.submit(() -> Statics.text = secret).get();
            pool.shutdown();
        }, () -> Statics.text));
        all.add(isolated("a pool that photons share: execute", secret -> {
            CountDownLatch done = new CountDownLatch(1);
            SHARED_POOL.execute(() -> {
                Statics.text = secret;
                done.countDown();
            });
            done.await();
        }, () -> SHARED_POOL.submit(() -> Statics.text).get()));
        all.add(isolated("a pool that photons share: submit", secret -> SHARED_POOL.submit(() -> Statics.text = secret).get(),
            () -> SHARED_POOL.submit(() -> Statics.text).get()));
        all.add(isolated("a scheduler that photons share",
            secret -> SHARED_SCHEDULER.schedule(() -> Statics.text = secret, 1, TimeUnit.MILLISECONDS).get(),
            () -> SHARED_SCHEDULER.schedule(() -> Statics.text, 1, TimeUnit.MILLISECONDS).get()));
        all.add(isolated("a ForkJoinPool that photons share", secret -> SHARED_FORK_JOIN.submit(() -> Statics.text = secret).get(),
            () -> SHARED_FORK_JOIN.submit(() -> Statics.text).get()));
        all.add(isolated("CompletableFuture", secret -> CompletableFuture.runAsync(() -> Statics.text = secret)
            .thenRunAsync(() -> Statics.list.add(secret)).get(),
            () -> CompletableFuture.supplyAsync(() -> first(Statics.list).equals(Probe.NOTHING)
                ? Statics.text : first(Statics.list)).get()));
        all.add(isolated("CompletableFuture completed by another thread", secret -> {
            CompletableFuture<String> future = new CompletableFuture<>();
            CompletableFuture<Void> written = future.thenAccept(value -> Statics.text = value);
            SHARED_POOL.execute(() -> future.complete(secret));
            written.get();
        }, () -> Statics.text));
        all.add(isolated("parallel stream", secret -> IntStream.range(0, 100).parallel().forEach(n -> Statics.text = secret),
            () -> IntStream.range(0, 100).parallel().mapToObj(n -> Statics.text)
                .filter(text -> !text.equals(Probe.NOTHING)).findAny().orElse(Probe.NOTHING)));
        all.add(isolated("a Timer that photons share", secret -> timed(SHARED_TIMER, () -> Statics.text = secret), () -> {
            String[] found = new String[1];
            timed(SHARED_TIMER, () -> found[0] = Statics.text);
            return found[0];
        }));
        all.add(isolated("a Timer that the photon starts", secret -> {
            Timer timer = new Timer(true);
            timed(timer, () -> Statics.text = secret);
            timer.cancel();
        }, () -> Statics.text));
    }

    private static void join(Runnable task) throws InterruptedException {
        Thread thread = new Thread(task);
        thread.start();
        thread.join();
    }

    private static void timed(Timer timer, Runnable task) throws InterruptedException {
        CountDownLatch done = new CountDownLatch(1);
        timer.schedule(new TimerTask() {
            @Override
            public void run() {
                task.run();
                done.countDown();
            }
        }, 0);
        done.await();
    }

    private static void locals(List<Probe> all) {
        all.add(isolated("ThreadLocal in a static final", LOCAL::set, LOCAL::get));
        all.add(isolated("InheritableThreadLocal", INHERITABLE::set,
            () -> INHERITABLE.get() == null ? Probe.NOTHING : INHERITABLE.get()));
        all.add(isolated("ThreadLocal of a shared pool's worker", secret -> {
            SHARED_POOL.submit(() -> LOCAL.set(secret)).get();
            LOCAL.set(secret);
        }, () -> {
            String found = SHARED_POOL.submit(LOCAL::get).get();
            return found.equals(Probe.NOTHING) ? LOCAL.get() : found;
        }));
    }

    /** What a photon prints to while it catches its output. */
    private static final class Catcher extends PrintStream {
        final String secret;

        Catcher(String secret) {
            super(OutputStream.nullOutputStream());
            this.secret = secret;
        }
    }

    private static String caught(Object stream) {
        return stream instanceof Catcher ? ((Catcher) stream).secret : Probe.NOTHING;
    }

    private static void streams(List<Probe> all) {
        all.add(isolated("System.setOut", secret -> System.setOut(new Catcher(secret)), () -> caught(System.out)));
        all.add(isolated("System.setErr", secret -> System.setErr(new Catcher(secret)), () -> caught(System.err)));
        all.add(isolated("System.setIn", secret -> System.setIn(new ByteArrayInputStream(secret.getBytes())), () ->
            System.in instanceof ByteArrayInputStream
                ? new String(((ByteArrayInputStream) System.in).readAllBytes()) : Probe.NOTHING));
        all.add(isolated("System.setOut by method reference", secret -> {
            Consumer<PrintStream> set = System::setOut;
            set.accept(new Catcher(secret));
        }, () -> SHARED_POOL.submit(() -> caught(System.out)).get()));
    }

    private static void notIsolated(List<Probe> all) {
        all.add(probe("mutable object in a static final", false, secret -> CONSTANT.add(0, secret), () -> first(CONSTANT)));
        all.add(probe("mutable field of an enum constant", false, secret -> Mode.ONLY.state = secret, () -> Mode.ONLY.state));
        all.add(probe("system property", false, secret -> System.setProperty("leak.probe", secret),
            () -> System.getProperty("leak.probe", Probe.NOTHING)));
        all.add(probe("static annotated with Shared", false, secret -> opted = secret, () -> opted));
        all.add(probe("excluded class", false, secret -> leak.excluded.Plain.value = secret, () -> leak.excluded.Plain.value));
    }

    /** What the process has one of. */
    private static void process(List<Probe> all) {
        all.add(probe("default locale", false, secret -> Locale.setDefault(new Locale("en", "", secret)),
            () -> Locale.getDefault().getVariant().isEmpty() ? Probe.NOTHING : Locale.getDefault().getVariant()));
        all.add(probe("default time zone", false, secret -> TimeZone.setDefault(new SimpleTimeZone(0, secret)),
            () -> TimeZone.getDefault() instanceof SimpleTimeZone ? TimeZone.getDefault().getID() : Probe.NOTHING));
        all.add(probe("security provider", false, secret -> Security.insertProviderAt(new Fake(secret), 1),
            () -> Security.getProviders()[0] instanceof Fake ? Security.getProviders()[0].getName() : Probe.NOTHING));
        Path file = Path.of(System.getProperty("java.io.tmpdir"), "lantern-leak-" + ProcessHandle.current().pid());
        all.add(probe("file in /tmp", false, secret -> {
            file.toFile().deleteOnExit();
            Files.writeString(file, secret);
        }, () -> Files.exists(file) ? Files.readString(file) : Probe.NOTHING));
    }

    private static final class Fake extends Provider {
        private static final long serialVersionUID = 1L;

        Fake(String name) {
            super(name, "1", "a provider of nothing");
        }
    }

    @lantern.runtime.Shared
    static String opted = Probe.NOTHING;

    enum Mode {
        ONLY;

        String state = Probe.NOTHING;
    }
}
