/*
 * Finds the handler that `_HANDLER` names: `pkg.Class::method`, or `pkg.Class` for a class with
 * AWS's RequestHandler or RequestStreamHandler shape (a method handleRequest), with or without
 * AWS's library. Invariant: the class is initialised and its constructor run exactly once, in the
 * init phase, outside any photon.
 */
package lantern.runtime;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.ArrayList;
import java.util.List;

/** Loads handlers. */
final class HandlerLoader {
    private static final String DEFAULT_METHOD = "handleRequest";

    private HandlerLoader() {}

    /** Why a handler cannot be used; the type is what goes into errorType. */
    static final class LoadException extends Exception {
        private static final long serialVersionUID = 1L;
        final String type;

        LoadException(String type, String message, Throwable cause) {
            super(message, cause);
            this.type = type;
        }
    }

    static Handler load(String name, ClassLoader loader) throws Throwable {
        if (name.isEmpty()) {
            throw new LoadException("Runtime.NoHandler", "_HANDLER is not set; it must be pkg.Class or pkg.Class::method", null);
        }
        int split = name.indexOf("::");
        String className = split < 0 ? name : name.substring(0, split);
        String methodName = split < 0 ? DEFAULT_METHOD : name.substring(split + 2);
        Class<?> type;
        try {
            type = Class.forName(className, true, loader);
        } catch (ClassNotFoundException e) {
            throw new LoadException("Runtime.HandlerNotFound", "class " + className + " of handler \"" + name
                + "\" is not on the class path " + System.getProperty("java.class.path"), e);
        }
        Method method = choose(type, methodName, name);
        Object instance = Modifier.isStatic(method.getModifiers()) ? null : construct(type);
        try {
            return new Handler(instance, method, new Converter(loader));
        } catch (IllegalArgumentException e) {
            throw new LoadException("Runtime.HandlerUnsupported", e.getMessage(), e);
        }
    }

    private static Object construct(Class<?> type) throws Throwable {
        try {
            var constructor = type.getDeclaredConstructor();
            constructor.setAccessible(true);
            return constructor.newInstance();
        } catch (NoSuchMethodException e) {
            throw new LoadException("Runtime.HandlerUnsupported", "class " + type.getName()
                + " has no constructor without parameters; give it one, or make the handler method static", e);
        } catch (InstantiationException e) {
            throw new LoadException("Runtime.HandlerUnsupported", "class " + type.getName() + " is abstract", e);
        } catch (InvocationTargetException e) {
            throw e.getCause();
        }
    }

    /** Of several methods of that name, as on AWS, the one with the most parameters, then one with a Context. */
    private static Method choose(Class<?> type, String methodName, String name) throws LoadException {
        List<Method> best = new ArrayList<>();
        for (Class<?> at = type; at != null && at != Object.class; at = at.getSuperclass()) {
            for (Method method : at.getDeclaredMethods()) {
                if (!method.getName().equals(methodName) || method.isBridge() || method.isSynthetic()
                    || Modifier.isAbstract(method.getModifiers()) || hidden(method, best)) {
                    continue;
                }
                int order = best.isEmpty() ? 1 : Integer.compare(rank(method), rank(best.get(0)));
                if (order > 0) {
                    best.clear();
                }
                if (order >= 0) {
                    best.add(method);
                }
            }
        }
        if (best.isEmpty()) {
            // A method inherited from an interface's default, or only there.
            for (Method method : type.getMethods()) {
                if (method.getName().equals(methodName) && method.isDefault()) {
                    best.add(method);
                }
            }
        }
        if (best.isEmpty()) {
            throw new LoadException("Runtime.HandlerNotFound",
                "class " + type.getName() + " has no method " + methodName + ", which handler \"" + name + "\" names", null);
        }
        if (best.size() > 1) {
            throw new LoadException("Runtime.HandlerUnsupported", "handler \"" + name + "\" may be " + best.get(0) + " or "
                + best.get(1) + "; keep one of that name", null);
        }
        return best.get(0);
    }

    private static boolean hidden(Method method, List<Method> found) {
        return found.stream().anyMatch(other -> java.util.Arrays.equals(other.getParameterTypes(), method.getParameterTypes()));
    }

    private static int rank(Method method) {
        Class<?>[] types = method.getParameterTypes();
        boolean context = types.length > 0 && Handler.isContext(types[types.length - 1]);
        return types.length * 2 + (context ? 1 : 0);
    }
}
