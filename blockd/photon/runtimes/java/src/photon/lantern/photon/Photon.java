/*
 * A photon: the private state of one invocation.
 *
 * Holds the photon's copies of static fields, by class index. Invariants: `table` is only replaced
 * or written under this object's lock, and what is put into it is complete before it is put
 * (release fence), so readers may look without the lock; a copy of an object is made at most once
 * per photon, so two statics that name one object still do so in the photon.
 *
 * Used by rewritten classes (their accessors and holders), by Photons and by the runtime.
 */
package lantern.photon;

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

    /**
     * Puts the holder of a class into the table unless there is one.
     *
     * @return the holder that counts
     */
    public synchronized Object publish(int index, Object holder) {
        Object[] now = table;
        if (index < now.length && now[index] != null) {
            return now[index];
        }
        VarHandle.releaseFence();
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
     * This photon's copy of an initial value. Called by holders, which hold their own lock; the
     * order is always holder, then photon.
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
            if (copies == null) {
                copies = new IdentityHashMap<>();
            }
            result = new Copier(copies, Isolation.ownerOf(holder.getClass()), field).copy(base);
        }
        VarHandle.releaseFence();
        return result;
    }

    /** A copy of an object's non-final fields: what a handler object is to a photon. */
    public synchronized Object copyInstance(Object instance) {
        if (copies == null) {
            copies = new IdentityHashMap<>();
        }
        return new Copier(copies, instance.getClass(), "(handler)").copyInstance(instance);
    }

    /**
     * Drops all copies. Threads that outlive their invocation see initial values from then on, in
     * copies that live as long as those threads.
     */
    public synchronized void close() {
        closed = true;
        table = EMPTY;
        copies = null;
        attachment = null;
    }

    /** Whether the invocation is over. */
    public boolean isClosed() {
        return closed;
    }
}
