/*
 * A function's handler, ready to be called: the method, how to make its arguments of an event, and
 * how to make a reply of what it returns. Immutable and shared by all photons; the object that the
 * method belongs to is shared too, except that a photon gets its own copy of the object's non-final
 * fields where the agent is there.
 */
package lantern.runtime;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import lantern.photon.Isolation;
import lantern.photon.Photon;

/** A handler; see the head of this file. */
final class Handler {
    private final Object instance;
    private final Method method;
    private final Converter.Input input;
    private final Converter.Output output;
    private final boolean streams;
    private final Class<?> contextType;

    Handler(Object instance, Method method, Converter converter) {
        this.instance = instance;
        this.method = method;
        Class<?>[] types = method.getParameterTypes();
        int count = types.length;
        boolean context = count > 0 && isContext(types[count - 1]);
        contextType = context ? types[count - 1] : null;
        int inputs = context ? count - 1 : count;
        streams = inputs == 2 && types[0] == InputStream.class && types[1] == OutputStream.class;
        if (inputs > 1 && !streams) {
            throw new IllegalArgumentException("handler " + method + " has too many parameters; supported are (), (input), "
                + "(InputStream, OutputStream), each with an optional Context at the end");
        }
        input = streams || inputs == 0 ? null : converter.input(method.getGenericParameterTypes()[0]);
        output = streams ? null : converter.output(method.getGenericReturnType());
        method.setAccessible(true);
    }

    static boolean isContext(Class<?> type) {
        return type == Context.class || type.getName().equals(AwsContext.CONTEXT);
    }

    byte[] handle(Photon photon, InvocationContext context) throws Throwable {
        Object target = instance;
        if (target != null && Isolation.active()) {
            target = photon.copyInstance(target);
        }
        byte[] event = context.invocation.payload;
        ByteArrayOutputStream written = streams ? new ByteArrayOutputStream() : null;
        Object[] arguments = new Object[method.getParameterCount()];
        int count = 0;
        if (streams) {
            arguments[count++] = new ByteArrayInputStream(event);
            arguments[count++] = written;
        } else if (input != null) {
            arguments[count++] = input.of(event);
        }
        if (contextType != null) {
            arguments[count] = contextType == Context.class ? context : AwsContext.of(contextType, context);
        }
        Object result;
        try {
            result = method.invoke(Modifier.isStatic(method.getModifiers()) ? null : target, arguments);
        } catch (InvocationTargetException e) {
            throw e.getCause();
        }
        return streams ? written.toByteArray() : output.of(result);
    }
}
