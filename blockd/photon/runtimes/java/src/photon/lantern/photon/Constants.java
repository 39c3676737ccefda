/*
 * Objects that a class's static finals name. They are shared by design, and often compared by
 * identity (typesafe enums, markers, singletons), so a copy of a graph keeps them as they are.
 */
package lantern.photon;

import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.util.ArrayList;
import java.util.List;

/** Values of static finals; see the head of this file. */
final class Constants {
    private static final ClassValue<List<Field>> FINALS = new ClassValue<>() {
        @Override
        protected List<Field> computeValue(Class<?> type) {
            List<Field> fields = new ArrayList<>();
            for (Field field : type.getDeclaredFields()) {
                int modifiers = field.getModifiers();
                if (Modifier.isStatic(modifiers) && Modifier.isFinal(modifiers) && !field.getType().isPrimitive()
                    && field.getType() != String.class) {
                    field.setAccessible(true);
                    fields.add(field);
                }
            }
            return List.copyOf(fields);
        }
    };

    private Constants() {}

    /** Whether a static final of `type` names this very object. */
    static boolean names(Class<?> type, Object object) {
        for (Field field : FINALS.get(type)) {
            if (field.getType().isInstance(object) && Fields.get(field, null) == object) {
                return true;
            }
        }
        return false;
    }
}
