/*
 * Whether the object in a static final can change, and through what: the judgement of LeakCheck.
 *
 * By value where there is one (List.of and an ArrayList have the same declared type), else by
 * declared type. Harmless by agreement: what cannot change, empty arrays, loggers, locks, threads,
 * executors and clients (no data), lambdas, and thread-locals (they are taken away). Unmodifiable
 * views count as unchangeable if their elements are. Depth of the search is bounded.
 */
package lantern.runtime;

import java.lang.reflect.Array;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.util.Collection;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.Map;
import java.util.Set;
import lantern.photon.Isolation;

/** See the head of this file. */
final class Mutability {
    private static final int MOST_DEPTH = 32;
    private static final Set<String> LOGGING = Set.of("org.slf4j.", "ch.qos.logback.", "org.apache.logging.",
        "org.apache.log4j.", "org.apache.commons.logging.", "org.jboss.logging.", "java.util.logging.");

    private final Set<Object> seen = Collections.newSetFromMap(new IdentityHashMap<>());

    private Mutability() {}

    /** Why a value can change; null if it cannot. */
    static String why(Object value) {
        return new Mutability().of(value, 0);
    }

    /** The same by a declared type, where there is no value. */
    static String why(Class<?> type) {
        if (type.isPrimitive() || type.isEnum() || type == String.class || harmlessName(type)) {
            return null;
        }
        if (type.isArray()) {
            return "an array";
        }
        if (jdk(type)) {
            return Isolation.isHarmless(type) ? null : "declared as " + type.getName() + ", whose objects may change";
        }
        String field = type.isInterface() ? null : changeable(type);
        return field == null ? null : field;
    }

    private static boolean jdk(Class<?> type) {
        return type.getClassLoader() == null || type.getClassLoader() == ClassLoader.getPlatformClassLoader();
    }

    private static boolean harmlessName(Class<?> type) {
        return LOGGING.stream().anyMatch(type.getName()::startsWith);
    }

    private String of(Object value, int depth) {
        if (value == null || depth > MOST_DEPTH || !seen.add(value)) {
            return null;
        }
        Class<?> type = value.getClass();
        if (type.isHidden() || harmlessName(type) || AutoCloseable.class.isAssignableFrom(type) || value instanceof Thread
            || value instanceof java.util.concurrent.Executor || value instanceof ClassLoader || value instanceof Throwable) {
            return null;
        }
        if (type.isArray()) {
            return Array.getLength(value) == 0 ? null : "an array";
        }
        if (value instanceof Collection || value instanceof Map) {
            return collection(value, depth);
        }
        if (jdk(type)) {
            return Isolation.isHarmless(type) ? null : "a " + type.getName();
        }
        return object(value, depth);
    }

    private String collection(Object value, int depth) {
        String name = value.getClass().getName();
        boolean fixed = name.startsWith("java.util.ImmutableCollections$") || name.startsWith("java.util.Collections$Empty")
            || name.startsWith("java.util.Collections$Unmodifiable") || name.startsWith("java.util.Collections$Singleton")
            || name.startsWith("com.google.common.collect.Immutable")
            || name.startsWith("com.google.common.collect.Regular") || name.startsWith("com.google.common.collect.Singleton");
        if (!fixed) {
            return "a " + name;
        }
        String why = null;
        if (value instanceof Map) {
            for (Map.Entry<?, ?> entry : ((Map<?, ?>) value).entrySet()) {
                why = why != null ? why : of(entry.getKey(), depth + 1);
                why = why != null ? why : of(entry.getValue(), depth + 1);
            }
        } else {
            for (Object element : (Collection<?>) value) {
                why = why != null ? why : of(element, depth + 1);
            }
        }
        return why == null ? null : "an element of it is " + why;
    }

    private String object(Object value, int depth) {
        String own = changeable(value.getClass());
        if (own != null) {
            return own;
        }
        for (Class<?> at = value.getClass(); at != null && !jdk(at); at = at.getSuperclass()) {
            for (Field field : at.getDeclaredFields()) {
                if (Modifier.isStatic(field.getModifiers()) || field.getType().isPrimitive()) {
                    continue;
                }
                try {
                    field.setAccessible(true);
                    String why = of(field.get(value), depth + 1);
                    if (why != null) {
                        return "its field " + at.getName() + "." + field.getName() + " is " + why;
                    }
                } catch (IllegalAccessException | RuntimeException e) {
                    return "its field " + at.getName() + "." + field.getName() + " cannot be looked into";
                }
            }
        }
        return null;
    }

    /** The first field of an application class that is not final. */
    private static String changeable(Class<?> type) {
        for (Class<?> at = type; at != null && !jdk(at); at = at.getSuperclass()) {
            for (Field field : at.getDeclaredFields()) {
                int modifiers = field.getModifiers();
                if (!Modifier.isStatic(modifiers) && !Modifier.isFinal(modifiers) && !cachedHash(field)) {
                    return "its field " + at.getName() + "." + field.getName() + " is not final";
                }
            }
        }
        return null;
    }

    /** The one usual exception: a lazily computed hash. */
    private static boolean cachedHash(Field field) {
        return field.getType() == int.class && field.getName().toLowerCase(java.util.Locale.ROOT).contains("hash");
    }
}
