/*
 * Objects that all photons of a sandbox share: models, connections, parsed configuration.
 *
 * Values are handed out as they are, not copied: they must be safe for many threads, and must hold
 * no invocation's private data. Invariants, under this object's lock: `used` is the sum of the
 * entries' sizes and at most the budget; the least recently used entry goes first; a key's version
 * never repeats; at most one initialiser runs per key. Time is passed in, so that tests own it.
 */
package lantern.runtime;

import java.util.HashMap;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;

/** The in-process store; see the head of this file. */
public final class SharedStore {
    /** Without a budget set (LANTERN_STORE_BYTES): this part of the largest heap. */
    private static final int HEAP_PART = 4;
    /** So many leases may be over and not given back before they are looked for. */
    private static final int FEW_LEASES = 64;
    private static final SharedStore SANDBOX = new SharedStore(sandboxBudget(), System::nanoTime);

    private final long budget;
    private final LongSupplier nanos;
    private final LinkedHashMap<String, Entry> entries = new LinkedHashMap<>(16, 0.75f, true);
    private final Map<String, Thread> inits = new HashMap<>();
    private final Map<String, Lease> leases = new HashMap<>();
    private int sweepAt = FEW_LEASES;
    private long used;
    private long versions;
    private long hits;
    private long misses;
    private long evictions;
    private long expired;
    private long initialised;
    private long waits;

    /** A value and its version. */
    public static final class Versioned {
        /** The value; never null. */
        public final Object value;
        /** Its version, for compareAndSwap. */
        public final long version;

        Versioned(Object value, long version) {
            this.value = value;
            this.version = version;
        }
    }

    /** Counts since the start. */
    public static final class Metrics {
        public final int keys;
        public final long bytes;
        public final long budgetBytes;
        public final long hits;
        public final long misses;
        public final long evictions;
        public final long expired;
        public final long inits;
        public final long waits;

        Metrics(SharedStore store) {
            keys = store.entries.size();
            bytes = store.used;
            budgetBytes = store.budget;
            hits = store.hits;
            misses = store.misses;
            evictions = store.evictions;
            expired = store.expired;
            inits = store.initialised;
            waits = store.waits;
        }
    }

    /** Exclusive use of a name, until it is closed or its time is over. */
    public final class Lease implements AutoCloseable {
        private final String name;
        private final long ends;

        Lease(String name, long ends) {
            this.name = name;
            this.ends = ends;
        }

        /** Whether it is still this holder's. */
        public boolean isHeld() {
            synchronized (SharedStore.this) {
                return leases.get(name) == this && nanos.getAsLong() - ends < 0;
            }
        }

        @Override
        public void close() {
            synchronized (SharedStore.this) {
                if (leases.remove(name, this)) {
                    SharedStore.this.notifyAll();
                }
            }
        }
    }

    private static final class Entry {
        final Object value;
        final long bytes;
        final long version;
        final boolean ends;
        final long endsAt;

        Entry(Object value, long bytes, long version, boolean ends, long endsAt) {
            this.value = value;
            this.bytes = bytes;
            this.version = version;
            this.ends = ends;
            this.endsAt = endsAt;
        }
    }

    SharedStore(long budgetBytes, LongSupplier nanos) {
        this.budget = budgetBytes;
        this.nanos = nanos;
    }

    private static long sandboxBudget() {
        String set = System.getenv("LANTERN_STORE_BYTES");
        try {
            return set == null ? Runtime.getRuntime().maxMemory() / HEAP_PART : Long.parseLong(set.trim());
        } catch (NumberFormatException e) {
            throw new IllegalArgumentException("LANTERN_STORE_BYTES is \"" + set + "\"; it must be a number of bytes", e);
        }
    }

    /** The sandbox's store. */
    public static SharedStore instance() {
        return SANDBOX;
    }

    /** The value of a key; null without one. */
    @SuppressWarnings("unchecked") // The caller says what it put there, as with a cast.
    public <T> T get(String key) {
        Versioned found = getVersioned(key).orElse(null);
        return found == null ? null : (T) found.value;
    }

    /** The value of a key with its version. */
    public synchronized Optional<Versioned> getVersioned(String key) {
        Entry entry = find(key);
        if (entry == null) {
            misses++;
            return Optional.empty();
        }
        hits++;
        return Optional.of(new Versioned(entry.value, entry.version));
    }

    /** Puts a value of estimated size, for good. Returns its version. */
    public long put(String key, Object value) {
        return put(key, value, Sizes.estimate(value), 0);
    }

    /**
     * Puts a value.
     *
     * @param bytes what it counts against the budget
     * @param ttlMs milliseconds until it is gone; 0: never
     * @return its version
     * @throws IllegalArgumentException if it alone is larger than the budget
     */
    public synchronized long put(String key, Object value, long bytes, long ttlMs) {
        return store(key, value, bytes, ttlMs);
    }

    /** Puts a value if the key has this version (0: if it has none). Returns whether it did. */
    public synchronized boolean compareAndSwap(String key, long version, Object value) {
        Entry entry = find(key);
        if ((entry == null ? 0 : entry.version) != version) {
            return false;
        }
        store(key, value, Sizes.estimate(value), 0);
        return true;
    }

    /** Removes a key. Returns whether there was one. */
    public synchronized boolean delete(String key) {
        boolean there = find(key) != null;
        remove(key);
        return there;
    }

    /** getOrInit of estimated size, for good, waiting as long as it takes. */
    public <T> T getOrInit(String key, Callable<T> init) throws Exception {
        return getOrInit(key, init, -1, 0);
    }

    /**
     * The value of a key; where there is none, made by exactly one caller while the others wait.
     * An initialiser that throws gives its caller the exception, and the next waiter its turn.
     * Runs in the caller's photon.
     *
     * @param bytes size; below 0: estimated
     * @param ttlMs milliseconds until it is gone; 0: never
     */
    @SuppressWarnings("unchecked") // As in get.
    public <T> T getOrInit(String key, Callable<T> init, long bytes, long ttlMs) throws Exception {
        synchronized (this) {
            boolean waited = false;
            Entry entry = find(key);
            while (entry == null && inits.containsKey(key)) {
                if (inits.get(key) == Thread.currentThread()) {
                    throw new IllegalStateException("the initialiser of \"" + key + "\" asks for its own value");
                }
                waits += waited ? 0 : 1;
                waited = true;
                wait();
                entry = find(key);
            }
            if (entry != null) {
                hits++;
                return (T) entry.value;
            }
            misses++;
            inits.put(key, Thread.currentThread());
        }
        T value = null;
        long size = 0;
        boolean made = false;
        try {
            value = Objects.requireNonNull(init.call(), "an initialiser must not return null");
            // Here: it walks through the value, which may throw too.
            size = bytes < 0 ? Sizes.estimate(value) : bytes;
            made = true;
        } finally {
            synchronized (this) {
                inits.remove(key);
                notifyAll();
                if (made) {
                    initialised++;
                    store(key, value, size, ttlMs);
                }
            }
        }
        return value;
    }

    /**
     * Exclusive use of a name; a lease that was not given back ends after its time.
     *
     * @return the lease; empty if another held it for all of `waitMs`
     */
    public synchronized Optional<Lease> lease(String name, long ttlMs, long waitMs) throws InterruptedException {
        long until = nanos.getAsLong() + TimeUnit.MILLISECONDS.toNanos(waitMs);
        while (true) {
            long now = nanos.getAsLong();
            Lease held = leases.get(name);
            if (held == null || now - held.ends >= 0) {
                Lease lease = new Lease(name, now + TimeUnit.MILLISECONDS.toNanos(ttlMs));
                sweepLeases(now);
                leases.put(name, lease);
                return Optional.of(lease);
            }
            long left = Math.min(until - now, held.ends - now);
            if (until - now <= 0) {
                return Optional.empty();
            }
            waits++;
            wait(Math.max(1, TimeUnit.NANOSECONDS.toMillis(left)));
        }
    }

    /** Drops leases that are over, each time their number has doubled: names may be used once and left. */
    private void sweepLeases(long now) {
        if (leases.size() >= sweepAt) {
            leases.values().removeIf(lease -> now - lease.ends >= 0);
            sweepAt = Math.max(FEW_LEASES, leases.size() * 2);
        }
    }

    /** Leases that are kept, held or over. */
    synchronized int leases() {
        return leases.size();
    }

    /** What the store holds and did. */
    public synchronized Metrics metrics() {
        return new Metrics(this);
    }

    private Entry find(String key) {
        Entry entry = entries.get(Objects.requireNonNull(key, "a key must not be null"));
        if (entry != null && over(entry)) {
            remove(key);
            expired++;
            return null;
        }
        return entry;
    }

    private boolean over(Entry entry) {
        return entry.ends && nanos.getAsLong() - entry.endsAt >= 0;
    }

    private void remove(String key) {
        Entry old = entries.remove(key);
        if (old != null) {
            used -= old.bytes;
        }
    }

    private long store(String key, Object value, long bytes, long ttlMs) {
        Objects.requireNonNull(value, "a value must not be null");
        if (bytes < 0 || bytes > budget) {
            throw new IllegalArgumentException("\"" + key + "\" of " + bytes + " bytes does not fit into the store's budget of "
                + budget + " bytes; raise LANTERN_STORE_BYTES");
        }
        remove(key);
        makeRoom(bytes);
        long ends = nanos.getAsLong() + TimeUnit.MILLISECONDS.toNanos(ttlMs);
        entries.put(key, new Entry(value, bytes, ++versions, ttlMs > 0, ends));
        used += bytes;
        return versions;
    }

    /** The expired first, then the least recently used. */
    private void makeRoom(long bytes) {
        for (int round = 0; round < 2 && used + bytes > budget; round++) {
            Iterator<Entry> oldest = entries.values().iterator();
            while (used + bytes > budget && oldest.hasNext()) {
                Entry entry = oldest.next();
                boolean over = over(entry);
                if (over || round == 1) {
                    oldest.remove();
                    used -= entry.bytes;
                    expired += over ? 1 : 0;
                    evictions += over ? 0 : 1;
                }
            }
        }
    }
}
