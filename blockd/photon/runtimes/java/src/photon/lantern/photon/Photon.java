/*
 * A photon: the private state of one invocation.
 *
 * Holds the photon's copies of static fields, by class index. Invariants: `table` is only replaced
 * or written under this object's lock, and what is put into it is complete before it is put
 * (release fence), so readers may look without the lock; a copy of an object is made at most once
 * per photon, so two statics that name one object still do so in the photon.
 *
 * A closed photon keeps nothing: threads that outlive their invocation, perhaps to work for others,
 * get a holder of their own at every access, with copies of initial values, and drop it with what
 * they wrote. (Not the base view, which such a write would change for everybody.)
 *
 * Locks: this object's is the only one that copying takes. Copying calls hashCode, equals and
 * compareTo of application classes, which may use statics themselves: with a lock per holder two
 * threads of a photon could each wait for the other's.
 *
 * Used by rewritten classes (their accessors and holders), by Photons and by the runtime.
 */
package lantern.photon;

import java.io.InputStream;
import java.io.PrintStream;
import java.lang.invoke.VarHandle;
import java.util.IdentityHashMap;

/** The private state of one invocation; see the head of this file. */
public final class Photon {
    private static final Object[] EMPTY = new Object[0];

    /** Holders of static fields by class index. Read without a lock by rewritten classes. */
    public Object[] table = EMPTY;

    /** What the runtime keeps with the photon: its invocation. */
    public volatile Object attachment;

    private IdentityHashMap<Object, Object> copies;
    private volatile boolean closed;
    private volatile PrintStream out;
    private volatile PrintStream err;
    private volatile InputStream in;

    /**
     * Puts the holder of a class into the table unless there is one, or the photon is closed.
     *
     * @return the holder that counts
     */
    public synchronized Object publish(int index, Object holder) {
        Object[] now = table;
        if (index < now.length && now[index] != null) {
            return now[index];
        }
        VarHandle.releaseFence();
        if (closed) {
            return holder;
        }
        if (index >= now.length) {
            Object[] longer = new Object[Math.max(index + 1, now.length + (now.length >> 1) + 4)];
            System.arraycopy(now, 0, longer, 0, now.length);
            longer[index] = holder;
            VarHandle.releaseFence();
            table = longer;
        } else {
            now[index] = holder;
        }
        return holder;
    }

    /**
     * This photon's copy of an initial value; the same one for the same object, unless closed.
     * Called by holders, without a lock of theirs.
     *
     * @param holder the holder whose field is to be filled
     * @param field  the field's name
     * @param base   the initial value
     */
    public Object copy(Object holder, String field, Object base) {
        if (base == null) {
            return null;
        }
        Object result;
        synchronized (this) {
            result = new Copier(copies(), Isolation.ownerOf(holder.getClass()), field).copy(base);
        }
        VarHandle.releaseFence();
        return result;
    }

    /** A copy of an object's non-final fields: what a handler object is to a photon. */
    public synchronized Object copyInstance(Object instance) {
        return new Copier(copies(), instance.getClass(), "(handler)").copyInstance(instance);
    }

    private IdentityHashMap<Object, Object> copies() {
        if (closed) {
            return new IdentityHashMap<>();
        }
        if (copies == null) {
            copies = new IdentityHashMap<>();
        }
        return copies;
    }

    /** Drops all copies; see the head of this file. */
    public synchronized void close() {
        closed = true;
        table = EMPTY;
        copies = null;
        attachment = null;
        out = null;
        err = null;
        in = null;
    }

    /** Whether the invocation is over. */
    public boolean isClosed() {
        return closed;
    }

    /** What this photon has set as System.out; null if nothing. */
    PrintStream out() {
        return out;
    }

    /** What this photon has set as System.err; null if nothing. */
    PrintStream err() {
        return err;
    }

    /** What this photon has set as System.in; null if nothing. */
    InputStream in() {
        return in;
    }

    synchronized void setOut(PrintStream stream) {
        out = closed ? null : stream;
    }

    synchronized void setErr(PrintStream stream) {
        err = closed ? null : stream;
    }

    synchronized void setIn(InputStream stream) {
        in = closed ? null : stream;
    }
}
