/*
 * Takes away and gives back a thread's thread-locals.
 *
 * Threads of pools serve one invocation after the other; what a handler left in a ThreadLocal must
 * not be there for the next. Needs java.lang opened (by the agent, or by --add-opens); where it is
 * not, `available` is false and the runtime takes a fresh thread for every invocation.
 */
package lantern.photon;

import java.lang.reflect.Field;

/** Access to a thread's thread-locals; only ever for the current thread. */
public final class ThreadLocals {
    private static final Field LOCALS;
    private static final Field INHERITABLE;

    static {
        Field locals = null;
        Field inheritable = null;
        try {
            locals = Thread.class.getDeclaredField("threadLocals");
            inheritable = Thread.class.getDeclaredField("inheritableThreadLocals");
            locals.setAccessible(true);
            inheritable.setAccessible(true);
        } catch (ReflectiveOperationException | RuntimeException e) {
            locals = null;
            inheritable = null;
        }
        LOCALS = locals;
        INHERITABLE = inheritable;
    }

    private ThreadLocals() {}

    /** Whether thread-locals can be taken away here. */
    public static boolean available() {
        return LOCALS != null;
    }

    static Object locals(Thread thread) {
        return get(LOCALS, thread);
    }

    static Object inheritable(Thread thread) {
        return get(INHERITABLE, thread);
    }

    static void set(Thread thread, Object locals, Object inheritable) {
        if (LOCALS == null) {
            return;
        }
        try {
            LOCALS.set(thread, locals);
            INHERITABLE.set(thread, inheritable);
        } catch (IllegalAccessException e) {
            throw new AssertionError("both fields were made accessible", e);
        }
    }

    private static Object get(Field field, Thread thread) {
        try {
            return field == null ? null : field.get(thread);
        } catch (IllegalAccessException e) {
            throw new AssertionError("the field was made accessible", e);
        }
    }
}
