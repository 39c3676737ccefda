/*
 * What the agent has isolated, and what a copier could not copy.
 *
 * Holder classes are named OWNER$$Lantern<index> and live in their owner's loader. Invariant:
 * `active` is set before any application class is loaded and never cleared.
 */
package lantern.photon;

import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.security.ProtectionDomain;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Predicate;

/** The registry of isolated statics; see the head of this file. */
public final class Isolation {
    /** Between an owner's name and its holder's index. */
    public static final String HOLDER = "$$Lantern";
    /** Prefixes of the accessors that an owner is given. */
    public static final String GETTER = "lantern$get$";
    /** See GETTER. */
    public static final String SETTER = "lantern$set$";
    /** Copies that failed are told of once each, and at most so many of them. */
    private static final int MOST_REPORTS = 200;

    private static final AtomicInteger INDEXES = new AtomicInteger();
    private static final Map<String, String> REPORTS = new ConcurrentHashMap<>();
    private static volatile Predicate<String> included;

    private Isolation() {}

    /** Turns isolation on; called by the agent. The predicate takes class names with dots. */
    public static void activate(Predicate<String> classes) {
        included = classes;
    }

    /** Whether the agent is there. */
    public static boolean active() {
        return included != null;
    }

    /** Whether a class's statics are isolated, and its instances copied, by the include and exclude lists. */
    static boolean includes(String className) {
        Predicate<String> classes = included;
        return classes != null && classes.test(className);
    }

    /** Whether objects of a JDK class cannot change, or are no data (threads, locks, clients). */
    public static boolean isHarmless(Class<?> jdkClass) {
        Kind kind = Kind.of(jdkClass);
        return kind == Kind.SAME || kind == Kind.RESOURCE || jdkClass == Object.class
            || jdkClass.getName().startsWith("java.util.concurrent.locks.");
    }

    /** A new class's place in photons' tables. */
    public static int nextIndex() {
        return INDEXES.getAndIncrement();
    }

    /** Defines a holder beside its owner, whose class is being loaded. Called by the rewriter. */
    public static void define(ClassLoader loader, String name, byte[] bytes, ProtectionDomain domain) {
        try {
            DEFINE.invoke(loader, name, bytes, 0, bytes.length, domain);
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException("the holder " + name + " cannot be defined", e);
        }
    }

    private static final Method DEFINE;

    static {
        Method define = null;
        try {
            define = ClassLoader.class.getDeclaredMethod("defineClass", String.class, byte[].class, int.class, int.class,
                ProtectionDomain.class);
            define.setAccessible(true);
        } catch (ReflectiveOperationException | RuntimeException e) {
            // Without the agent java.lang is not open, and there are no holders.
        }
        DEFINE = define;
    }

    private static final ClassValue<Class<?>> OWNERS = new ClassValue<>() {
        @Override
        protected Class<?> computeValue(Class<?> holder) {
            String name = holder.getName();
            try {
                return Class.forName(name.substring(0, name.lastIndexOf(HOLDER)), false, holder.getClassLoader());
            } catch (ClassNotFoundException e) {
                throw new AssertionError("a holder's owner is what made it", e);
            }
        }
    };

    /** The class that a holder belongs to. */
    static Class<?> ownerOf(Class<?> holder) {
        return OWNERS.get(holder);
    }

    private static final ClassValue<Map<String, Method>> ACCESSORS = new ClassValue<>() {
        @Override
        protected Map<String, Method> computeValue(Class<?> type) {
            Map<String, Method> found = new ConcurrentHashMap<>();
            for (Method method : type.getDeclaredMethods()) {
                if (method.isSynthetic() && method.getName().startsWith("lantern$")) {
                    method.setAccessible(true);
                    found.put(method.getName(), method);
                }
            }
            return found;
        }
    };

    /** The getter of an isolated static field; null for every other field. */
    static Method getter(Field field) {
        return accessor(field, GETTER);
    }

    /** The setter of an isolated static field; null for every other field. */
    static Method setter(Field field) {
        return accessor(field, SETTER);
    }

    private static Method accessor(Field field, String prefix) {
        int modifiers = field.getModifiers();
        if (!Modifier.isStatic(modifiers) || Modifier.isFinal(modifiers) || included == null
            || field.getDeclaringClass().getClassLoader() == null) {
            return null;
        }
        return ACCESSORS.get(field.getDeclaringClass()).get(prefix + field.getName());
    }

    /** Notes, and says once on the invocation's log, that a static's value is shared for want of a copy. */
    static void report(String where, Class<?> type, String why) {
        String key = where + " -> " + type.getName();
        if (REPORTS.size() < MOST_REPORTS && REPORTS.putIfAbsent(key, why) == null) {
            System.err.println("lantern: " + key + " is shared by all photons: " + why);
        }
    }

    /** What could not be copied so far: where and of which type, and why. */
    public static Map<String, String> reports() {
        return Map.copyOf(REPORTS);
    }
}
