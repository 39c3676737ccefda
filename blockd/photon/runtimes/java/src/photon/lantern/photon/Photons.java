/*
 * Which photon is running here, and how a thread comes into and out of one.
 *
 * The current photon is a field of a PhotonThread, and for every other thread an inheritable
 * thread-local, so that threads a photon starts belong to it. No photon (null) is the base view:
 * class initialisers, the init phase, and threads made there. Invariants: `enter` and `exit` are
 * paired on one thread; a thread that runs for another photon than its own sees none of its
 * thread-locals and leaves none behind, because a worker of a pool that photons share must not
 * carry one's to another.
 *
 * Used by rewritten classes, by Tasks for executors, and by the runtime.
 */
package lantern.photon;

/** The current photon; see the head of this file. */
public final class Photons {
    private static final InheritableThreadLocal<Photon> INHERITED = new InheritableThreadLocal<>();
    private static final ThreadLocal<Saved> INITS = new ThreadLocal<>();

    private Photons() {}

    /** What a thread was before it entered a photon. */
    static final class Saved {
        final Photon photon;
        final Object locals;
        final Object inheritable;
        final Saved next;

        Saved(Photon photon, Object locals, Object inheritable, Saved next) {
            this.photon = photon;
            this.locals = locals;
            this.inheritable = inheritable;
            this.next = next;
        }
    }

    /** The photon this thread runs for; null in the base view. */
    public static Photon current() {
        Thread thread = Thread.currentThread();
        return thread instanceof PhotonThread ? ((PhotonThread) thread).photon : INHERITED.get();
    }

    /**
     * Makes a photon (null: the base view) this thread's, with no thread-locals.
     *
     * @return what `exit` takes; null where nothing changed
     */
    public static Object enter(Photon photon) {
        Photon before = current();
        if (before == photon) {
            return null;
        }
        Thread thread = Thread.currentThread();
        Saved saved = new Saved(before, ThreadLocals.locals(thread), ThreadLocals.inheritable(thread), null);
        ThreadLocals.set(thread, null, null);
        set(thread, photon);
        return saved;
    }

    /** Undoes an `enter`. */
    public static void exit(Object token) {
        if (token != null) {
            Saved saved = (Saved) token;
            Thread thread = Thread.currentThread();
            ThreadLocals.set(thread, saved.locals, saved.inheritable);
            set(thread, saved.photon);
        }
    }

    /**
     * Into the base view, for a class initialiser: it runs once for all, so it must neither see
     * nor change what is private to the photon that happens to be the first. Its thread-locals
     * stay: libraries pass arguments to initialisers that way.
     */
    public static void enterInit() {
        Thread thread = Thread.currentThread();
        Photon photon = current();
        if (thread instanceof PhotonThread) {
            PhotonThread mine = (PhotonThread) thread;
            mine.saved = new Saved(photon, null, null, mine.saved);
        } else {
            INITS.set(new Saved(photon, null, null, INITS.get()));
        }
        if (photon != null) {
            set(thread, null);
        }
    }

    /** Out of it again. */
    public static void exitInit() {
        Thread thread = Thread.currentThread();
        Saved saved;
        if (thread instanceof PhotonThread) {
            PhotonThread mine = (PhotonThread) thread;
            saved = mine.saved;
            mine.saved = saved.next;
        } else {
            saved = INITS.get();
            if (saved.next == null) {
                INITS.remove();
            } else {
                INITS.set(saved.next);
            }
        }
        if (saved.photon != null) {
            set(thread, saved.photon);
        }
    }

    /** Forgets everything this thread learnt for a photon, so that it can serve the next one. */
    public static void wipe() {
        Thread thread = Thread.currentThread();
        ThreadLocals.set(thread, null, null);
        set(thread, null);
    }

    private static void set(Thread thread, Photon photon) {
        if (thread instanceof PhotonThread) {
            ((PhotonThread) thread).photon = photon;
        }
        // Also on photon threads: the threads they start inherit it from here.
        if (photon == null) {
            INHERITED.remove();
        } else {
            INHERITED.set(photon);
        }
    }
}
