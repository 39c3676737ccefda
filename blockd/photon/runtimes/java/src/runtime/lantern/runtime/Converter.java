/*
 * Between events and handlers' parameter and return types.
 *
 * byte[] and InputStream get the event as it is. String gets the decoded text of a JSON string,
 * else the event's text. Map, List, Object, numbers, Boolean and CharSequence go through our Json.
 * Any other type (a POJO, a generic type with POJOs in it) needs gson or jackson-databind on the
 * application's class path; without one, loading the handler fails and says so. Results: byte[] and
 * ByteArrayOutputStream as they are, void is null, all else JSON by the same rules (a String is a
 * JSON string, as on AWS).
 */
package lantern.runtime;

import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.lang.reflect.Method;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.lang.reflect.WildcardType;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Makes parameters of events, and replies of results. */
final class Converter {
    /** Makes a parameter of an event. */
    interface Input {
        Object of(byte[] event) throws Throwable;
    }

    /** Makes a reply of a result. */
    interface Output {
        byte[] of(Object result) throws Throwable;
    }

    private static final byte[] NULL = {'n', 'u', 'l', 'l'};
    private static final Set<Class<?>> PLAIN = Set.of(Object.class, Map.class, List.class, Collection.class, Iterable.class,
        CharSequence.class, Number.class, Integer.class, Long.class, Short.class, Byte.class, Double.class, Float.class,
        BigInteger.class, BigDecimal.class, Boolean.class, String.class, int.class, long.class, short.class, byte.class,
        double.class, float.class, boolean.class, java.util.LinkedHashMap.class, java.util.HashMap.class,
        java.util.AbstractMap.class, java.util.ArrayList.class, void.class, Void.class);

    private final ClassLoader loader;
    private Binder binder;

    Converter(ClassLoader loader) {
        this.loader = loader;
    }

    Input input(Type type) {
        if (type == byte[].class) {
            return event -> event;
        }
        if (type == InputStream.class) {
            return ByteArrayInputStream::new;
        }
        if (type == String.class || type == CharSequence.class) {
            return Converter::text;
        }
        if (plain(type)) {
            Class<?> raw = raw(type);
            return event -> fit(event.length == 0 ? null : Json.read(new String(event, StandardCharsets.UTF_8)), raw);
        }
        Binder with = binder("parameter", type);
        return event -> with.read(new String(event, StandardCharsets.UTF_8), type);
    }

    Output output(Type type) {
        boolean plain = plain(type);
        Binder with = plain || type == byte[].class || type == java.io.ByteArrayOutputStream.class ? null
            : binder("result", type);
        return result -> {
            if (result == null) {
                return NULL;
            }
            if (result instanceof byte[]) {
                return (byte[]) result;
            }
            if (result instanceof java.io.ByteArrayOutputStream) {
                return ((java.io.ByteArrayOutputStream) result).toByteArray();
            }
            String json = with == null ? Json.write(result) : with.write(result);
            return json.getBytes(StandardCharsets.UTF_8);
        };
    }

    private static Object text(byte[] event) {
        String text = new String(event, StandardCharsets.UTF_8);
        if (text.startsWith("\"")) {
            Object read = Json.read(text);
            return read;
        }
        return text;
    }

    private static boolean plain(Type type) {
        if (type instanceof ParameterizedType) {
            ParameterizedType generic = (ParameterizedType) type;
            if (!plain(generic.getRawType())) {
                return false;
            }
            for (Type argument : generic.getActualTypeArguments()) {
                // Map<String, Integer> would get what the JSON holds: only types that any JSON fits.
                if (!plain(argument) || raw(argument) != Object.class && raw(argument) != String.class
                    && !Map.class.isAssignableFrom(raw(argument)) && !Iterable.class.isAssignableFrom(raw(argument))
                    && !Number.class.isAssignableFrom(raw(argument)) && raw(argument) != Boolean.class) {
                    return false;
                }
            }
            return true;
        }
        if (type instanceof WildcardType) {
            return plain(((WildcardType) type).getUpperBounds()[0]);
        }
        return !(type instanceof Class) || PLAIN.contains(type);
    }

    private static Class<?> raw(Type type) {
        if (type instanceof Class) {
            return (Class<?>) type;
        }
        return type instanceof ParameterizedType ? (Class<?>) ((ParameterizedType) type).getRawType() : Object.class;
    }

    private static Object fit(Object value, Class<?> type) {
        if (value == null || type.isInstance(value)) {
            return value;
        }
        if (value instanceof Number) {
            BigDecimal number = new BigDecimal(value.toString());
            if (type == int.class || type == Integer.class) {
                return number.intValueExact();
            } else if (type == long.class || type == Long.class) {
                return number.longValueExact();
            } else if (type == short.class || type == Short.class) {
                return number.shortValueExact();
            } else if (type == byte.class || type == Byte.class) {
                return number.byteValueExact();
            } else if (type == double.class || type == Double.class) {
                return number.doubleValue();
            } else if (type == float.class || type == Float.class) {
                return number.floatValue();
            } else if (type == BigInteger.class) {
                return number.toBigIntegerExact();
            } else if (type == BigDecimal.class) {
                return number;
            }
        }
        if (type == boolean.class && value instanceof Boolean) {
            return value;
        }
        throw new IllegalArgumentException("the event is a JSON " + value.getClass().getSimpleName()
            + ", but the handler takes a " + type.getSimpleName());
    }

    private Binder binder(String what, Type type) {
        if (binder == null) {
            binder = Binder.find(loader);
        }
        if (binder == null) {
            throw new IllegalArgumentException("the handler's " + what + " of type " + type.getTypeName()
                + " needs gson or jackson-databind on the class path; without one, handlers may use byte[], InputStream,"
                + " OutputStream, String, numbers, Boolean, List, Map and Object");
        }
        return binder;
    }

    /** The application's own JSON library, by reflection. */
    private interface Binder {
        Object read(String json, Type type) throws Throwable;

        String write(Object value) throws Throwable;

        static Binder find(ClassLoader loader) {
            try {
                return jackson(Class.forName("com.fasterxml.jackson.databind.ObjectMapper", true, loader));
            } catch (ReflectiveOperationException | LinkageError e) {
                // Perhaps gson.
            }
            try {
                return gson(Class.forName("com.google.gson.Gson", true, loader));
            } catch (ReflectiveOperationException | LinkageError e) {
                return null;
            }
        }

        static Binder jackson(Class<?> type) throws ReflectiveOperationException {
            Object mapper = type.getConstructor().newInstance();
            Method construct = type.getMethod("constructType", Type.class);
            Method read = type.getMethod("readValue", String.class, construct.getReturnType());
            return binder(mapper, (json, wanted) -> read.invoke(mapper, json, construct.invoke(mapper, wanted)),
                type.getMethod("writeValueAsString", Object.class));
        }

        static Binder gson(Class<?> type) throws ReflectiveOperationException {
            Object gson = type.getConstructor().newInstance();
            Method read = type.getMethod("fromJson", String.class, Type.class);
            return binder(gson, (json, wanted) -> read.invoke(gson, json, wanted), type.getMethod("toJson", Object.class));
        }

        interface Reader {
            Object read(String json, Type type) throws ReflectiveOperationException;
        }

        static Binder binder(Object library, Reader reader, Method write) {
            return new Binder() {
                @Override
                public Object read(String json, Type type) throws Throwable {
                    try {
                        return reader.read(json, type);
                    } catch (java.lang.reflect.InvocationTargetException e) {
                        throw e.getCause();
                    }
                }

                @Override
                public String write(Object value) throws Throwable {
                    try {
                        return (String) write.invoke(library, value);
                    } catch (java.lang.reflect.InvocationTargetException e) {
                        throw e.getCause();
                    }
                }
            };
        }
    }
}
