/*
 * A small JSON for events that handlers take as Map, List, String, Number, Boolean or null.
 *
 * Reading is strict (RFC 8259) and bounded in depth, so that an event cannot overflow the stack.
 * Whole numbers become Integer, Long or BigInteger by size, others Double; objects become
 * LinkedHashMap. Writing takes the same types, arrays, iterables, enums and any CharSequence.
 */
package lantern.runtime;

import java.lang.reflect.Array;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** JSON; see the head of this file. */
public final class Json {
    /** Deepest nesting read or written. */
    public static final int MOST_DEPTH = 512;

    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    /** Reads one value; IllegalArgumentException says where the text is wrong. */
    public static Object read(String text) {
        Json json = new Json(text);
        Object value = json.value(0);
        json.space();
        if (json.at != text.length()) {
            throw json.wrong("nothing more");
        }
        return value;
    }

    /** Writes one value; IllegalArgumentException names a type that has no JSON here. */
    public static String write(Object value) {
        StringBuilder out = new StringBuilder();
        write(value, out, 0);
        return out.toString();
    }

    private Object value(int depth) {
        if (depth > MOST_DEPTH) {
            throw wrong("nesting of at most " + MOST_DEPTH);
        }
        space();
        char next = at < text.length() ? text.charAt(at) : 0;
        switch (next) {
            case '{':
                return object(depth);
            case '[':
                return list(depth);
            case '"':
                return string();
            case 't':
                return word("true", Boolean.TRUE);
            case 'f':
                return word("false", Boolean.FALSE);
            case 'n':
                return word("null", null);
            default:
                return number();
        }
    }

    private Map<String, Object> object(int depth) {
        Map<String, Object> map = new LinkedHashMap<>();
        at++;
        space();
        if (take('}')) {
            return map;
        }
        do {
            space();
            if (at >= text.length() || text.charAt(at) != '"') {
                throw wrong("a name in quotes");
            }
            String name = string();
            space();
            expect(':');
            map.put(name, value(depth + 1));
            space();
        } while (take(','));
        expect('}');
        return map;
    }

    private List<Object> list(int depth) {
        List<Object> list = new ArrayList<>();
        at++;
        space();
        if (take(']')) {
            return list;
        }
        do {
            list.add(value(depth + 1));
            space();
        } while (take(','));
        expect(']');
        return list;
    }

    private String string() {
        StringBuilder out = new StringBuilder();
        at++;
        while (at < text.length()) {
            char next = text.charAt(at++);
            if (next == '"') {
                return out.toString();
            }
            if (next < 0x20) {
                at--;
                throw wrong("no control character");
            }
            out.append(next == '\\' ? escape() : next);
        }
        throw wrong("the end of the string");
    }

    private char escape() {
        char next = at < text.length() ? text.charAt(at++) : 0;
        switch (next) {
            case '"':
            case '\\':
            case '/':
                return next;
            case 'b':
                return '\b';
            case 'f':
                return '\f';
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 't':
                return '\t';
            case 'u':
                int code = 0;
                for (int i = 0; i < 4; i++) {
                    int digit = at < text.length() ? Character.digit(text.charAt(at), 16) : -1;
                    if (digit < 0) {
                        throw wrong("four hexadecimal digits");
                    }
                    code = code * 16 + digit;
                    at++;
                }
                return (char) code;
            default:
                throw wrong("an escape");
        }
    }

    private Object number() {
        int start = at;
        take('-');
        if (!take('0') && !digits()) {
            throw wrong("a value");
        }
        boolean whole = true;
        if (take('.')) {
            whole = false;
            if (!digits()) {
                throw wrong("a digit");
            }
        }
        if (take('e') || take('E')) {
            whole = false;
            if (!take('+')) {
                take('-');
            }
            if (!digits()) {
                throw wrong("a digit");
            }
        }
        String number = text.substring(start, at);
        if (!whole) {
            return Double.valueOf(number);
        }
        if (number.length() < 19) {
            long value = Long.parseLong(number);
            return value == (int) value ? (Object) (int) value : (Object) value;
        }
        BigInteger value = new BigInteger(number);
        return value.bitLength() < 64 ? (Object) value.longValue() : value;
    }

    private boolean digits() {
        int start = at;
        while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
            at++;
        }
        return at > start;
    }

    private Object word(String word, Object value) {
        if (!text.startsWith(word, at)) {
            throw wrong("a value");
        }
        at += word.length();
        return value;
    }

    private boolean take(char wanted) {
        if (at < text.length() && text.charAt(at) == wanted) {
            at++;
            return true;
        }
        return false;
    }

    private void expect(char wanted) {
        if (!take(wanted)) {
            throw wrong("'" + wanted + "'");
        }
    }

    private void space() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    private IllegalArgumentException wrong(String wanted) {
        return new IllegalArgumentException("not JSON: " + wanted + " expected at character " + at);
    }

    private static void write(Object value, StringBuilder out, int depth) {
        if (depth > MOST_DEPTH) {
            throw new IllegalArgumentException("nesting deeper than " + MOST_DEPTH + ", or a value that contains itself");
        }
        if (value == null || value instanceof Boolean) {
            out.append(value);
        } else if (value instanceof CharSequence || value instanceof Character || value instanceof Enum) {
            quote(value instanceof Enum ? ((Enum<?>) value).name() : value.toString(), out);
        } else if (value instanceof Number) {
            double number = ((Number) value).doubleValue();
            if ((value instanceof Double || value instanceof Float) && (Double.isNaN(number) || Double.isInfinite(number))) {
                throw new IllegalArgumentException("JSON has no " + value);
            }
            out.append(value);
        } else if (value instanceof Map) {
            writeMap((Map<?, ?>) value, out, depth);
        } else if (value instanceof Iterable) {
            char before = '[';
            for (Object element : (Iterable<?>) value) {
                out.append(before);
                write(element, out, depth + 1);
                before = ',';
            }
            out.append(before == '[' ? "[]" : "]");
        } else if (value.getClass().isArray()) {
            int length = Array.getLength(value);
            out.append('[');
            for (int i = 0; i < length; i++) {
                out.append(i == 0 ? "" : ",");
                write(Array.get(value, i), out, depth + 1);
            }
            out.append(']');
        } else {
            throw new IllegalArgumentException("a " + value.getClass().getName()
                + " cannot be written as JSON; return a Map, List, String, Number or Boolean, or put gson or jackson on the class path");
        }
    }

    private static void writeMap(Map<?, ?> map, StringBuilder out, int depth) {
        char before = '{';
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            out.append(before);
            quote(String.valueOf(entry.getKey()), out);
            out.append(':');
            write(entry.getValue(), out, depth + 1);
            before = ',';
        }
        out.append(before == '{' ? "{}" : "}");
    }

    private static void quote(String text, StringBuilder out) {
        out.append('"');
        for (int i = 0; i < text.length(); i++) {
            char next = text.charAt(i);
            if (next == '"' || next == '\\') {
                out.append('\\').append(next);
            } else if (next < 0x20 || Character.isSurrogate(next) && lone(text, i)) {
                out.append(String.format("\\u%04x", (int) next));
            } else {
                out.append(next);
            }
        }
        out.append('"');
    }

    /** A half of a pair without its other half has no UTF-8; escaped it survives. */
    private static boolean lone(String text, int i) {
        char half = text.charAt(i);
        return Character.isHighSurrogate(half)
            ? i + 1 >= text.length() || !Character.isLowSurrogate(text.charAt(i + 1))
            : i == 0 || !Character.isHighSurrogate(text.charAt(i - 1));
    }
}
