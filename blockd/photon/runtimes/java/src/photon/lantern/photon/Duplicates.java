/*
 * Copies of JDK objects by what they mean: an empty one of the same class and settings first (so
 * that cycles and aliases come out right), filled afterwards. Collections that order by hash or by
 * comparison are filled last, when their elements are complete.
 *
 * Not the JDK's own copy constructors of whole contents: elements must be copied too, and a hash
 * table copied field by field would keep the buckets of the old elements' identity hashes.
 */
package lantern.photon;

import java.io.ByteArrayOutputStream;
import java.io.StringWriter;
import java.nio.ByteBuffer;
import java.text.Format;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.concurrent.locks.ReentrantLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;

/** How JDK objects are copied; see the head of this file. */
final class Duplicates {
    private static final Class<?> SET_FROM_MAP = Collections.newSetFromMap(new HashMap<>()).getClass();

    private Duplicates() {}

    /** An empty list, set or queue like `from`; null where it is none of those. */
    private static Object collection(Collection<?> from) {
        switch (from.getClass().getName()) {
            case "java.util.ArrayList":
                return new ArrayList<>(from.size());
            case "java.util.LinkedList":
                return new LinkedList<>();
            case "java.util.Vector":
                return new Vector<>(Math.max(1, from.size()));
            case "java.util.Stack":
                return new Stack<>();
            case "java.util.HashSet":
                return new HashSet<>();
            case "java.util.LinkedHashSet":
                return new LinkedHashSet<>();
            case "java.util.TreeSet":
                return new TreeSet<>(order(((TreeSet<?>) from).comparator()));
            case "java.util.ArrayDeque":
                return new ArrayDeque<>();
            case "java.util.PriorityQueue":
                return new PriorityQueue<>(Math.max(1, from.size()), order(((PriorityQueue<?>) from).comparator()));
            default:
                return concurrent(from);
        }
    }

    private static Object concurrent(Collection<?> from) {
        switch (from.getClass().getName()) {
            case "java.util.concurrent.CopyOnWriteArrayList":
                return new CopyOnWriteArrayList<>();
            case "java.util.concurrent.CopyOnWriteArraySet":
                return new CopyOnWriteArraySet<>();
            case "java.util.concurrent.ConcurrentSkipListSet":
                return new ConcurrentSkipListSet<>(order(((ConcurrentSkipListSet<?>) from).comparator()));
            case "java.util.concurrent.ConcurrentHashMap$KeySetView":
                return ConcurrentHashMap.newKeySet();
            case "java.util.concurrent.PriorityBlockingQueue":
                return new PriorityBlockingQueue<>(Math.max(1, from.size()),
                    order(((PriorityBlockingQueue<?>) from).comparator()));
            case "java.util.concurrent.ConcurrentLinkedQueue":
                return new ConcurrentLinkedQueue<>();
            case "java.util.concurrent.ConcurrentLinkedDeque":
                return new ConcurrentLinkedDeque<>();
            case "java.util.concurrent.LinkedBlockingQueue":
                return new LinkedBlockingQueue<>(capacity((BlockingQueue<?>) from));
            case "java.util.concurrent.LinkedBlockingDeque":
                return new LinkedBlockingDeque<>(capacity((BlockingQueue<?>) from));
            case "java.util.concurrent.ArrayBlockingQueue":
                return new ArrayBlockingQueue<>(capacity((BlockingQueue<?>) from));
            default:
                return null;
        }
    }

    private static int capacity(BlockingQueue<?> from) {
        long all = (long) from.size() + from.remainingCapacity();
        return (int) Math.max(1, Math.min(Integer.MAX_VALUE, all));
    }

    @SuppressWarnings("unchecked") // The copies' elements are of the same classes as the originals'.
    private static Comparator<Object> order(Comparator<?> order) {
        return (Comparator<Object>) order;
    }

    private static Object map(Map<?, ?> from) {
        switch (from.getClass().getName()) {
            case "java.util.HashMap":
                return new HashMap<>();
            case "java.util.LinkedHashMap":
                return new LinkedHashMap<>();
            case "java.util.TreeMap":
                return new TreeMap<>(order(((TreeMap<?, ?>) from).comparator()));
            case "java.util.Hashtable":
                return new Hashtable<>();
            case "java.util.Properties":
                return properties((Properties) from);
            case "java.util.IdentityHashMap":
                return new IdentityHashMap<>();
            case "java.util.WeakHashMap":
                return new WeakHashMap<>();
            case "java.util.EnumMap":
                return ((EnumMap<?, ?>) from).clone();
            case "java.util.concurrent.ConcurrentHashMap":
                return new ConcurrentHashMap<>();
            case "java.util.concurrent.ConcurrentSkipListMap":
                return new ConcurrentSkipListMap<>(order(((ConcurrentSkipListMap<?, ?>) from).comparator()));
            default:
                return null;
        }
    }

    /** With the defaults behind it, which are not among its elements. */
    private static Object properties(Properties from) {
        Properties to = new Properties();
        for (String name : from.stringPropertyNames()) {
            to.setProperty(name, from.getProperty(name));
        }
        return to;
    }

    /** A copy of a JDK object that holds no other objects (an AtomicReference's follows). */
    private static Object value(Object from) {
        switch (from.getClass().getName()) {
            case "java.lang.Object":
                return new Object();
            case "java.lang.StringBuilder":
                return new StringBuilder((StringBuilder) from);
            case "java.lang.StringBuffer":
                return new StringBuffer((StringBuffer) from);
            case "java.util.Date":
                return ((Date) from).clone();
            case "java.util.BitSet":
                return ((BitSet) from).clone();
            case "java.util.Random":
                // A copy of a generator would give every photon the same "random" numbers.
                return new Random();
            case "java.util.SplittableRandom":
                return new SplittableRandom();
            case "java.io.ByteArrayOutputStream":
                ByteArrayOutputStream bytes = new ByteArrayOutputStream();
                bytes.writeBytes(((ByteArrayOutputStream) from).toByteArray());
                return bytes;
            case "java.io.StringWriter":
                return new StringWriter().append(((StringWriter) from).getBuffer());
            default:
                return atomic(from);
        }
    }

    private static Object atomic(Object from) {
        switch (from.getClass().getName()) {
            case "java.util.concurrent.atomic.AtomicBoolean":
                return new AtomicBoolean(((AtomicBoolean) from).get());
            case "java.util.concurrent.atomic.AtomicInteger":
                return new AtomicInteger(((AtomicInteger) from).get());
            case "java.util.concurrent.atomic.AtomicLong":
                return new AtomicLong(((AtomicLong) from).get());
            case "java.util.concurrent.atomic.AtomicReference":
                return new AtomicReference<>();
            case "java.util.concurrent.atomic.AtomicReferenceArray":
                return new AtomicReferenceArray<>(((AtomicReferenceArray<?>) from).length());
            case "java.util.concurrent.atomic.AtomicIntegerArray":
                AtomicIntegerArray ints = (AtomicIntegerArray) from;
                AtomicIntegerArray newInts = new AtomicIntegerArray(ints.length());
                for (int i = 0; i < ints.length(); i++) {
                    newInts.set(i, ints.get(i));
                }
                return newInts;
            case "java.util.concurrent.atomic.AtomicLongArray":
                AtomicLongArray longs = (AtomicLongArray) from;
                AtomicLongArray newLongs = new AtomicLongArray(longs.length());
                for (int i = 0; i < longs.length(); i++) {
                    newLongs.set(i, longs.get(i));
                }
                return newLongs;
            case "java.util.concurrent.atomic.LongAdder":
                LongAdder adder = new LongAdder();
                adder.add(((LongAdder) from).sum());
                return adder;
            case "java.util.concurrent.atomic.DoubleAdder":
                DoubleAdder doubles = new DoubleAdder();
                doubles.add(((DoubleAdder) from).sum());
                return doubles;
            default:
                return lock(from);
        }
    }

    /** Locks guard what is the photon's own now, so a photon's are free. */
    private static Object lock(Object from) {
        switch (from.getClass().getName()) {
            case "java.util.concurrent.locks.ReentrantLock":
                return new ReentrantLock(((ReentrantLock) from).isFair());
            case "java.util.concurrent.locks.ReentrantReadWriteLock":
                return new ReentrantReadWriteLock(((ReentrantReadWriteLock) from).isFair());
            case "java.util.concurrent.Semaphore":
                return new Semaphore(((Semaphore) from).availablePermits(), ((Semaphore) from).isFair());
            case "java.util.concurrent.CountDownLatch":
                return new CountDownLatch((int) ((CountDownLatch) from).getCount());
            default:
                return null;
        }
    }

    /** Classes that collection, map and value know: the same names. */
    private static final Set<String> KNOWN = Set.of("java.util.ArrayList", "java.util.LinkedList", "java.util.Vector",
        "java.util.Stack", "java.util.HashSet", "java.util.LinkedHashSet", "java.util.TreeSet", "java.util.ArrayDeque",
        "java.util.PriorityQueue", "java.util.concurrent.CopyOnWriteArrayList", "java.util.concurrent.CopyOnWriteArraySet",
        "java.util.concurrent.ConcurrentSkipListSet", "java.util.concurrent.ConcurrentHashMap$KeySetView",
        "java.util.concurrent.PriorityBlockingQueue", "java.util.concurrent.ConcurrentLinkedQueue",
        "java.util.concurrent.ConcurrentLinkedDeque", "java.util.concurrent.LinkedBlockingQueue",
        "java.util.concurrent.LinkedBlockingDeque", "java.util.concurrent.ArrayBlockingQueue", "java.util.HashMap",
        "java.util.LinkedHashMap", "java.util.TreeMap", "java.util.Hashtable", "java.util.Properties",
        "java.util.IdentityHashMap", "java.util.WeakHashMap", "java.util.EnumMap", "java.util.concurrent.ConcurrentHashMap",
        "java.util.concurrent.ConcurrentSkipListMap", "java.lang.Object", "java.lang.StringBuilder",
        "java.lang.StringBuffer", "java.util.Date", "java.util.BitSet", "java.util.Random", "java.util.SplittableRandom",
        "java.io.ByteArrayOutputStream", "java.io.StringWriter", "java.util.concurrent.atomic.AtomicBoolean",
        "java.util.concurrent.atomic.AtomicInteger", "java.util.concurrent.atomic.AtomicLong",
        "java.util.concurrent.atomic.AtomicReference", "java.util.concurrent.atomic.AtomicReferenceArray",
        "java.util.concurrent.atomic.AtomicIntegerArray",
        "java.util.concurrent.atomic.AtomicLongArray", "java.util.concurrent.atomic.LongAdder",
        "java.util.concurrent.atomic.DoubleAdder", "java.util.concurrent.locks.ReentrantLock",
        "java.util.concurrent.locks.ReentrantReadWriteLock", "java.util.concurrent.Semaphore",
        "java.util.concurrent.CountDownLatch");

    static boolean knows(Class<?> type) {
        return KNOWN.contains(type.getName()) || type == SET_FROM_MAP || type == Optional.class
            || Calendar.class.isAssignableFrom(type) && type.getClassLoader() == null
            || Format.class.isAssignableFrom(type) && type.getClassLoader() == null
            || EnumSet.class.isAssignableFrom(type) || java.security.MessageDigest.class.isAssignableFrom(type)
            || type.getName().startsWith("java.util.ImmutableCollections$") || type.getName().equals("java.nio.HeapByteBuffer");
    }

    /** Elements whose copies belong into the copy; empty where there are none. */
    static Object[] elements(Object from) {
        if (from instanceof Map) {
            Map<?, ?> map = (Map<?, ?>) from;
            List<Object> all = new ArrayList<>(map.size() * 2);
            map.forEach((key, value) -> {
                all.add(key);
                all.add(value);
            });
            return all.toArray();
        }
        if (from instanceof EnumSet) {
            return new Object[0];
        }
        if (from instanceof Collection) {
            return ((Collection<?>) from).toArray();
        }
        if (from instanceof AtomicReferenceArray) {
            AtomicReferenceArray<?> array = (AtomicReferenceArray<?>) from;
            Object[] all = new Object[array.length()];
            for (int i = 0; i < all.length; i++) {
                all[i] = array.get(i);
            }
            return all;
        }
        if (from instanceof AtomicReference) {
            return new Object[] {((AtomicReference<?>) from).get()};
        }
        return from instanceof Optional && ((Optional<?>) from).isPresent()
            ? new Object[] {((Optional<?>) from).get()} : new Object[0];
    }

    /** An empty object like `from`; null where that is impossible. `elements` are the copied ones. */
    static Object empty(Object from, Object[] elements, boolean changed) {
        if (KNOWN.contains(from.getClass().getName())) {
            return from instanceof Collection ? collection((Collection<?>) from)
                : from instanceof Map ? map((Map<?, ?>) from) : value(from);
        }
        if (from instanceof Optional) {
            return changed ? Optional.of(elements[0]) : from;
        }
        if (from instanceof Calendar) {
            return ((Calendar) from).clone();
        }
        if (from instanceof Format) {
            return ((Format) from).clone();
        }
        if (from instanceof EnumSet) {
            return ((EnumSet<?>) from).clone();
        }
        if (from instanceof java.security.MessageDigest) {
            try {
                return ((java.security.MessageDigest) from).clone();
            } catch (CloneNotSupportedException e) {
                return null;
            }
        }
        if (from instanceof ByteBuffer) {
            return heapBuffer((ByteBuffer) from);
        }
        if (from.getClass() == SET_FROM_MAP) {
            // The order and identity rules of the map behind it are lost to us but for the common one.
            return ConcurrentHashMap.newKeySet();
        }
        // An immutable collection: the same one unless an element had to be copied.
        if (!changed) {
            return from;
        }
        if (from instanceof Map) {
            return new LinkedHashMap<>();
        }
        return from instanceof Set ? new LinkedHashSet<>() : new ArrayList<>();
    }

    private static Object heapBuffer(ByteBuffer from) {
        if (!from.hasArray()) {
            return null;
        }
        ByteBuffer to = ByteBuffer.allocate(from.capacity());
        ByteBuffer all = from.duplicate();
        all.clear();
        to.put(all);
        to.position(from.position()).limit(from.limit()).order(from.order());
        return to;
    }

    /** Puts copied elements into an empty copy. */
    @SuppressWarnings("unchecked")
    static void fill(Object to, Object[] elements) {
        if (to instanceof Map) {
            Map<Object, Object> map = (Map<Object, Object>) to;
            for (int i = 0; i < elements.length; i += 2) {
                map.put(elements[i], elements[i + 1]);
            }
        } else if (to instanceof Collection) {
            ((Collection<Object>) to).addAll(Arrays.asList(elements));
        } else if (to instanceof AtomicReferenceArray) {
            for (int i = 0; i < elements.length; i++) {
                ((AtomicReferenceArray<Object>) to).set(i, elements[i]);
            }
        } else if (to instanceof AtomicReference && elements.length == 1) {
            ((AtomicReference<Object>) to).set(elements[0]);
        }
    }

    /** Whether filling needs complete elements, because it asks them for a hash or an order. */
    static boolean last(Object to) {
        return to instanceof Map || to instanceof Set || to instanceof PriorityQueue
            || to instanceof PriorityBlockingQueue;
    }
}
