/*
 * Static state of every shape that the probes use, as an application would have it.
 */
package leak;

import java.util.ArrayList;
import java.util.Collections;
import java.util.Date;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.atomic.AtomicReferenceArray;
import java.util.concurrent.locks.ReentrantLock;

/** Static state. */
public class Statics {
    static int initialisers;
    static final AtomicInteger INITIALISERS = new AtomicInteger();

    static {
        initialisers++;
        INITIALISERS.incrementAndGet();
    }

    static boolean z = true;
    static byte b = 1;
    static char c = 'c';
    static short s = 2;
    static int i = 3;
    static long j = 4L;
    static float f = 5f;
    static double d = 6d;
    static volatile int v = 7;
    protected static String text = Probe.NOTHING;
    private static String hidden = Probe.NOTHING;
    static Object none;
    static String[] array = {Probe.NOTHING};
    static int[][] matrix = {{0}, {0}};
    static List<String> list = new ArrayList<>();
    static Map<String, Node> map = new HashMap<>();
    static Map<String, List<String>> nested = new ConcurrentHashMap<>();
    static Set<Node> nodes = new HashSet<>();
    static StringBuilder builder = new StringBuilder();
    static Date date = new Date(0);
    static AtomicInteger atomic = new AtomicInteger();
    static AtomicReference<Node> reference = new AtomicReference<>(new Node("initial"));
    static Node cycle = new Node("a");
    static Node alias = cycle;
    static List<String> synchronizedList = Collections.synchronizedList(new ArrayList<>());
    static List<List<String>> immutableOfMutable = List.of(new ArrayList<>(), new ArrayList<>());
    static Map<Color, List<String>> enums = new EnumMap<>(Color.class);
    static Lru lru = new Lru();
    static Pair pair = new Pair("left", new ArrayList<>());
    static Level level = Level.INFO;
    static Object lock = new Object();
    static Random random = new Random(42);
    static Segment segment = new Segment();

    static {
        cycle.next = new Node("b");
        cycle.next.next = cycle;
        map.put("k", new Node("v"));
        nested.put("k", new ArrayList<>(List.of("initial")));
        nodes.add(cycle);
        enums.put(Color.RED, new ArrayList<>());
        lru.put("one", new Node("1"));
    }

    static String hidden() {
        return hidden;
    }

    static void hidden(String value) {
        hidden = value;
    }

    enum Color { RED, GREEN }

    record Pair(String left, List<String> right) {}

    /** A typesafe enum: compared by identity. */
    static final class Level {
        static final Level INFO = new Level("info");
        static final Level WARN = new Level("warn");
        final String name;

        private Level(String name) {
            this.name = name;
        }
    }

    /** An application's object; identity hash, so that sets of it must be filled anew. */
    static class Node {
        String value;
        Node next;

        Node(String value) {
            this.value = value;
        }
    }

    /** An application's subclass of a JDK collection. */
    static final class Lru extends LinkedHashMap<String, Node> {
        private static final long serialVersionUID = 1L;

        @Override
        protected boolean removeEldestEntry(Map.Entry<String, Node> eldest) {
            return size() > 3;
        }
    }

    /** As caches are built: a lock that is also a table. */
    static final class Segment extends ReentrantLock {
        private static final long serialVersionUID = 1L;
        final transient AtomicReferenceArray<Node> table = new AtomicReferenceArray<>(2);
    }

    /** Nested state. */
    static class Inner {
        private static String secret = Probe.NOTHING;

        static class Deeper {
            private static String secret = Probe.NOTHING;
        }

        static void set(String value) {
            secret = value;
            Deeper.secret = value;
        }

        static String get() {
            return secret.equals(Probe.NOTHING) ? Deeper.secret : secret;
        }
    }

    /** Reached through a subclass's name. */
    static class Child extends Statics {
        static String through() {
            return text;
        }
    }

    /** Initialised in whichever photon comes first; must not keep what that one has. */
    static class Late {
        static final String SEEN = Statics.text;
        static String copied = Statics.text;
    }
}
