/*
 * What the rewriter must know of a class without loading it: its superclass and its isolated
 * statics. Read from the class file; immutable.
 */
package lantern.rewrite;

import java.util.LinkedHashMap;
import java.util.Map;
import org.objectweb.asm.AnnotationVisitor;
import org.objectweb.asm.ClassReader;
import org.objectweb.asm.ClassVisitor;
import org.objectweb.asm.FieldVisitor;
import org.objectweb.asm.Opcodes;

/** Facts of one class. */
final class ClassInfo {
    /** What stands for classes that are not isolated, or cannot be found. */
    static final ClassInfo NONE = new ClassInfo(null);
    private static final String SHARED = "Llantern/runtime/Shared;";

    /** One isolated static. */
    static final class Static {
        final String name;
        final String descriptor;
        final boolean isVolatile;

        Static(String name, String descriptor, boolean isVolatile) {
            this.name = name;
            this.descriptor = descriptor;
            this.isVolatile = isVolatile;
        }

        /** Whether its value may be an object that can change, so that a photon needs a copy of it. */
        boolean copied() {
            return Statics.copied(descriptor);
        }
    }

    final String superName;
    /** By name and descriptor. */
    final Map<String, Static> statics = new LinkedHashMap<>();
    /** Names of all its fields: one that is found here ends the search through superclasses. */
    final Map<String, Boolean> fields = new LinkedHashMap<>();

    private ClassInfo(String superName) {
        this.superName = superName;
    }

    static ClassInfo of(ClassReader reader, Lists lists) {
        String className = reader.getClassName().replace('/', '.');
        ClassInfo info = new ClassInfo(reader.getSuperName());
        boolean isInterface = (reader.getAccess() & Opcodes.ACC_INTERFACE) != 0;
        boolean included = lists.test(className) && !isInterface;
        boolean[] classShared = new boolean[1];
        reader.accept(new ClassVisitor(Opcodes.ASM9) {
            @Override
            public AnnotationVisitor visitAnnotation(String descriptor, boolean visible) {
                classShared[0] |= descriptor.equals(SHARED);
                return null;
            }

            @Override
            public FieldVisitor visitField(int access, String name, String descriptor, String signature, Object value) {
                info.fields.put(name + descriptor, Boolean.TRUE);
                // Synthetic statics are compilers' and tools' caches of code, not of data.
                int kept = Opcodes.ACC_STATIC | Opcodes.ACC_FINAL | Opcodes.ACC_SYNTHETIC;
                if (!included || (access & kept) != Opcodes.ACC_STATIC || lists.excludesField(className, name)) {
                    return null;
                }
                info.statics.put(name + descriptor, new Static(name, descriptor, (access & Opcodes.ACC_VOLATILE) != 0));
                return new FieldVisitor(Opcodes.ASM9) {
                    @Override
                    public AnnotationVisitor visitAnnotation(String annotation, boolean visible) {
                        if (annotation.equals(SHARED)) {
                            info.statics.remove(name + descriptor);
                        }
                        return null;
                    }
                };
            }
        }, ClassReader.SKIP_CODE | ClassReader.SKIP_DEBUG | ClassReader.SKIP_FRAMES);
        if (classShared[0]) {
            info.statics.clear();
        }
        return info;
    }
}
