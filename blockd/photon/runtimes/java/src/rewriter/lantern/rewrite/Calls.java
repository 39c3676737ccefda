/*
 * Which calls into the JDK are replaced in application classes, and by what.
 *
 * Field.get and set (of any type) become bridges, private methods of the calling class, because the
 * JDK checks access against its caller: the bridge makes the original call first, or for a set the
 * original read, and takes the photon's view of an isolated field after that. The others, and reads
 * of the standard streams, become calls of static methods of Hooks.
 */
package lantern.rewrite;

import java.util.Map;
import java.util.Objects;
import org.objectweb.asm.ClassVisitor;
import org.objectweb.asm.Handle;
import org.objectweb.asm.Label;
import org.objectweb.asm.MethodVisitor;
import org.objectweb.asm.Opcodes;
import org.objectweb.asm.Type;

/** The table of replaced calls; see the head of this file. */
final class Calls {
    private static final String FIELD = "java/lang/reflect/Field";
    private static final String LOOKUP = "java/lang/invoke/MethodHandles$Lookup";
    private static final String SYSTEM = "java/lang/System";
    private static final String HOOKS = "lantern/photon/Hooks";
    private static final String GOT = "(Ljava/lang/reflect/Field;%1$s)%1$s";
    private static final Map<String, String> BOXES = Map.of("Z", "java/lang/Boolean", "C", "java/lang/Character", "B",
        "java/lang/Byte", "S", "java/lang/Short", "I", "java/lang/Integer", "J", "java/lang/Long", "F", "java/lang/Float",
        "D", "java/lang/Double");

    private Calls() {}

    static boolean hooked(String owner, String name, String descriptor) {
        return bridge(owner, name, descriptor) != null || hook(owner, name) || inherits(owner, name, descriptor)
            || unsafe(owner, name);
    }

    /** A call to Field.getX or Field.setX. */
    static final class Bridge {
        private final String method;
        private final String descriptor;

        Bridge(String method, String descriptor) {
            this.method = method;
            this.descriptor = descriptor;
        }

        String name() {
            return "lantern$field$" + method;
        }

        String staticDescriptor() {
            return "(L" + FIELD + ";" + descriptor.substring(1);
        }

        @Override
        public boolean equals(Object other) {
            return other instanceof Bridge && ((Bridge) other).method.equals(method);
        }

        @Override
        public int hashCode() {
            return Objects.hashCode(method);
        }
    }

    static Bridge bridge(String owner, String name, String descriptor) {
        boolean get = name.startsWith("get") && descriptor.startsWith("(Ljava/lang/Object;)");
        boolean set = name.startsWith("set") && descriptor.startsWith("(Ljava/lang/Object;") && descriptor.endsWith(")V");
        return owner.equals(FIELD) && (get || set) ? new Bridge(name, descriptor) : null;
    }

    static void write(Bridge bridge, ClassVisitor target, boolean frames) {
        MethodVisitor code = target.visitMethod(Opcodes.ACC_PRIVATE | Opcodes.ACC_STATIC | Opcodes.ACC_SYNTHETIC,
            bridge.name(), bridge.staticDescriptor(), null,
            new String[] {"java/lang/IllegalAccessException"});
        code.visitCode();
        if (bridge.method.startsWith("get")) {
            String type = Type.getReturnType(bridge.descriptor).getDescriptor();
            code.visitVarInsn(Opcodes.ALOAD, 0);
            code.visitVarInsn(Opcodes.ALOAD, 0);
            code.visitVarInsn(Opcodes.ALOAD, 1);
            code.visitMethodInsn(Opcodes.INVOKEVIRTUAL, FIELD, bridge.method, bridge.descriptor, false);
            code.visitMethodInsn(Opcodes.INVOKESTATIC, HOOKS, "got", String.format(GOT, type), false);
            code.visitInsn(Type.getType(type).getOpcode(Opcodes.IRETURN));
            code.visitMaxs(4, 2);
        } else {
            set(code, bridge, frames);
        }
        code.visitEnd();
    }

    private static void set(MethodVisitor code, Bridge bridge, boolean frames) {
        Type type = Type.getArgumentTypes(bridge.descriptor)[1];
        Label ordinary = new Label();
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitMethodInsn(Opcodes.INVOKESTATIC, HOOKS, "isolated", "(L" + FIELD + ";)Z", false);
        code.visitJumpInsn(Opcodes.IFEQ, ordinary);
        // For its access check and for the class to be initialised.
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitVarInsn(Opcodes.ALOAD, 1);
        code.visitMethodInsn(Opcodes.INVOKEVIRTUAL, FIELD, "get", "(Ljava/lang/Object;)Ljava/lang/Object;", false);
        code.visitInsn(Opcodes.POP);
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitVarInsn(type.getOpcode(Opcodes.ILOAD), 2);
        String box = BOXES.get(type.getDescriptor());
        if (box != null) {
            code.visitMethodInsn(Opcodes.INVOKESTATIC, box, "valueOf", "(" + type.getDescriptor() + ")L" + box + ";", false);
        }
        code.visitMethodInsn(Opcodes.INVOKESTATIC, HOOKS, "set", "(L" + FIELD + ";Ljava/lang/Object;)V", false);
        code.visitInsn(Opcodes.RETURN);
        code.visitLabel(ordinary);
        if (frames) {
            code.visitFrame(Opcodes.F_SAME, 0, null, 0, null);
        }
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitVarInsn(Opcodes.ALOAD, 1);
        code.visitVarInsn(type.getOpcode(Opcodes.ILOAD), 2);
        code.visitMethodInsn(Opcodes.INVOKEVIRTUAL, FIELD, bridge.method, bridge.descriptor, false);
        code.visitInsn(Opcodes.RETURN);
        code.visitMaxs(5, 2 + type.getSize());
    }

    /** Writes what replaces a call; false if it is to stay. */
    static boolean replace(MethodVisitor code, int opcode, String owner, String name, String descriptor) {
        if (inherits(owner, name, descriptor)) {
            // The boolean is on top of the stack.
            code.visitMethodInsn(Opcodes.INVOKESTATIC, HOOKS, "inherit", "(Z)Z", false);
            return false;
        }
        if (unsafe(owner, name)) {
            code.visitInsn(Opcodes.DUP);
            code.visitMethodInsn(Opcodes.INVOKESTATIC, HOOKS, "unsafe", "(L" + FIELD + ";)V", false);
            return false;
        }
        if (!hook(owner, name)) {
            return false;
        }
        code.visitMethodInsn(Opcodes.INVOKESTATIC, HOOKS, name,
            opcode == Opcodes.INVOKESTATIC ? descriptor : "(L" + owner + ";" + descriptor.substring(1), false);
        return true;
    }

    /** What replaces a method handle in the constant pool (a method reference); null if it is to stay. */
    static Handle replacement(Handle handle) {
        if (!hook(handle.getOwner(), handle.getName())) {
            return null;
        }
        boolean isStatic = handle.getTag() == Opcodes.H_INVOKESTATIC;
        return new Handle(Opcodes.H_INVOKESTATIC, HOOKS, handle.getName(),
            isStatic ? handle.getDesc() : "(L" + handle.getOwner() + ";" + handle.getDesc().substring(1), false);
    }

    private static boolean hook(String owner, String name) {
        switch (owner) {
            case LOOKUP:
                return name.equals("findStaticGetter") || name.equals("findStaticSetter")
                    || name.equals("findStaticVarHandle") || name.equals("unreflectGetter")
                    || name.equals("unreflectSetter") || name.equals("unreflectVarHandle");
            case SYSTEM:
                return name.equals("exit") || name.equals("setOut") || name.equals("setErr") || name.equals("setIn");
            case "java/lang/Runtime":
                return name.equals("exit") || name.equals("halt");
            default:
                return false;
        }
    }

    /** Whether a field read is replaced: the standard streams. */
    static boolean hookedField(String owner, String name) {
        return owner.equals(SYSTEM) && (name.equals("out") || name.equals("err") || name.equals("in"));
    }

    /** Writes what replaces such a read. */
    static void readField(MethodVisitor code, String name, String descriptor) {
        code.visitMethodInsn(Opcodes.INVOKESTATIC, HOOKS, name, "()" + descriptor, false);
    }

    private static boolean inherits(String owner, String name, String descriptor) {
        return owner.equals("java/lang/Thread") && name.equals("<init>") && descriptor.endsWith("JZ)V")
            || owner.startsWith("java/lang/Thread$Builder") && name.equals("inheritInheritableThreadLocals");
    }

    private static boolean unsafe(String owner, String name) {
        return owner.equals("sun/misc/Unsafe") && (name.equals("staticFieldOffset") || name.equals("staticFieldBase"));
    }
}
