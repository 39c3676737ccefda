/*
 * Finds facts of classes that code refers to, without loading them: from what was transformed
 * before, else from the class file that the loader would read. Bounded by the classes that
 * application code names; facts go with their loader.
 *
 * A class whose file the loader does not give (generated at run time) is known once it has been
 * transformed; code that was loaded before it and names its statics is not rewritten for them.
 */
package lantern.rewrite;

import java.io.IOException;
import java.io.InputStream;
import java.util.Map;
import java.util.WeakHashMap;
import java.util.concurrent.ConcurrentHashMap;
import org.objectweb.asm.ClassReader;

/** The memory of class facts; see the head of this file. */
final class Classes {
    private final Lists lists;
    private final Map<ClassLoader, Map<String, ClassInfo>> known = new WeakHashMap<>();

    Classes(Lists lists) {
        this.lists = lists;
    }

    private Map<String, ClassInfo> of(ClassLoader loader) {
        synchronized (known) {
            Map<String, ClassInfo> infos = known.get(loader);
            if (infos == null) {
                infos = new ConcurrentHashMap<>();
                known.put(loader, infos);
            }
            return infos;
        }
    }

    void put(ClassLoader loader, String name, ClassInfo info) {
        of(loader).put(name, info);
    }

    /** The isolated static that a field reference means; null if it means another field. */
    ClassInfo.Static find(ClassLoader loader, String owner, String name, String descriptor) {
        for (String at = owner; at != null && !jdk(at);) {
            ClassInfo info = info(loader, at);
            ClassInfo.Static found = info.statics.get(name + descriptor);
            if (found != null || info.fields.containsKey(name + descriptor)) {
                return found;
            }
            at = info.superName;
        }
        return null;
    }

    static boolean jdk(String internalName) {
        return internalName.startsWith("java/") || internalName.startsWith("jdk/") || internalName.startsWith("sun/")
            || internalName.startsWith("com/sun/") || internalName.startsWith("[");
    }

    private ClassInfo info(ClassLoader loader, String name) {
        Map<String, ClassInfo> infos = of(loader);
        ClassInfo info = infos.get(name);
        if (info == null) {
            info = read(loader, name);
            // Not what could not be found: it may be generated later.
            if (info != ClassInfo.NONE) {
                infos.put(name, info);
            }
        }
        return info;
    }

    private ClassInfo read(ClassLoader loader, String name) {
        try (InputStream file = loader.getResourceAsStream(name + ".class")) {
            return file == null ? ClassInfo.NONE : ClassInfo.of(new ClassReader(file), lists);
        } catch (IOException | RuntimeException e) {
            return ClassInfo.NONE;
        }
    }
}
