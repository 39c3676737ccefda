/*
 * AWS's Context, and what hangs on it, for handlers written against aws-lambda-java-core.
 *
 * That library is not ours to ship: its interfaces are met by java.lang.reflect.Proxy when they
 * are on the application's class path. Methods of newer versions of it that are not known here
 * answer null (or zero), never an exception.
 */
package lantern.runtime;

import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** Proxies for AWS's interfaces. */
final class AwsContext {
    static final String CONTEXT = "com.amazonaws.services.lambda.runtime.Context";

    private AwsContext() {}

    /** A proxy of `type`, which is AWS's Context. */
    static Object of(Class<?> type, InvocationContext context) {
        return proxy(type, method -> {
            switch (method.getName()) {
                case "getLogger":
                    return logger(method.getReturnType());
                case "getClientContext":
                    return clientContext(method.getReturnType(), context.invocation.clientContext);
                case "getIdentity":
                    return identity(method.getReturnType(), context.invocation.cognitoIdentity);
                case "getXrayTraceId":
                    return context.getTraceId();
                default:
                    try {
                        return Context.class.getMethod(method.getName()).invoke(context);
                    } catch (NoSuchMethodException e) {
                        return null;
                    }
            }
        });
    }

    private static Object logger(Class<?> type) {
        InvocationHandler handler = (self, method, arguments) -> {
            if (method.getName().equals("log") && arguments != null) {
                Object message = arguments[0];
                String text = message instanceof byte[] ? new String((byte[]) message, StandardCharsets.UTF_8)
                    : String.valueOf(message);
                System.out.print(text.endsWith("\n") ? text : text + "\n");
                System.out.flush();
                return null;
            }
            return ofObject(self, method, arguments);
        };
        return Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type}, handler);
    }

    private static Object clientContext(Class<?> type, String json) {
        if (json == null) {
            return null;
        }
        Map<?, ?> fields;
        try {
            fields = (Map<?, ?>) Json.read(json);
        } catch (IllegalArgumentException | ClassCastException e) {
            return null;
        }
        return proxy(type, method -> {
            switch (method.getName()) {
                case "getClient":
                    return fields.get("client") instanceof Map
                        ? client(method.getReturnType(), (Map<?, ?>) fields.get("client")) : null;
                case "getCustom":
                    return fields.get("custom");
                case "getEnvironment":
                    return fields.get("env");
                default:
                    return null;
            }
        });
    }

    private static Object client(Class<?> type, Map<?, ?> fields) {
        // getInstallationId -> installation_id, getAppTitle -> app_title, and so on.
        return proxy(type, method -> fields.get(
            method.getName().replaceFirst("^get", "").replaceAll("(?<=.)([A-Z])", "_$1").toLowerCase(java.util.Locale.ROOT)));
    }

    private static Object identity(Class<?> type, String json) {
        Object read = null;
        try {
            read = json == null ? null : Json.read(json);
        } catch (IllegalArgumentException e) {
            // An identity that cannot be read is none.
        }
        Map<?, ?> fields = read instanceof Map ? (Map<?, ?>) read : Map.of();
        return proxy(type, method -> fields.get(
            method.getName().equals("getIdentityId") ? "cognitoIdentityId" : "cognitoIdentityPoolId"));
    }

    private interface Answer {
        Object of(Method method) throws Exception;
    }

    private static Object proxy(Class<?> type, Answer answer) {
        InvocationHandler handler = (self, method, arguments) -> {
            if (method.getDeclaringClass() == Object.class) {
                return ofObject(self, method, arguments);
            }
            Object value = answer.of(method);
            return value == null && method.getReturnType() == int.class ? (Object) 0 : value;
        };
        return Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type}, handler);
    }

    private static Object ofObject(Object self, Method method, Object[] arguments) {
        switch (method.getName()) {
            case "equals":
                return self == arguments[0];
            case "hashCode":
                return System.identityHashCode(self);
            case "toString":
                return "Lantern's " + self.getClass().getInterfaces()[0].getSimpleName();
            default:
                return null;
        }
    }
}
