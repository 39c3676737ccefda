/*
 * How a class's methods use its own isolated statics: the first of two passes over its code.
 *
 * A method that uses them more than once, or in a loop, asks for its photon's holder once, at its
 * start: the photon cannot change while a method runs, and loads from a holder in a local are what
 * the JIT moves out of loops. Fields used within a loop, or more than once, are copied at the start
 * too: the loop has no call in it, and the uses need no look at whether there is a copy. A loop is everything between a backward jump's target and the jump.
 */
package lantern.rewrite;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import lantern.rewrite.ClassInfo.Static;
import org.objectweb.asm.ClassReader;
import org.objectweb.asm.ClassVisitor;
import org.objectweb.asm.Label;
import org.objectweb.asm.MethodVisitor;
import org.objectweb.asm.Opcodes;

/** One method's use of its class's own statics. */
final class Uses {
    /** Where the holder is kept: the first local after the method's own. */
    int local;
    /** Fields that are copied at the method's start, by name and descriptor. */
    final Set<String> ready = new HashSet<>();
    private int count;

    /** Whether the method keeps a holder. */
    boolean keepsHolder() {
        return count > 1 || !ready.isEmpty();
    }

    /** By method name and descriptor. */
    static Map<String, Uses> of(ClassReader reader, Map<String, Static> statics) {
        Map<String, Uses> all = new HashMap<>();
        String owner = reader.getClassName();
        reader.accept(new ClassVisitor(Opcodes.ASM9) {
            @Override
            public MethodVisitor visitMethod(int access, String name, String descriptor, String signature, String[] exceptions) {
                if (name.equals("<clinit>")) {
                    return null;
                }
                Uses uses = new Uses();
                all.put(name + descriptor, uses);
                return new Scan(uses, owner, statics);
            }
        }, ClassReader.SKIP_DEBUG | ClassReader.SKIP_FRAMES);
        return all;
    }

    private static final class Scan extends MethodVisitor {
        private final Uses uses;
        private final String owner;
        private final Map<String, Static> statics;
        private final Map<Label, Integer> labels = new HashMap<>();
        private final List<int[]> loops = new ArrayList<>();
        private final List<Integer> places = new ArrayList<>();
        private final List<String> fields = new ArrayList<>();
        private int at;

        Scan(Uses uses, String owner, Map<String, Static> statics) {
            super(Opcodes.ASM9);
            this.uses = uses;
            this.owner = owner;
            this.statics = statics;
        }

        @Override
        public void visitLabel(Label label) {
            labels.put(label, at++);
        }

        private void jump(Label to) {
            Integer target = labels.get(to);
            if (target != null) {
                loops.add(new int[] {target, at});
            }
            at++;
        }

        @Override
        public void visitJumpInsn(int opcode, Label label) {
            jump(label);
        }

        @Override
        public void visitTableSwitchInsn(int min, int max, Label otherwise, Label... to) {
            visitLookupSwitchInsn(otherwise, null, to);
        }

        @Override
        public void visitLookupSwitchInsn(Label otherwise, int[] keys, Label[] to) {
            jump(otherwise);
            for (Label label : to) {
                jump(label);
            }
        }

        @Override
        public void visitFieldInsn(int opcode, String on, String name, String descriptor) {
            if ((opcode == Opcodes.GETSTATIC || opcode == Opcodes.PUTSTATIC) && on.equals(owner)
                && statics.containsKey(name + descriptor)) {
                uses.count++;
                places.add(at++);
                fields.add(name + descriptor);
            }
        }

        @Override
        public void visitMaxs(int stack, int locals) {
            uses.local = locals;
            for (int i = 0; i < places.size(); i++) {
                if (fields.indexOf(fields.get(i)) < i) {
                    uses.ready.add(fields.get(i));
                }
                for (int[] loop : loops) {
                    if (places.get(i) >= loop[0] && places.get(i) <= loop[1]) {
                        uses.ready.add(fields.get(i));
                    }
                }
            }
        }
    }
}
