/*
 * Rewrites one application class: its own statics get a holder and accessors (Statics), its reads
 * and writes of isolated statics call accessors, its initialiser runs in the base view, and some
 * calls into the JDK go through Hooks.
 *
 * Invariants: a class with nothing of that kind is left alone, which a look at its constant pool
 * tells; in <clinit> statics are accessed as they are, since the base view is what the fields hold;
 * no frame of existing code changes, as every replacement takes and leaves the same on the stack.
 */
package lantern.rewrite;

import java.security.ProtectionDomain;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import lantern.photon.Isolation;
import org.objectweb.asm.ClassReader;
import org.objectweb.asm.ClassVisitor;
import org.objectweb.asm.ClassWriter;
import org.objectweb.asm.Handle;
import org.objectweb.asm.Label;
import org.objectweb.asm.MethodVisitor;
import org.objectweb.asm.Opcodes;

/** See the head of this file. */
final class AppRewriter {
    private static final int CONSTANT_FIELD = 9;
    private static final int CONSTANT_METHOD = 10;
    private static final int CONSTANT_INTERFACE_METHOD = 11;
    private static final int CONSTANT_UTF8 = 1;
    private static final byte[] CLINIT = {'<', 'c', 'l', 'i', 'n', 'i', 't', '>'};

    private final Classes classes;
    private final Lists lists;
    private final ClassLoader loader;
    private final ProtectionDomain domain;
    private String owner;
    private boolean isInterface;
    private int version;
    private Map<String, ClassInfo.Static> own;
    private Map<String, Uses> uses = Map.of();
    private Statics statics;

    AppRewriter(Classes classes, Lists lists, ClassLoader loader, ProtectionDomain domain) {
        this.classes = classes;
        this.lists = lists;
        this.loader = loader;
        this.domain = domain;
    }

    /** The class's new bytes; null if it needs none. */
    byte[] rewrite(ClassReader reader) {
        owner = reader.getClassName();
        isInterface = (reader.getAccess() & Opcodes.ACC_INTERFACE) != 0;
        ClassInfo info = ClassInfo.of(reader, lists);
        classes.put(loader, owner, info);
        if (info.statics.isEmpty() && !concerned(reader)) {
            return null;
        }
        own = info.statics;
        version = reader.readUnsignedShort(6);
        if (!own.isEmpty()) {
            statics = new Statics(owner, Isolation.nextIndex(), version, own.values());
            uses = Uses.of(reader, own);
        }
        ClassWriter writer = new ClassWriter(reader, 0);
        Visitor visitor = new Visitor(writer);
        reader.accept(visitor, ClassReader.EXPAND_FRAMES);
        visitor.bridges();
        if (statics != null) {
            statics.accessors(writer);
            Isolation.define(loader, statics.holder().replace('/', '.'), statics.holderClass(), domain);
        }
        writer.visitEnd();
        return writer.toByteArray();
    }

    /** Whether the constant pool names an initialiser, an isolated static or a hooked method. */
    private boolean concerned(ClassReader reader) {
        char[] buffer = new char[reader.getMaxStringLength()];
        for (int i = 1; i < reader.getItemCount(); i++) {
            int at = reader.getItem(i);
            int tag = at == 0 ? 0 : reader.readByte(at - 1);
            if (tag == CONSTANT_UTF8 && isInitialiser(reader, at)) {
                return true;
            }
            if (tag == CONSTANT_FIELD || tag == CONSTANT_METHOD || tag == CONSTANT_INTERFACE_METHOD) {
                String on = reader.readClass(at, buffer);
                int nameAndType = reader.getItem(reader.readUnsignedShort(at + 2));
                String name = reader.readUTF8(nameAndType, buffer);
                String descriptor = reader.readUTF8(nameAndType + 2, buffer);
                if (tag == CONSTANT_FIELD ? Calls.hookedField(on, name) || classes.find(loader, on, name, descriptor) != null
                    : Calls.hooked(on, name, descriptor)) {
                    return true;
                }
            }
        }
        return false;
    }

    private static boolean isInitialiser(ClassReader reader, int at) {
        int length = reader.readUnsignedShort(at);
        for (int i = 0; length == CLINIT.length && i < length; i++) {
            if (reader.readByte(at + 2 + i) != CLINIT[i]) {
                return false;
            }
        }
        return length == CLINIT.length;
    }

    private final class Visitor extends ClassVisitor {
        private final Set<Calls.Bridge> bridges = new HashSet<>();

        Visitor(ClassWriter writer) {
            super(Opcodes.ASM9, writer);
        }

        @Override
        public MethodVisitor visitMethod(int access, String name, String descriptor, String signature, String[] exceptions) {
            MethodVisitor next = super.visitMethod(access, name, descriptor, signature, exceptions);
            if (name.equals("<clinit>")) {
                return new Initialiser(next);
            }
            Uses use = uses.get(name + descriptor);
            return use != null && use.keepsHolder() ? new HolderCode(next, use) : new Code(next);
        }

        @Override
        public void visitEnd() {
            // The writer's end comes after what is added.
        }

        void bridges() {
            for (Calls.Bridge bridge : bridges) {
                Calls.write(bridge, cv, version >= Opcodes.V1_6);
            }
        }

        /** Calls that are replaced in every method. */
        private class Hooked extends MethodVisitor {
            Hooked(MethodVisitor next) {
                super(Opcodes.ASM9, next);
            }

            @Override
            public void visitMethodInsn(int opcode, String on, String name, String descriptor, boolean itf) {
                Calls.Bridge bridge = Calls.bridge(on, name, descriptor);
                if (bridge != null) {
                    bridges.add(bridge);
                    super.visitMethodInsn(Opcodes.INVOKESTATIC, owner, bridge.name(), bridge.staticDescriptor(), isInterface);
                } else if (!Calls.replace(mv, opcode, on, name, descriptor)) {
                    super.visitMethodInsn(opcode, on, name, descriptor, itf);
                }
            }

            @Override
            public void visitFieldInsn(int opcode, String on, String name, String descriptor) {
                if (opcode == Opcodes.GETSTATIC && Calls.hookedField(on, name)) {
                    Calls.readField(mv, name, descriptor);
                } else {
                    super.visitFieldInsn(opcode, on, name, descriptor);
                }
            }

            @Override
            public void visitInvokeDynamicInsn(String name, String descriptor, Handle bootstrap, Object... arguments) {
                Object[] replaced = new Object[arguments.length];
                for (int i = 0; i < arguments.length; i++) {
                    replaced[i] = arguments[i] instanceof Handle ? handle((Handle) arguments[i]) : arguments[i];
                }
                super.visitInvokeDynamicInsn(name, descriptor, bootstrap, replaced);
            }

            private Handle handle(Handle handle) {
                Calls.Bridge bridge = Calls.bridge(handle.getOwner(), handle.getName(), handle.getDesc());
                if (bridge != null) {
                    bridges.add(bridge);
                    return new Handle(Opcodes.H_INVOKESTATIC, owner, bridge.name(), bridge.staticDescriptor(), isInterface);
                }
                Handle hook = Calls.replacement(handle);
                return hook == null ? handle : hook;
            }
        }

        /** A method that keeps its photon's holder in a local (Uses says which do). */
        private final class HolderCode extends Code {
            private final Uses use;

            HolderCode(MethodVisitor next, Uses use) {
                super(next);
                this.use = use;
            }

            @Override
            public void visitCode() {
                super.visitCode();
                mv.visitMethodInsn(Opcodes.INVOKESTATIC, owner, Statics.OWN, statics.ownDescriptor(), false);
                mv.visitVarInsn(Opcodes.ASTORE, use.local);
                for (int word = 0; word < statics.words(); word++) {
                    int mask = 0;
                    for (String field : use.ready) {
                        ClassInfo.Static used = own.get(field);
                        mask |= used.copied() && statics.word(used) == word ? statics.bit(used) : 0;
                    }
                    if (mask != 0) {
                        mv.visitVarInsn(Opcodes.ALOAD, use.local);
                        Statics.push(mv, mask);
                        mv.visitMethodInsn(Opcodes.INVOKESTATIC, owner, Statics.ENSURE + word, statics.ensureDescriptor(), false);
                    }
                }
            }

            @Override
            public void visitFieldInsn(int opcode, String on, String name, String descriptor) {
                boolean get = opcode == Opcodes.GETSTATIC;
                ClassInfo.Static field = (get || opcode == Opcodes.PUTSTATIC) && on.equals(owner)
                    ? own.get(name + descriptor) : null;
                if (field == null) {
                    super.visitFieldInsn(opcode, on, name, descriptor);
                    return;
                }
                boolean lazy = field.copied() && !use.ready.contains(name + descriptor);
                mv.visitVarInsn(Opcodes.ALOAD, use.local);
                mv.visitMethodInsn(Opcodes.INVOKESTATIC, owner,
                    (get ? lazy ? Statics.LAZY : Statics.READ : lazy ? Statics.LAZY_SET : Statics.WRITE) + name,
                    get ? statics.readDescriptor(field) : statics.writeDescriptor(field), false);
            }

            /** The holder is in every frame, after as many empty locals as it takes. */
            @Override
            public void visitFrame(int type, int locals, Object[] local, int stacks, Object[] stack) {
                List<Object> longer = new ArrayList<>();
                int slots = 0;
                for (int i = 0; i < locals; i++) {
                    longer.add(local[i]);
                    slots += local[i] == Opcodes.LONG || local[i] == Opcodes.DOUBLE ? 2 : 1;
                }
                for (; slots < use.local; slots++) {
                    longer.add(Opcodes.TOP);
                }
                longer.add(statics.holder());
                super.visitFrame(type, longer.size(), longer.toArray(), stacks, stack);
            }

            @Override
            public void visitMaxs(int stack, int locals) {
                super.visitMaxs(Math.max(2, stack + 1), locals + 1);
            }
        }

        /** Every other method but the initialiser. */
        private class Code extends Hooked {
            Code(MethodVisitor next) {
                super(next);
            }

            @Override
            public void visitFieldInsn(int opcode, String on, String name, String descriptor) {
                boolean get = opcode == Opcodes.GETSTATIC;
                if ((get || opcode == Opcodes.PUTSTATIC) && classes.find(loader, on, name, descriptor) != null) {
                    super.visitMethodInsn(Opcodes.INVOKESTATIC, on, (get ? Isolation.GETTER : Isolation.SETTER) + name,
                        get ? "()" + descriptor : "(" + descriptor + ")V", false);
                } else {
                    super.visitFieldInsn(opcode, on, name, descriptor);
                }
            }
        }

        /** The class initialiser: within enterInit and exitInit, however it ends. */
        private final class Initialiser extends Hooked {
            private final Label from = new Label();
            private final Label to = new Label();

            Initialiser(MethodVisitor next) {
                super(next);
            }

            private void call(String name) {
                mv.visitMethodInsn(Opcodes.INVOKESTATIC, Statics.PHOTONS, name, "()V", false);
            }

            @Override
            public void visitCode() {
                super.visitCode();
                call("enterInit");
                mv.visitLabel(from);
            }

            @Override
            public void visitInsn(int opcode) {
                if (opcode == Opcodes.RETURN) {
                    call("exitInit");
                }
                super.visitInsn(opcode);
            }

            @Override
            public void visitMaxs(int stack, int locals) {
                mv.visitLabel(to);
                Label thrown = new Label();
                // Last in the table: the initialiser's own handlers come first.
                mv.visitTryCatchBlock(from, to, thrown, null);
                mv.visitLabel(thrown);
                if (version >= Opcodes.V1_6) {
                    mv.visitFrame(Opcodes.F_NEW, 0, new Object[0], 1, new Object[] {"java/lang/Throwable"});
                }
                call("exitInit");
                mv.visitInsn(Opcodes.ATHROW);
                super.visitMaxs(Math.max(1, stack), locals);
            }
        }
    }
}
