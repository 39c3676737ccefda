/*
 * Static finals for the leak check: those that must be reported, and those that must not.
 */
package leak;

import java.text.SimpleDateFormat;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import java.util.logging.Logger;
import java.util.regex.Pattern;

/** Constants. */
final class Constants {
    static final int[] ARRAY = {1};
    static final AtomicInteger ATOMIC = new AtomicInteger();
    static final Bean BEAN = new Bean();
    static final SimpleDateFormat FORMAT = new SimpleDateFormat();
    static final List<String> LIST = new ArrayList<>();
    static final Map<String, Object> NESTED = Map.of("a", new int[] {1});

    static final String TEXT = "text";
    static final Integer NUMBER = Integer.valueOf(7);
    static final Pattern PATTERN = Pattern.compile("a");
    static final List<String> FIXED = List.of("a");
    static final Set<Point> POINTS = Set.of(new Point(1, 2));
    static final Object LOCK = new Object();
    static final String[] EMPTY = {};
    static final Logger LOGGER = Logger.getLogger("x");
    static final Supplier<String> LAMBDA = () -> "x";
    static final ThreadLocal<int[]> LOCAL = ThreadLocal.withInitial(() -> new int[1]);
    static final Thread.State STATE = Thread.State.NEW;
    @lantern.runtime.Shared
    static final List<String> AGREED = new ArrayList<>();

    private Constants() {}

    static final class Bean {
        int value;
    }

    record Point(int x, int y) {}
}
