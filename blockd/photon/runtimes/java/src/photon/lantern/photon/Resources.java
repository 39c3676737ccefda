/*
 * Whether an application object owns a resource (a thread, socket, executor ...), at whatever depth.
 * A depth-first search with its own stack; objects found clean are remembered for the whole copy.
 */
package lantern.photon;

import java.lang.reflect.Field;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Set;

/** The search for resources; see the head of this file. */
final class Resources {
    private final Set<Object> clean = Collections.newSetFromMap(new IdentityHashMap<>());

    /** The name of a resource's class that `root` reaches; null if it reaches none. */
    String reachedBy(Object root) {
        if (clean.contains(root)) {
            return null;
        }
        Set<Object> seen = Collections.newSetFromMap(new IdentityHashMap<>());
        ArrayDeque<Object> stack = new ArrayDeque<>();
        stack.push(root);
        seen.add(root);
        while (!stack.isEmpty()) {
            for (Object next : successors(stack.pop())) {
                if (next == null || clean.contains(next) || !seen.add(next)) {
                    continue;
                }
                Kind kind = Kind.of(next.getClass());
                if (kind == Kind.RESOURCE) {
                    return next.getClass().getName();
                }
                if (kind != Kind.SAME && kind != Kind.OPAQUE && kind != Kind.PRIMITIVES) {
                    stack.push(next);
                }
            }
        }
        clean.addAll(seen);
        return null;
    }

    /** What an object refers to itself. */
    static List<Object> successors(Object object) {
        switch (Kind.of(object.getClass())) {
            case REFERENCES:
                return Arrays.asList((Object[]) object);
            case MEANING:
                return Arrays.asList(Duplicates.elements(object));
            case FIELDS:
            case RECORD:
                List<Object> values = new ArrayList<>();
                for (Field field : Fields.copied(object.getClass())) {
                    if (!field.getType().isPrimitive()) {
                        values.add(Fields.get(field, object));
                    }
                }
                return values;
            default:
                return List.of();
        }
    }
}
