/*
 * How many slots there are: threads that wait for an invocation or run one.
 *
 * blockd counts a waiting `next` as free capacity and needs one waiting to hand over an invocation.
 * So a couple are always kept waiting, up to the limit, and no more than recent load calls for: an
 * idle sandbox has two threads, whatever its limit. A waiting `next` is given up only when the
 * process drains (an invocation might be on its way in it, and is served then); slots end only
 * after an invocation of theirs.
 *
 * Draining: after an error that may have damaged what all photons share, nothing new is asked for,
 * those that run finish, and the process ends with the last of them.
 * Invariants, under this object's lock: idle + busy = total <= limit; a slot that cannot be started
 * is not counted.
 */
package lantern.runtime;

/** The set of slots; see the head of this file. */
final class Slots {
    /** Waiting calls beyond the busy ones. Two: while one is being replaced, another is there. */
    static final int SPARE = 2;
    /** How long a peak of load keeps slots alive. Starting one takes about 0.1 ms, so not long. */
    private static final long PEAK_NANOS = 10_000_000_000L;

    /** The process that slots live in. */
    interface Host {
        /** Starts a slot's thread; throws where there can be no more threads. */
        void start();

        /** Lets slots that wait for an invocation stop waiting; those that have one are left alone. */
        void stopWaiting();

        /** Ends the process, unless an invocation has come meanwhile. */
        void end();
    }

    private final int limit;
    private final Host host;
    private int idle;
    private int busy;
    private int peak;
    private long peakAt;
    private boolean draining;

    Slots(int limit, Host host) {
        this.limit = limit;
        this.host = host;
    }

    /** Starts the first ones; throws if there cannot even be one. */
    void begin() {
        start();
        if (limit > 1) {
            tryStart();
        }
    }

    /** An idle slot has got an invocation. */
    void taken() {
        boolean more;
        synchronized (this) {
            idle--;
            busy++;
            long now = System.nanoTime();
            if (busy >= peak || now - peakAt > PEAK_NANOS) {
                peak = busy;
                peakAt = now;
            }
            more = !draining && idle < SPARE && idle + busy < limit;
        }
        if (more) {
            tryStart();
        }
    }

    /** A busy slot is done. Whether it shall wait for another invocation, or end (then it calls `left`). */
    synchronized boolean keep() {
        busy--;
        boolean wanted = !draining && idle < Math.max(SPARE, peak - busy);
        if (wanted) {
            idle++;
        }
        return wanted;
    }

    /** A busy slot ends and another takes its place (where threads cannot be wiped). */
    void replace() {
        boolean wanted;
        synchronized (this) {
            wanted = keep();
            idle -= wanted ? 1 : 0;
        }
        if (wanted) {
            start();
        }
    }

    /** Takes nothing more; the process ends when no slot is busy. */
    void drain() {
        synchronized (this) {
            if (draining) {
                return;
            }
            draining = true;
        }
        host.stopWaiting();
    }

    synchronized boolean isDraining() {
        return draining;
    }

    /** Invocations that run now. */
    synchronized int busy() {
        return busy;
    }

    /** A slot that waited ends without an invocation. */
    void gone() {
        synchronized (this) {
            idle--;
        }
        left();
    }

    /** A slot has ended: where it was the last of a process that drains, so does the process. */
    void left() {
        boolean last;
        synchronized (this) {
            last = draining && busy == 0;
        }
        if (last) {
            host.end();
        }
    }

    private void start() {
        // Counted first: it may be given an invocation before this thread goes on.
        synchronized (this) {
            if (idle + busy >= limit) {
                return;
            }
            idle++;
        }
        boolean started = false;
        try {
            host.start();
            started = true;
        } finally {
            if (!started) {
                synchronized (this) {
                    idle--;
                }
            }
        }
    }

    /** One more, if the sandbox can have one more thread. If not, the slots there are go on. */
    private void tryStart() {
        try {
            start();
        } catch (OutOfMemoryError e) {
            System.err.println("lantern: no thread for another invocation: " + e.getMessage());
        }
    }
}
