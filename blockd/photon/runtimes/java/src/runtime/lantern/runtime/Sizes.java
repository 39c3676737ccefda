/*
 * Estimates of the heap that a value takes, for the store's budget. Exact enough for arrays,
 * strings and collections of them; an object of another class counts as one small object, so give
 * sizes of big ones. Bounded: looks at so many objects and takes the rest to be like them.
 */
package lantern.runtime;

import java.lang.reflect.Array;
import java.nio.Buffer;
import java.util.Collection;
import java.util.Map;

/** Size estimates in bytes. */
final class Sizes {
    private static final int HEADER = 16;
    private static final int OBJECT = 64;
    private static final int ENTRY = 48;
    private static final int MOST_LOOKS = 10_000;
    private static final int MOST_DEPTH = 32;

    private int looks;

    private Sizes() {}

    static long estimate(Object value) {
        return new Sizes().of(value, 0);
    }

    private long of(Object value, int depth) {
        looks++;
        if (value == null || depth > MOST_DEPTH) {
            return 0;
        }
        if (value instanceof CharSequence) {
            return HEADER * 2 + 2L * ((CharSequence) value).length();
        }
        if (value instanceof Buffer) {
            return OBJECT + 8L * ((Buffer) value).capacity();
        }
        if (value.getClass().isArray()) {
            return array(value, depth);
        }
        if (value instanceof Map) {
            Map<?, ?> map = (Map<?, ?>) value;
            return OBJECT + (long) ENTRY * map.size() + elements(map.keySet(), depth) + elements(map.values(), depth);
        }
        if (value instanceof Collection) {
            return OBJECT + 8L * ((Collection<?>) value).size() + elements((Collection<?>) value, depth);
        }
        return OBJECT;
    }

    private long array(Object array, int depth) {
        int length = Array.getLength(array);
        Class<?> type = array.getClass().getComponentType();
        if (!type.isPrimitive()) {
            return HEADER + 4L * length + elements(java.util.Arrays.asList((Object[]) array), depth);
        }
        int size = type == long.class || type == double.class ? 8 : type == int.class || type == float.class ? 4
            : type == char.class || type == short.class ? 2 : 1;
        return HEADER + (long) size * length;
    }

    private long elements(Collection<?> elements, int depth) {
        long sum = 0;
        long seen = 0;
        for (Object element : elements) {
            if (looks >= MOST_LOOKS) {
                return seen == 0 ? 0 : sum / seen * elements.size();
            }
            sum += of(element, depth + 1);
            seen++;
        }
        return sum;
    }
}
