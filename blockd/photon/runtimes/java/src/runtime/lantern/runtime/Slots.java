/*
 * How many slots there are: threads that wait for an invocation or run one.
 *
 * blockd counts a waiting `next` as free capacity and needs one waiting to hand over an invocation.
 * So a couple are always kept waiting, up to the limit, and no more than recent load calls for: an
 * idle sandbox has two threads, whatever its limit. A waiting `next` is never given up (an
 * invocation might be on its way in it); slots end only after an invocation of theirs.
 * Invariants, under this object's lock: idle + busy = total <= limit.
 */
package lantern.runtime;

/** The set of slots; see the head of this file. */
final class Slots {
    /** Waiting calls beyond the busy ones. Two: while one is being replaced, another is there. */
    static final int SPARE = 2;
    /** How long a peak of load keeps slots alive. Starting one takes about 0.1 ms, so not long. */
    private static final long PEAK_NANOS = 10_000_000_000L;

    /** Starts a slot's thread. */
    interface Starter {
        void start();
    }

    private final int limit;
    private final Starter starter;
    private int idle;
    private int busy;
    private int peak;
    private long peakAt;

    Slots(int limit, Starter starter) {
        this.limit = limit;
        this.starter = starter;
    }

    void begin() {
        synchronized (this) {
            idle = Math.min(SPARE, limit);
        }
        for (int i = 0; i < Math.min(SPARE, limit); i++) {
            starter.start();
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
            more = idle < SPARE && idle + busy < limit;
            if (more) {
                idle++;
            }
        }
        if (more) {
            starter.start();
        }
    }

    /** A busy slot is done. Whether it shall wait for another invocation, or end. */
    synchronized boolean keep() {
        busy--;
        boolean wanted = idle < Math.max(SPARE, peak - busy);
        if (wanted) {
            idle++;
        }
        return wanted;
    }

    /** A busy slot ends and another takes its place (where threads cannot be wiped). */
    void replace() {
        if (keep()) {
            starter.start();
        }
    }
}
