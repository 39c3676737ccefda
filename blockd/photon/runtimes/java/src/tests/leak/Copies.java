/*
 * Initial values that are hard to copy: hashes that fail or use other statics, long chains.
 */
package leak;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;

/** Checks that run in a photon. */
public final class Copies {
    /** Longer than a stack is deep. */
    private static final int LENGTH = 50_000;

    private Copies() {}

    /** A set of one key whose hash can be made to fail. */
    static final class Fragile {
        @lantern.runtime.Shared
        static final AtomicInteger FAILURES = new AtomicInteger();
        static Set<Key> keys = new HashSet<>();

        static {
            keys.add(new Key());
        }

        static final class Key {
            String value = "key";

            @Override
            public int hashCode() {
                if (FAILURES.getAndUpdate(left -> Math.max(0, left - 1)) > 0) {
                    throw new OutOfMemoryError("as planned");
                }
                return value.hashCode();
            }

            @Override
            public boolean equals(Object other) {
                return other instanceof Key && value.equals(((Key) other).value);
            }
        }
    }

    /** A copy that fails leaves nothing half made. */
    public static void fails() {
        Fragile.FAILURES.set(1);
        try {
            Fragile.keys.size();
            throw new AssertionError("the copy did not fail");
        } catch (OutOfMemoryError expected) {
            that(Fragile.keys.size() == 1, "what is left of a copy that failed is taken for one");
        }
    }

    record Link(List<String> values, Link next) {}

    /** Statics of long chains, of objects that are made of complete parts. */
    static final class Chains {
        static Link links;
        static List<Object> lists = List.of(new ArrayList<>(List.of("last")));
        static Set<List<Set<List<String>>>> nested = Set.of(List.of(Set.of(new ArrayList<>(List.of("deep")))));

        static {
            for (int i = 0; i < LENGTH; i++) {
                links = new Link(new ArrayList<>(), links);
                lists = List.of(lists);
            }
        }
    }

    /** Long chains are copied, and each link of them. */
    public static void chains() {
        int length = 0;
        for (Link at = Chains.links; at != null; at = at.next()) {
            that(at.values().isEmpty(), "a link of another photon");
            at.values().add("mine");
            length++;
        }
        that(length == LENGTH, length + " links");
        Object at = Chains.lists;
        for (int i = 0; i <= LENGTH; i++) {
            at = ((List<?>) at).get(0);
        }
        that(at.equals(List.of("last")), "the list's end is " + at);
        that(Chains.nested.contains(List.of(Set.of(List.of("deep")))), "a set does not find its nested element");
        Chains.nested.iterator().next().get(0).iterator().next().add("mine");
    }

    /** A key whose hash uses a static of another class. */
    static final class Salted {
        @lantern.runtime.Shared
        static final AtomicReference<CountDownLatch> HASHING = new AtomicReference<>();
        static Set<Salted> keys = new HashSet<>();

        static {
            keys.add(new Salted());
        }

        String value = "key";

        @Override
        public int hashCode() {
            CountDownLatch hashing = HASHING.getAndSet(null);
            if (hashing != null) {
                hashing.countDown();
                try {
                    Thread.sleep(200);
                } catch (InterruptedException e) {
                    throw new AssertionError(e);
                }
            }
            return value.hashCode() + Salt.numbers[0];
        }

        @Override
        public boolean equals(Object other) {
            return other instanceof Salted && value.equals(((Salted) other).value);
        }
    }

    /** The static that hashes use. */
    static final class Salt {
        static int[] numbers = {7};
        static int unused;
    }

    /** Two threads of a photon whose copies need each other's statics. */
    public static void together() throws Exception {
        CountDownLatch hashing = new CountDownLatch(1);
        // Both classes are there, initialised and known to the photon; nothing is copied yet.
        that(Salt.unused == 0 && Salted.HASHING.get() == null, "not as at the start");
        Salted.HASHING.set(hashing);
        CountDownLatch done = new CountDownLatch(2);
        daemon(() -> {
            that(Salted.keys.contains(new Salted()), "a set does not find its element");
            done.countDown();
        });
        daemon(() -> {
            try {
                hashing.await();
            } catch (InterruptedException e) {
                throw new AssertionError(e);
            }
            that(Salt.numbers[0] == 7, "another's number");
            done.countDown();
        });
        that(done.await(10, TimeUnit.SECONDS), "two threads of a photon wait for each other");
    }

    private static void daemon(Runnable task) {
        Thread thread = new Thread(task);
        thread.setDaemon(true);
        thread.start();
    }

    private static void that(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }
}
