/*
 * Copies an initial value's object graph for one photon.
 *
 * Invariants: an object is copied at most once per photon (`copies`), so aliases and cycles stay;
 * a copier never calls application code except hashCode, equals and compareTo of complete copies;
 * depth of the graph costs heap, not stack. What is shared instead of copied, and why, is in Kind;
 * besides, an object that a static final of its own class or of the static's class names is shared
 * (such constants are compared by identity), and an application object that owns a resource, at
 * whatever depth, is shared as a whole: half a connection pool is worse than one in common.
 *
 * Reads the base graph without locks: it is not written to after initialisation. Should a thread of
 * the base view change a collection meanwhile, the copy is begun again, a few times. Whatever ends a
 * copy (no memory, a hashCode that throws), nothing half made stays in `copies`.
 */
package lantern.photon;

import java.lang.reflect.Array;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.lang.reflect.RecordComponent;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collections;
import java.util.ConcurrentModificationException;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Copies one graph; see the head of this file. */
final class Copier {
    private static final int ATTEMPTS = 5;

    private final Map<Object, Object> copies;
    private final Class<?> owner;
    private final String field;
    /** What this copier put into `copies`, to take it out again if it must begin anew. */
    private final ArrayList<Object> made = new ArrayList<>();
    /** What is left to do for a graph; most values are a single object and need none of these. */
    private ArrayDeque<Runnable> work;
    private ArrayDeque<Runnable> last;
    /** Of one bottomUp: what is to be filled at last, parts first. */
    private final ArrayList<Runnable> fills = new ArrayList<>();
    private Resources resources;

    Copier(Map<Object, Object> copies, Class<?> owner, String field) {
        this.copies = copies;
        this.owner = owner;
        this.field = field;
    }

    private String where() {
        return owner.getName() + "." + field;
    }

    /** The copy of `base`, which may be `base` itself. */
    Object copy(Object base) {
        if (base == null || Kind.of(base.getClass()) == Kind.SAME) {
            return base;
        }
        try {
            return attempt(() -> reference(base));
        } catch (RuntimeException e) {
            // Of a hashCode, a comparator, or a JDK field that is not as we know it.
            copies.put(base, base);
            Isolation.report(where(), base.getClass(), "copying it failed: " + e);
            return base;
        }
    }

    /** A new object of the same class: final fields shared as they are, the others copied. */
    Object copyInstance(Object instance) {
        Class<?> type = instance.getClass();
        if (Kind.of(type) != Kind.FIELDS && Kind.of(type) != Kind.RESOURCE || type.isHidden()
            || Fields.copied(type).stream().allMatch(field -> Modifier.isFinal(field.getModifiers()))) {
            return instance;
        }
        return attempt(() -> {
            Object copy = Fields.allocate(type);
            keep(instance, copy);
            for (Field field : Fields.copied(type)) {
                boolean shared = Modifier.isFinal(field.getModifiers());
                Fields.set(field, copy, shared ? Fields.get(field, instance) : reference(Fields.get(field, instance)));
            }
            return copy;
        });
    }

    private interface Step {
        Object run();
    }

    private Object attempt(Step step) {
        for (int attempt = 1;; attempt++) {
            try {
                Object copy = step.run();
                while (work != null && !work.isEmpty()) {
                    work.poll().run();
                }
                while (last != null && !last.isEmpty()) {
                    last.pop().run();
                }
                return copy;
            } catch (ConcurrentModificationException e) {
                undo();
                if (attempt == ATTEMPTS) {
                    throw new IllegalStateException("the initial value of " + where()
                        + " is being changed outside any invocation while a photon copies it", e);
                }
            } catch (Throwable thrown) {
                undo();
                throw thrown;
            }
        }
    }

    /** Forgets what this copier has made. Takes no memory: there may be none. */
    private void undo() {
        for (int i = 0; i < made.size(); i++) {
            copies.remove(made.get(i));
        }
        made.clear();
        fills.clear();
        work = null;
        last = null;
    }

    private Object reference(Object base) {
        if (base == null) {
            return null;
        }
        Kind kind = Kind.of(base.getClass());
        if (kind == Kind.SAME) {
            return base;
        }
        Object known = copies.get(base);
        if (known != null) {
            return known;
        }
        return whole(base, kind) ? bottomUp(base, kind) : begin(base, kind);
    }

    /** Whether a copy can only be made of its parts' copies: records, and collections that cannot change. */
    private static boolean whole(Object base, Kind kind) {
        return kind == Kind.RECORD || kind == Kind.MEANING && fixed(base);
    }

    private static boolean fixed(Object base) {
        return base.getClass().getName().startsWith("java.util.ImmutableCollections$") || base instanceof java.util.Optional;
    }

    /** Makes a copy after those of its parts that must be there first: a list of records may be long. */
    private Object bottomUp(Object root, Kind kind) {
        ArrayDeque<Object> path = new ArrayDeque<>();
        path.addAll(missing(root));
        if (!path.isEmpty()) {
            Set<Object> entered = Collections.newSetFromMap(new IdentityHashMap<>());
            entered.add(root);
            while (!path.isEmpty()) {
                Object top = path.peek();
                if (copies.containsKey(top)) {
                    path.pop();
                } else if (entered.add(top)) {
                    missing(top).stream().filter(part -> !entered.contains(part)).forEach(path::push);
                } else {
                    begin(path.pop(), Kind.of(top.getClass()));
                }
            }
        }
        Object copy = begin(root, kind);
        for (int i = fills.size() - 1; i >= 0; i--) {
            atLast(fills.get(i));
        }
        fills.clear();
        return copy;
    }

    /** The parts of such an object that are of its sort and have no copy yet. */
    private List<Object> missing(Object base) {
        List<Object> missing = new ArrayList<>();
        if (!constant(base)) {
            for (Object part : Resources.successors(base)) {
                if (part != null && whole(part, Kind.of(part.getClass())) && !copies.containsKey(part)) {
                    missing.add(part);
                }
            }
        }
        return missing;
    }

    private boolean constant(Object base) {
        Class<?> type = base.getClass();
        return Constants.names(owner, base) || Kind.isApplication(type) && Constants.names(type, base);
    }

    private Object begin(Object base, Kind kind) {
        Object copy = make(base, kind);
        if (copy == base) {
            keep(base, base);
        }
        return copy;
    }

    private Object make(Object base, Kind kind) {
        Class<?> type = base.getClass();
        if (constant(base)) {
            return base;
        }
        switch (kind) {
            case PRIMITIVES:
                return keep(base, primitives(base));
            case REFERENCES:
                Object[] elements = (Object[]) base;
                Object[] array = (Object[]) Array.newInstance(type.getComponentType(), elements.length);
                later(() -> {
                    for (int i = 0; i < elements.length; i++) {
                        array[i] = reference(elements[i]);
                    }
                });
                return keep(base, array);
            case MEANING:
                return meaning(base);
            case FIELDS:
            case RECORD:
                if (Kind.isApplication(type)) {
                    resources = resources == null ? new Resources() : resources;
                    String found = resources.reachedBy(base);
                    if (found != null) {
                        Isolation.report(where(), type, "it owns a " + found);
                        return base;
                    }
                }
                return kind == Kind.RECORD ? record(base) : fields(base);
            case OPAQUE:
                Isolation.report(where(), type, "this class is not one that can be copied");
                return base;
            default:
                Isolation.report(where(), type, "it is a resource");
                return base;
        }
    }

    private Object keep(Object base, Object copy) {
        // In this order: what is in `copies` can be undone.
        made.add(base);
        copies.put(base, copy);
        return copy;
    }

    private void later(Runnable step) {
        if (work == null) {
            work = new ArrayDeque<>();
        }
        work.add(step);
    }

    private void atLast(Runnable step) {
        if (last == null) {
            last = new ArrayDeque<>();
        }
        last.push(step);
    }

    private static Object primitives(Object base) {
        int length = Array.getLength(base);
        Object copy = Array.newInstance(base.getClass().getComponentType(), length);
        System.arraycopy(base, 0, copy, 0, length);
        return copy;
    }

    private Object meaning(Object base) {
        Object[] elements = Duplicates.elements(base);
        if (fixed(base)) {
            // Elements first: whether there is a copy at all depends on them. No cycle leads through
            // here but by an element that was changed later, and that one is already known then.
            Object[] copied = new Object[elements.length];
            boolean changed = false;
            for (int i = 0; i < elements.length; i++) {
                copied[i] = reference(elements[i]);
                changed |= copied[i] != elements[i];
            }
            Object copy = Duplicates.empty(base, copied, changed);
            if (copy != base && !(copy instanceof java.util.Optional)) {
                fills.add(() -> Duplicates.fill(copy, copied));
                return keep(base, unmodifiable(copy));
            }
            return keep(base, copy);
        }
        Object copy = Duplicates.empty(base, elements, true);
        if (copy == null) {
            Isolation.report(where(), base.getClass(), "this object is not one that can be copied");
            return base;
        }
        if (plain(elements)) {
            Duplicates.fill(copy, elements);
        } else {
            later(() -> {
                Object[] copied = new Object[elements.length];
                boolean waits = Duplicates.last(copy);
                if (waits) {
                    // Before those of its elements, as the last that comes is the first to be filled.
                    atLast(() -> Duplicates.fill(copy, copied));
                }
                for (int i = 0; i < elements.length; i++) {
                    copied[i] = reference(elements[i]);
                }
                if (!waits) {
                    Duplicates.fill(copy, copied);
                }
            });
        }
        return keep(base, copy);
    }

    /** Whether elements are their own copies, as in most collections. */
    private static boolean plain(Object[] elements) {
        for (Object element : elements) {
            if (element != null && Kind.of(element.getClass()) != Kind.SAME) {
                return false;
            }
        }
        return true;
    }

    @SuppressWarnings("unchecked")
    private static Object unmodifiable(Object copy) {
        if (copy instanceof Map) {
            return Collections.unmodifiableMap((Map<Object, Object>) copy);
        }
        return copy instanceof Set ? Collections.unmodifiableSet((Set<Object>) copy)
            : Collections.unmodifiableList((List<Object>) copy);
    }

    private Object fields(Object base) {
        Object copy = Fields.allocate(base.getClass());
        later(() -> {
            for (Field field : Fields.copied(base.getClass())) {
                Fields.set(field, copy, reference(Fields.get(field, base)));
            }
        });
        return keep(base, copy);
    }

    /** Records are made by their constructor, of components that may still be incomplete inside. */
    private Object record(Object base) {
        try {
            List<Class<?>> types = new ArrayList<>();
            List<Object> values = new ArrayList<>();
            boolean changed = false;
            for (RecordComponent component : base.getClass().getRecordComponents()) {
                Field field = base.getClass().getDeclaredField(component.getName());
                field.setAccessible(true);
                Object value = field.get(base);
                Object copied = component.getType().isPrimitive() ? value : reference(value);
                changed |= copied != value && !component.getType().isPrimitive();
                types.add(component.getType());
                values.add(copied);
            }
            if (!changed) {
                return base;
            }
            Constructor<?> constructor = base.getClass().getDeclaredConstructor(types.toArray(new Class<?>[0]));
            constructor.setAccessible(true);
            return keep(base, constructor.newInstance(values.toArray()));
        } catch (ReflectiveOperationException | RuntimeException e) {
            if (e.getCause() instanceof VirtualMachineError) {
                throw (VirtualMachineError) e.getCause();
            }
            Isolation.report(where(), base.getClass(), "its constructor refused the copy: " + e);
            return base;
        }
    }
}
