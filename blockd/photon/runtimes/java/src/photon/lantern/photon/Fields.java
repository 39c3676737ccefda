/*
 * Instance fields of objects that are copied field by field, and making such objects without their
 * constructors. Needs what the agent opens: java.util for collections' inner structure, and
 * jdk.internal.misc for allocation.
 */
package lantern.photon;

import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;

/** Reflection for copying; see the head of this file. */
final class Fields {
    /** Views that JDK maps make of themselves on demand: left out, or a copy's would show the original. */
    private static final Set<String> VIEWS = Set.of("keySet", "entrySet", "values");

    private static final ClassValue<List<Field>> COPIED = new ClassValue<>() {
        @Override
        protected List<Field> computeValue(Class<?> type) {
            List<Field> fields = new ArrayList<>();
            for (Class<?> at = type; at != null; at = at.getSuperclass()) {
                for (Field field : at.getDeclaredFields()) {
                    boolean view = at.getClassLoader() == null && VIEWS.contains(field.getName());
                    // A lock's copy is free, whoever holds or awaits the original.
                    boolean queue = at.getName().startsWith("java.util.concurrent.locks.Abstract");
                    if (!Modifier.isStatic(field.getModifiers()) && !view && !queue) {
                        field.setAccessible(true);
                        fields.add(field);
                    }
                }
            }
            return List.copyOf(fields);
        }
    };

    private static final Object UNSAFE;
    private static final Method ALLOCATE;

    static {
        try {
            Class<?> unsafe = Class.forName("jdk.internal.misc.Unsafe");
            UNSAFE = unsafe.getMethod("getUnsafe").invoke(null);
            ALLOCATE = unsafe.getMethod("allocateInstance", Class.class);
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException("the agent has not opened jdk.internal.misc", e);
        }
    }

    private Fields() {}

    static List<Field> copied(Class<?> type) {
        return COPIED.get(type);
    }

    static Object allocate(Class<?> type) {
        try {
            return ALLOCATE.invoke(UNSAFE, type);
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException("no object of " + type + " can be made", e);
        }
    }

    static Object get(Field field, Object object) {
        try {
            return field.get(object);
        } catch (IllegalAccessException e) {
            throw new AssertionError("the field was made accessible", e);
        }
    }

    static void set(Field field, Object object, Object value) {
        try {
            field.set(object, value);
        } catch (IllegalAccessException e) {
            throw new IllegalStateException(field + " cannot be set in a copy", e);
        }
    }
}
