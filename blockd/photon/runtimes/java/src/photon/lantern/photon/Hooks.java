/*
 * What application classes call instead of some JDK methods that would go round the isolation:
 * reflection and method handles on static fields, threads that refuse to inherit, exit, and the
 * standard streams where a photon sets its own.
 *
 * Invariant: an isolated field is either reached in the photon's view or refused; it is never
 * silently shared. Access checks are still made by the JDK: the original call on the field comes
 * first, in the caller's own class.
 */
package lantern.photon;

import java.io.InputStream;
import java.io.PrintStream;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;

/** Replacements for JDK methods; see the head of this file. */
public final class Hooks {
    private Hooks() {}

    /** Whether a field is isolated. */
    public static boolean isolated(Field field) {
        return Isolation.getter(field) != null;
    }

    /** The photon's value of an isolated field, else `value`, which Field.get returned. */
    public static Object got(Field field, Object value) {
        Method getter = Isolation.getter(field);
        return getter == null ? value : call(getter);
    }

    /** See got. */
    public static boolean got(Field field, boolean value) {
        Method getter = Isolation.getter(field);
        return getter == null ? value : (Boolean) call(getter);
    }

    /** See got. */
    public static char got(Field field, char value) {
        Method getter = Isolation.getter(field);
        return getter == null ? value : (Character) call(getter);
    }

    /** See got. */
    public static byte got(Field field, byte value) {
        Method getter = Isolation.getter(field);
        return getter == null ? value : number(getter).byteValue();
    }

    /** See got. */
    public static short got(Field field, short value) {
        Method getter = Isolation.getter(field);
        return getter == null ? value : number(getter).shortValue();
    }

    /** See got. */
    public static int got(Field field, int value) {
        Method getter = Isolation.getter(field);
        return getter == null ? value : number(getter).intValue();
    }

    /** See got. */
    public static long got(Field field, long value) {
        Method getter = Isolation.getter(field);
        return getter == null ? value : number(getter).longValue();
    }

    /** See got. */
    public static float got(Field field, float value) {
        Method getter = Isolation.getter(field);
        return getter == null ? value : number(getter).floatValue();
    }

    /** See got. */
    public static double got(Field field, double value) {
        Method getter = Isolation.getter(field);
        return getter == null ? value : number(getter).doubleValue();
    }

    /** Sets an isolated field in the photon's view. */
    public static void set(Field field, Object value) {
        call(Isolation.setter(field), new Object[] {value});
    }

    private static Number number(Method getter) {
        Object value = call(getter);
        return value instanceof Character ? (Number) (int) (Character) value : (Number) value;
    }

    private static Object call(Method accessor, Object... arguments) {
        try {
            return accessor.invoke(null, arguments);
        } catch (InvocationTargetException e) {
            throw unexpected(e.getCause());
        } catch (IllegalAccessException e) {
            throw unexpected(e);
        }
    }

    private static RuntimeException unexpected(Throwable thrown) {
        if (thrown instanceof Error) {
            throw (Error) thrown;
        }
        return thrown instanceof RuntimeException ? (RuntimeException) thrown : new IllegalStateException(thrown);
    }

    /** Refuses what would reach an isolated field by its address. */
    public static void unsafe(Field field) {
        if (isolated(field)) {
            throw refused(field);
        }
    }

    private static UnsupportedOperationException refused(Field field) {
        return new UnsupportedOperationException("the static " + field + " is private to photons and cannot be reached by"
            + " VarHandle or Unsafe; make it final, annotate it with lantern.runtime.Shared, or add its class to"
            + " LANTERN_JAVA_EXCLUDE");
    }

    /** Lookup.findStaticGetter. */
    public static MethodHandle findStaticGetter(MethodHandles.Lookup lookup, Class<?> owner, String name, Class<?> type)
        throws NoSuchFieldException, IllegalAccessException {
        MethodHandle handle = lookup.findStaticGetter(owner, name, type);
        Method getter = Isolation.getter(field(owner, name, type));
        return getter == null ? handle : lookup.unreflect(getter);
    }

    /** Lookup.findStaticSetter. */
    public static MethodHandle findStaticSetter(MethodHandles.Lookup lookup, Class<?> owner, String name, Class<?> type)
        throws NoSuchFieldException, IllegalAccessException {
        MethodHandle handle = lookup.findStaticSetter(owner, name, type);
        Method setter = Isolation.setter(field(owner, name, type));
        return setter == null ? handle : lookup.unreflect(setter);
    }

    /** Lookup.findStaticVarHandle. */
    public static VarHandle findStaticVarHandle(MethodHandles.Lookup lookup, Class<?> owner, String name, Class<?> type)
        throws NoSuchFieldException, IllegalAccessException {
        VarHandle handle = lookup.findStaticVarHandle(owner, name, type);
        unsafe(field(owner, name, type));
        return handle;
    }

    /** Lookup.unreflectGetter. */
    public static MethodHandle unreflectGetter(MethodHandles.Lookup lookup, Field field) throws IllegalAccessException {
        MethodHandle handle = lookup.unreflectGetter(field);
        Method getter = Isolation.getter(field);
        return getter == null ? handle : lookup.unreflect(getter);
    }

    /** Lookup.unreflectSetter. */
    public static MethodHandle unreflectSetter(MethodHandles.Lookup lookup, Field field) throws IllegalAccessException {
        MethodHandle handle = lookup.unreflectSetter(field);
        Method setter = Isolation.setter(field);
        return setter == null ? handle : lookup.unreflect(setter);
    }

    /** Lookup.unreflectVarHandle. */
    public static VarHandle unreflectVarHandle(MethodHandles.Lookup lookup, Field field) throws IllegalAccessException {
        VarHandle handle = lookup.unreflectVarHandle(field);
        unsafe(field);
        return handle;
    }

    /** The field that the JDK found, which is there: it has just been found. */
    private static Field field(Class<?> owner, String name, Class<?> type) throws NoSuchFieldException {
        for (Class<?> at = owner; at != null; at = at.getSuperclass()) {
            for (Field field : at.getDeclaredFields()) {
                if (field.getName().equals(name) && field.getType() == type) {
                    return field;
                }
            }
        }
        return owner.getField(name);
    }

    /** Whether a new thread inherits thread-locals: in a photon it must, as its photon is one. */
    public static boolean inherit(boolean asked) {
        return asked || Photons.current() != null;
    }

    /** System.exit. */
    public static void exit(int status) {
        if (Photons.current() != null) {
            throw new PhotonExit(status);
        }
        System.exit(status);
    }

    /** Runtime.exit. */
    public static void exit(Runtime runtime, int status) {
        exit(status);
    }

    /** Runtime.halt. */
    public static void halt(Runtime runtime, int status) {
        if (Photons.current() != null) {
            throw new PhotonExit(status);
        }
        runtime.halt(status);
    }

    /*
     * The standard streams. Reads of the fields are replaced too: were only the stream behind
     * System.out switched, one that passes on to the old System.out would write to itself.
     */

    /** System.out, as this photon sees it. */
    public static PrintStream out() {
        Photon photon = Photons.current();
        PrintStream own = photon == null ? null : photon.out();
        return own == null ? System.out : own;
    }

    /** System.err, as this photon sees it. */
    public static PrintStream err() {
        Photon photon = Photons.current();
        PrintStream own = photon == null ? null : photon.err();
        return own == null ? System.err : own;
    }

    /** System.in, as this photon sees it. */
    public static InputStream in() {
        Photon photon = Photons.current();
        InputStream own = photon == null ? null : photon.in();
        return own == null ? System.in : own;
    }

    /** System.setOut: for this photon, until it ends; outside of photons, for all. */
    public static void setOut(PrintStream stream) {
        Photon photon = Photons.current();
        if (photon == null) {
            System.setOut(stream);
        } else {
            photon.setOut(stream);
        }
    }

    /** System.setErr; see setOut. */
    public static void setErr(PrintStream stream) {
        Photon photon = Photons.current();
        if (photon == null) {
            System.setErr(stream);
        } else {
            photon.setErr(stream);
        }
    }

    /** System.setIn; see setOut. */
    public static void setIn(InputStream stream) {
        Photon photon = Photons.current();
        if (photon == null) {
            System.setIn(stream);
        } else {
            photon.setIn(stream);
        }
    }
}
