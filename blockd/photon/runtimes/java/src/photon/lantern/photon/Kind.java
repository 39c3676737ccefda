/*
 * How an object of each class is treated when a photon gets its own copy of an initial value.
 * The table in the README says the same in words; the leak suite runs through it. Classification
 * depends on the class alone and is computed once per class.
 */
package lantern.photon;

import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.lang.reflect.Proxy;
import java.util.Set;

/** Treatment of a class; see the head of this file. */
enum Kind {
    /** Cannot change, or is no data: shared, and nothing to say about it. */
    SAME,
    /** A thread, file, socket, executor or the like: shared, and so is every application object that owns one. */
    RESOURCE,
    /** A class of the JDK that we do not know how to copy: shared, and reported. */
    OPAQUE,
    /** Primitive elements. */
    PRIMITIVES,
    /** Elements that are references. */
    REFERENCES,
    /** Copied by what it means, not by its fields: JDK collections, builders, atomics (Duplicates). */
    MEANING,
    /** Copied field by field: objects of application classes. */
    FIELDS,
    /** A record: made anew from copied components. */
    RECORD;

    private static final Set<String> IMMUTABLE_PACKAGES = Set.of("java.time", "java.time.format", "java.time.zone",
        "java.time.temporal", "java.time.chrono", "java.lang.invoke", "java.lang.reflect", "java.lang.constant",
        "java.util.regex", "java.util.logging", "java.nio.file", "java.nio.charset", "sun.nio.fs", "sun.nio.cs",
        "java.lang.module", "sun.util.calendar", "java.util.function", "java.security.spec", "sun.security.ec");
    /** Packages whose private fields the agent opens to us. */
    private static final Set<String> OPENED = Set.of("java.util", "java.util.concurrent", "java.util.concurrent.atomic",
        "java.util.concurrent.locks");
    private static final Set<String> IMMUTABLE_CLASSES = Set.of("java.lang.String", "java.lang.Class", "java.lang.Module",
        "java.lang.StackTraceElement", "java.math.BigInteger", "java.math.BigDecimal", "java.math.MathContext",
        "java.util.UUID", "java.util.Locale", "java.util.Currency", "java.util.OptionalInt", "java.util.OptionalLong",
        "java.util.OptionalDouble", "java.net.URI", "java.net.URL", "java.net.Inet4Address", "java.net.Inet6Address",
        "java.net.InetSocketAddress", "java.io.File", "java.lang.Runtime", "java.lang.System$LoggerFinder", "java.util.Base64$Encoder", "java.util.Base64$Decoder",
        "java.util.HexFormat", "java.util.Collections$EmptyList", "java.util.Collections$EmptyMap",
        "java.util.Collections$EmptySet", "java.util.Collections$ReverseComparator", "java.security.SecureRandom",
        "java.util.Collections$ReverseComparator2", "java.lang.String$CaseInsensitiveComparator", "java.lang.Void",
        "java.util.Comparators$NaturalOrderComparator", "java.util.concurrent.TimeUnit", "java.util.concurrent.ThreadLocalRandom",
        "java.util.concurrent.atomic.AtomicIntegerFieldUpdater", "java.lang.ProcessEnvironment$StringEnvironment");

    private static final ClassValue<Kind> KINDS = new ClassValue<>() {
        @Override
        protected Kind computeValue(Class<?> type) {
            return classify(type);
        }
    };

    static Kind of(Class<?> type) {
        return KINDS.get(type);
    }

    /** Whether a class is neither the JDK's nor excluded. */
    static boolean isApplication(Class<?> type) {
        ClassLoader loader = type.getClassLoader();
        return loader != null && loader != ClassLoader.getPlatformClassLoader() && Isolation.includes(type.getName());
    }

    private static Kind classify(Class<?> type) {
        if (type.isArray()) {
            return type.getComponentType().isPrimitive() ? PRIMITIVES : REFERENCES;
        }
        if (Duplicates.knows(type)) {
            return MEANING;
        }
        if (Enum.class.isAssignableFrom(type) || Throwable.class.isAssignableFrom(type)
            || ThreadLocal.class.isAssignableFrom(type)
            || IMMUTABLE_CLASSES.contains(type.getName()) || boxed(type)) {
            return SAME;
        }
        if (type.isHidden()) {
            return instanceFields(type) ? OPAQUE : SAME;
        }
        if (resource(type)) {
            return RESOURCE;
        }
        if (Proxy.isProxyClass(type)) {
            return OPAQUE;
        }
        if (isApplication(type)) {
            return type.isRecord() ? RECORD : application(type);
        }
        ClassLoader loader = type.getClassLoader();
        if (loader != null && loader != ClassLoader.getPlatformClassLoader()) {
            return SAME;
        }
        String name = type.getName();
        if (structure(name)) {
            return FIELDS;
        }
        return IMMUTABLE_PACKAGES.contains(type.getPackageName()) || !instanceFields(type) ? SAME : OPAQUE;
    }

    private static boolean boxed(Class<?> type) {
        return type == Integer.class || type == Long.class || type == Boolean.class || type == Double.class
            || type == Character.class || type == Byte.class || type == Short.class || type == Float.class;
    }

    private static boolean resource(Class<?> type) {
        return AutoCloseable.class.isAssignableFrom(type) || Thread.class.isAssignableFrom(type)
            || ThreadGroup.class.isAssignableFrom(type) || ClassLoader.class.isAssignableFrom(type)
            || java.util.concurrent.Executor.class.isAssignableFrom(type) || Process.class.isAssignableFrom(type)
            || java.util.Timer.class.isAssignableFrom(type) || type.getName().startsWith("java.net.http.")
            || type.getName().startsWith("jdk.internal.net.http.") || type.getName().startsWith("java.lang.ref.Cleaner")
            || type == java.io.FileDescriptor.class;
    }

    /** An object of an application class, whose JDK superclasses must be ones we may copy field by field. */
    private static Kind application(Class<?> type) {
        for (Class<?> at = type.getSuperclass(); at != null && at != Object.class; at = at.getSuperclass()) {
            if (!isApplication(at) && instanceFields(at) && !OPENED.contains(at.getPackageName())) {
                return OPAQUE;
            }
        }
        return FIELDS;
    }

    /** Inner structure of JDK collections: wrappers, and what application subclasses of collections hold. */
    private static boolean structure(String name) {
        if (name.startsWith("java.util.Collections$") || name.equals("java.util.Arrays$ArrayList")
            || name.equals("java.util.AbstractMap$SimpleEntry")) {
            return true;
        }
        return name.startsWith("java.util.concurrent.locks.Reentrant") || name.startsWith("java.util.")
            && !name.startsWith("java.util.concurrent.locks.") && (name.endsWith("$Node") || name.endsWith("$Entry")
            || name.endsWith("$TreeNode"));
    }

    private static boolean instanceFields(Class<?> type) {
        for (Class<?> at = type; at != null && at != Object.class; at = at.getSuperclass()) {
            for (Field field : at.getDeclaredFields()) {
                if (!Modifier.isStatic(field.getModifiers())) {
                    return true;
                }
            }
        }
        return false;
    }
}
