/*
 * Between events and handlers' parameter and return types.
 *
 * byte[] and InputStream get the event as it is. String gets the decoded text of a JSON string,
 * else the event's text. Map, List, Object, numbers, Boolean and CharSequence go through our Json;
 * what is in maps and lists becomes what their type arguments say, at whatever depth, or the event
 * is refused: a List<Long> never holds an Integer. Any other type (a POJO, a generic type with POJOs
 * in it) needs gson or jackson-databind on the application's class path; without one, loading the
 * handler fails and says so. Results: byte[] and ByteArrayOutputStream as they are, void is null,
 * all else JSON by the same rules (a String is a JSON string, as on AWS).
 */
package lantern.runtime;

import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.lang.reflect.Method;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.lang.reflect.TypeVariable;
import java.lang.reflect.WildcardType;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collection;
import java.util.LinkedHashMap;
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
        if (plain(type, true)) {
            return event -> fit(event.length == 0 ? null : Json.read(new String(event, StandardCharsets.UTF_8)), type, "is");
        }
        Binder with = binder("parameter", type);
        return event -> with.read(new String(event, StandardCharsets.UTF_8), type);
    }

    Output output(Type type) {
        boolean plain = plain(type, false);
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

    /** Whether our Json makes such a value (`read`), or writes it. */
    private static boolean plain(Type type, boolean read) {
        Type bound = bound(type);
        if (bound instanceof ParameterizedType) {
            ParameterizedType generic = (ParameterizedType) bound;
            Type[] arguments = generic.getActualTypeArguments();
            boolean readMap = read && Map.class.isAssignableFrom(raw(generic));
            return PLAIN.contains(raw(generic)) && (!readMap || key(arguments[0]))
                && Arrays.stream(arguments).allMatch(argument -> plain(argument, read));
        }
        return bound instanceof Class && PLAIN.contains(bound);
    }

    /** Whether the text of a JSON name can become such a key. */
    private static boolean key(Type type) {
        Class<?> raw = raw(bound(type));
        return raw == Object.class || text(raw) || raw != Number.class && Number.class.isAssignableFrom(raw);
    }

    private static boolean text(Class<?> type) {
        return type == String.class || type == CharSequence.class;
    }

    /** What a wildcard or a type variable stands for at least. */
    private static Type bound(Type type) {
        if (type instanceof WildcardType) {
            return bound(((WildcardType) type).getUpperBounds()[0]);
        }
        return type instanceof TypeVariable ? bound(((TypeVariable<?>) type).getBounds()[0]) : type;
    }

    private static Class<?> raw(Type type) {
        return (Class<?>) (type instanceof ParameterizedType ? ((ParameterizedType) type).getRawType() : type);
    }

    /** A value of our Json as `type` has it, changed in place. `where`: whether the event is it, or holds it. */
    private static Object fit(Object value, Type type, String where) {
        Type bound = bound(type);
        if (bound instanceof ParameterizedType && raw(bound).isInstance(value)) {
            Type[] arguments = ((ParameterizedType) bound).getActualTypeArguments();
            return value instanceof Map ? map(value, arguments) : list(value, arguments[0]);
        }
        return fit(value, raw(bound), where);
    }

    @SuppressWarnings("unchecked") // Our Json's lists take anything.
    private static Object list(Object value, Type element) {
        ((List<Object>) value).replaceAll(each -> fit(each, element, "holds"));
        return value;
    }

    @SuppressWarnings("unchecked") // Our Json's maps take anything.
    private static Object map(Object value, Type[] types) {
        Map<Object, Object> map = (Map<Object, Object>) value;
        map.replaceAll((key, each) -> fit(each, types[1], "holds"));
        Class<?> key = raw(bound(types[0]));
        if (key == Object.class || text(key)) {
            return map;
        }
        Map<Object, Object> converted = new LinkedHashMap<>();
        map.forEach((name, each) -> converted.put(fit(number(name.toString(), key), key, "holds"), each));
        return converted;
    }

    private static BigDecimal number(String name, Class<?> type) {
        try {
            return new BigDecimal(name);
        } catch (NumberFormatException e) {
            throw new IllegalArgumentException("the event holds the name \"" + name + "\", but the handler takes a "
                + type.getSimpleName() + " there", e);
        }
    }

    private static Object fit(Object value, Class<?> type, String where) {
        if (value == null || type.isInstance(value)) {
            return value;
        }
        if (text(type) && (value instanceof Number || value instanceof Boolean)) {
            return value.toString();
        }
        if (value instanceof Number) {
            Object number = number((Number) value, type);
            if (number != null) {
                return number;
            }
        }
        if (type == boolean.class && value instanceof Boolean) {
            return value;
        }
        throw new IllegalArgumentException("the event " + where + " a JSON " + value.getClass().getSimpleName()
            + ", but the handler takes a " + type.getSimpleName());
    }

    /** The number as a type; null if that is none. */
    private static Object number(Number value, Class<?> type) {
        BigDecimal number = new BigDecimal(value.toString());
        try {
            if (type == int.class || type == Integer.class) {
                return number.intValueExact();
            } else if (type == long.class || type == Long.class) {
                return number.longValueExact();
            } else if (type == short.class || type == Short.class) {
                return number.shortValueExact();
            } else if (type == byte.class || type == Byte.class) {
                return number.byteValueExact();
            } else if (type == BigInteger.class) {
                return number.toBigIntegerExact();
            }
        } catch (ArithmeticException e) {
            throw new IllegalArgumentException("the event's " + value + " is no " + type.getSimpleName()
                + ", which the handler takes", e);
        }
        if (type == double.class || type == Double.class) {
            return number.doubleValue();
        } else if (type == float.class || type == Float.class) {
            return number.floatValue();
        }
        return type == BigDecimal.class ? number : null;
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
