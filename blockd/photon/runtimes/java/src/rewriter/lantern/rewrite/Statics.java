/*
 * Generates what an isolated class is given: a holder class with one instance field per isolated
 * static, and accessors in the class itself.
 *
 *     static X$$Lantern7 lantern$statics(Photon p)   p.table[7], or a new holder
 *     static T lantern$get$f()                       p == null ? X.f : statics(p).f
 *     static void lantern$set$f(T value)             the same for writing
 *
 * X.f stays and holds the initial value (the base view). A holder's field of a type that may be
 * mutable begins as Photon.UNSET, and is filled with a copy at its first read; it is then an Object
 * and cast when read. Invariants: fill and the first set exclude each other by the holder's lock,
 * so no write is lost; the accessors are small enough for the JIT to inline.
 */
package lantern.rewrite;

import java.util.Collection;
import java.util.Set;
import lantern.photon.Isolation;
import lantern.rewrite.ClassInfo.Static;
import org.objectweb.asm.ClassVisitor;
import org.objectweb.asm.ClassWriter;
import org.objectweb.asm.Label;
import org.objectweb.asm.MethodVisitor;
import org.objectweb.asm.Opcodes;
import org.objectweb.asm.Type;

/** Generator of holders and accessors; see the head of this file. */
final class Statics {
    static final String PHOTON = "lantern/photon/Photon";
    static final String PHOTONS = "lantern/photon/Photons";
    private static final String OBJECT = "Ljava/lang/Object;";
    private static final String STATICS = "lantern$statics";
    private static final int SYNTHETIC_STATIC = Opcodes.ACC_STATIC | Opcodes.ACC_SYNTHETIC;
    /** Declared types whose values cannot change, so that the reference itself is the copy. */
    private static final Set<String> IMMUTABLE = Set.of("Ljava/lang/String;", "Ljava/lang/Integer;", "Ljava/lang/Long;",
        "Ljava/lang/Boolean;", "Ljava/lang/Double;", "Ljava/lang/Float;", "Ljava/lang/Short;", "Ljava/lang/Byte;",
        "Ljava/lang/Character;", "Ljava/lang/Class;", "Ljava/util/UUID;", "Ljava/util/Locale;",
        "Ljava/util/regex/Pattern;", "Ljava/lang/ThreadLocal;", "Ljava/time/Instant;", "Ljava/time/Duration;");

    private final String owner;
    private final String holder;
    private final int index;
    private final boolean frames;

    Statics(String owner, int index, int version) {
        this.owner = owner;
        this.index = index;
        this.holder = owner + Isolation.HOLDER + index;
        this.frames = (version & 0xffff) >= Opcodes.V1_6;
    }

    static boolean copied(String descriptor) {
        return descriptor.length() > 1 && !IMMUTABLE.contains(descriptor);
    }

    String holderName() {
        return holder.replace('/', '.');
    }

    private static String fieldType(Static field) {
        return field.copied() ? OBJECT : field.descriptor;
    }

    /** The holder class. */
    byte[] holder(Collection<Static> statics) {
        ClassWriter writer = new ClassWriter(ClassWriter.COMPUTE_MAXS);
        writer.visit(Opcodes.V1_8, Opcodes.ACC_FINAL | Opcodes.ACC_SUPER | Opcodes.ACC_SYNTHETIC, holder, null,
            "java/lang/Object", null);
        MethodVisitor init = writer.visitMethod(0, "<init>", "()V", null, null);
        init.visitCode();
        init.visitVarInsn(Opcodes.ALOAD, 0);
        init.visitMethodInsn(Opcodes.INVOKESPECIAL, "java/lang/Object", "<init>", "()V", false);
        init.visitInsn(Opcodes.RETURN);
        init.visitMaxs(0, 0);
        init.visitEnd();
        for (Static field : statics) {
            writer.visitField(field.isVolatile ? Opcodes.ACC_VOLATILE : 0, field.name, fieldType(field), null, null);
            if (field.copied()) {
                fill(writer, field);
                firstSet(writer, field);
            }
        }
        writer.visitEnd();
        return writer.toByteArray();
    }

    private void fill(ClassWriter writer, Static field) {
        MethodVisitor code = writer.visitMethod(Opcodes.ACC_SYNCHRONIZED, "fill$" + field.name,
            "(L" + PHOTON + ";" + OBJECT + ")" + OBJECT, null, null);
        code.visitCode();
        Label filled = new Label();
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitFieldInsn(Opcodes.GETFIELD, holder, field.name, OBJECT);
        code.visitFieldInsn(Opcodes.GETSTATIC, PHOTON, "UNSET", OBJECT);
        code.visitJumpInsn(Opcodes.IF_ACMPNE, filled);
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitVarInsn(Opcodes.ALOAD, 1);
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitLdcInsn(field.name);
        code.visitVarInsn(Opcodes.ALOAD, 2);
        code.visitMethodInsn(Opcodes.INVOKEVIRTUAL, PHOTON, "copy",
            "(" + OBJECT + "Ljava/lang/String;" + OBJECT + ")" + OBJECT, false);
        code.visitFieldInsn(Opcodes.PUTFIELD, holder, field.name, OBJECT);
        code.visitLabel(filled);
        code.visitFrame(Opcodes.F_SAME, 0, null, 0, null);
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitFieldInsn(Opcodes.GETFIELD, holder, field.name, OBJECT);
        code.visitInsn(Opcodes.ARETURN);
        code.visitMaxs(0, 0);
        code.visitEnd();
    }

    private void firstSet(ClassWriter writer, Static field) {
        MethodVisitor code = writer.visitMethod(Opcodes.ACC_SYNCHRONIZED, "set$" + field.name, "(" + OBJECT + ")V", null, null);
        code.visitCode();
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitVarInsn(Opcodes.ALOAD, 1);
        code.visitFieldInsn(Opcodes.PUTFIELD, holder, field.name, OBJECT);
        code.visitInsn(Opcodes.RETURN);
        code.visitMaxs(0, 0);
        code.visitEnd();
    }

    /** The accessors, into the class itself. */
    void accessors(ClassVisitor target, Collection<Static> statics) {
        statics(target, statics);
        for (Static field : statics) {
            getter(target, field);
            setter(target, field);
        }
    }

    private void statics(ClassVisitor target, Collection<Static> statics) {
        MethodVisitor code = target.visitMethod(Opcodes.ACC_PRIVATE | SYNTHETIC_STATIC, STATICS,
            "(L" + PHOTON + ";)L" + holder + ";", null, null);
        code.visitCode();
        Label slow = new Label();
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitFieldInsn(Opcodes.GETFIELD, PHOTON, "table", "[" + OBJECT);
        code.visitVarInsn(Opcodes.ASTORE, 1);
        push(code, index);
        code.visitVarInsn(Opcodes.ALOAD, 1);
        code.visitInsn(Opcodes.ARRAYLENGTH);
        code.visitJumpInsn(Opcodes.IF_ICMPGE, slow);
        code.visitVarInsn(Opcodes.ALOAD, 1);
        push(code, index);
        code.visitInsn(Opcodes.AALOAD);
        code.visitVarInsn(Opcodes.ASTORE, 2);
        code.visitVarInsn(Opcodes.ALOAD, 2);
        code.visitJumpInsn(Opcodes.IFNULL, slow);
        code.visitVarInsn(Opcodes.ALOAD, 2);
        code.visitTypeInsn(Opcodes.CHECKCAST, holder);
        code.visitInsn(Opcodes.ARETURN);
        code.visitLabel(slow);
        frame(code, new Object[] {PHOTON, "[Ljava/lang/Object;"}, new Object[0]);
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitMethodInsn(Opcodes.INVOKESTATIC, owner, STATICS + "$new", "(L" + PHOTON + ";)L" + holder + ";", false);
        code.visitInsn(Opcodes.ARETURN);
        code.visitMaxs(2, 3);
        code.visitEnd();
        create(target, statics);
    }

    private void create(ClassVisitor target, Collection<Static> statics) {
        MethodVisitor code = target.visitMethod(Opcodes.ACC_PRIVATE | SYNTHETIC_STATIC, STATICS + "$new",
            "(L" + PHOTON + ";)L" + holder + ";", null, null);
        code.visitCode();
        code.visitTypeInsn(Opcodes.NEW, holder);
        code.visitInsn(Opcodes.DUP);
        code.visitMethodInsn(Opcodes.INVOKESPECIAL, holder, "<init>", "()V", false);
        code.visitVarInsn(Opcodes.ASTORE, 1);
        for (Static field : statics) {
            code.visitVarInsn(Opcodes.ALOAD, 1);
            if (field.copied()) {
                code.visitFieldInsn(Opcodes.GETSTATIC, PHOTON, "UNSET", OBJECT);
            } else {
                code.visitFieldInsn(Opcodes.GETSTATIC, owner, field.name, field.descriptor);
            }
            code.visitFieldInsn(Opcodes.PUTFIELD, holder, field.name, fieldType(field));
        }
        code.visitVarInsn(Opcodes.ALOAD, 0);
        push(code, index);
        code.visitVarInsn(Opcodes.ALOAD, 1);
        code.visitMethodInsn(Opcodes.INVOKEVIRTUAL, PHOTON, "publish", "(I" + OBJECT + ")" + OBJECT, false);
        code.visitTypeInsn(Opcodes.CHECKCAST, holder);
        code.visitInsn(Opcodes.ARETURN);
        code.visitMaxs(3, 2);
        code.visitEnd();
    }

    private void getter(ClassVisitor target, Static field) {
        Type type = Type.getType(field.descriptor);
        MethodVisitor code = target.visitMethod(Opcodes.ACC_PUBLIC | SYNTHETIC_STATIC, Isolation.GETTER + field.name,
            "()" + field.descriptor, null, null);
        code.visitCode();
        Label inPhoton = current(code, 0);
        code.visitFieldInsn(Opcodes.GETSTATIC, owner, field.name, field.descriptor);
        code.visitInsn(type.getOpcode(Opcodes.IRETURN));
        code.visitLabel(inPhoton);
        frame(code, new Object[] {PHOTON}, new Object[0]);
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitMethodInsn(Opcodes.INVOKESTATIC, owner, STATICS, "(L" + PHOTON + ";)L" + holder + ";", false);
        if (field.copied()) {
            code.visitVarInsn(Opcodes.ASTORE, 1);
            code.visitVarInsn(Opcodes.ALOAD, 1);
            code.visitFieldInsn(Opcodes.GETFIELD, holder, field.name, OBJECT);
            code.visitVarInsn(Opcodes.ASTORE, 2);
            Label ready = new Label();
            code.visitVarInsn(Opcodes.ALOAD, 2);
            code.visitFieldInsn(Opcodes.GETSTATIC, PHOTON, "UNSET", OBJECT);
            code.visitJumpInsn(Opcodes.IF_ACMPNE, ready);
            code.visitVarInsn(Opcodes.ALOAD, 1);
            code.visitVarInsn(Opcodes.ALOAD, 0);
            code.visitFieldInsn(Opcodes.GETSTATIC, owner, field.name, field.descriptor);
            code.visitMethodInsn(Opcodes.INVOKEVIRTUAL, holder, "fill$" + field.name,
                "(L" + PHOTON + ";" + OBJECT + ")" + OBJECT, false);
            code.visitVarInsn(Opcodes.ASTORE, 2);
            code.visitLabel(ready);
            frame(code, new Object[] {PHOTON, holder, "java/lang/Object"}, new Object[0]);
            code.visitVarInsn(Opcodes.ALOAD, 2);
            code.visitTypeInsn(Opcodes.CHECKCAST, type.getInternalName());
        } else {
            code.visitFieldInsn(Opcodes.GETFIELD, holder, field.name, field.descriptor);
        }
        code.visitInsn(type.getOpcode(Opcodes.IRETURN));
        code.visitMaxs(3, 3);
        code.visitEnd();
    }

    private void setter(ClassVisitor target, Static field) {
        Type type = Type.getType(field.descriptor);
        MethodVisitor code = target.visitMethod(Opcodes.ACC_PUBLIC | SYNTHETIC_STATIC, Isolation.SETTER + field.name,
            "(" + field.descriptor + ")V", null, null);
        code.visitCode();
        int photon = type.getSize();
        Object local = local(type);
        Label inPhoton = current(code, photon);
        code.visitVarInsn(type.getOpcode(Opcodes.ILOAD), 0);
        code.visitFieldInsn(Opcodes.PUTSTATIC, owner, field.name, field.descriptor);
        code.visitInsn(Opcodes.RETURN);
        code.visitLabel(inPhoton);
        frame(code, new Object[] {local, PHOTON}, new Object[0]);
        code.visitVarInsn(Opcodes.ALOAD, photon);
        code.visitMethodInsn(Opcodes.INVOKESTATIC, owner, STATICS, "(L" + PHOTON + ";)L" + holder + ";", false);
        if (field.copied()) {
            code.visitVarInsn(Opcodes.ASTORE, 2);
            Label ready = new Label();
            code.visitVarInsn(Opcodes.ALOAD, 2);
            code.visitFieldInsn(Opcodes.GETFIELD, holder, field.name, OBJECT);
            code.visitFieldInsn(Opcodes.GETSTATIC, PHOTON, "UNSET", OBJECT);
            code.visitJumpInsn(Opcodes.IF_ACMPNE, ready);
            code.visitVarInsn(Opcodes.ALOAD, 2);
            code.visitVarInsn(Opcodes.ALOAD, 0);
            code.visitMethodInsn(Opcodes.INVOKEVIRTUAL, holder, "set$" + field.name, "(" + OBJECT + ")V", false);
            code.visitInsn(Opcodes.RETURN);
            code.visitLabel(ready);
            frame(code, new Object[] {local, PHOTON, holder}, new Object[0]);
            code.visitVarInsn(Opcodes.ALOAD, 2);
        }
        code.visitVarInsn(type.getOpcode(Opcodes.ILOAD), 0);
        code.visitFieldInsn(Opcodes.PUTFIELD, holder, field.name, fieldType(field));
        code.visitInsn(Opcodes.RETURN);
        code.visitMaxs(3, photon + 2);
        code.visitEnd();
    }

    /** Stores the current photon in a local; the label is where to go on if there is one. */
    private static Label current(MethodVisitor code, int local) {
        Label inPhoton = new Label();
        code.visitMethodInsn(Opcodes.INVOKESTATIC, PHOTONS, "current", "()L" + PHOTON + ";", false);
        code.visitVarInsn(Opcodes.ASTORE, local);
        code.visitVarInsn(Opcodes.ALOAD, local);
        code.visitJumpInsn(Opcodes.IFNONNULL, inPhoton);
        return inPhoton;
    }

    private static Object local(Type type) {
        switch (type.getSort()) {
            case Type.LONG:
                return Opcodes.LONG;
            case Type.DOUBLE:
                return Opcodes.DOUBLE;
            case Type.FLOAT:
                return Opcodes.FLOAT;
            case Type.ARRAY:
            case Type.OBJECT:
                return type.getInternalName();
            default:
                return Opcodes.INTEGER;
        }
    }

    /** Old class files have no frames, and their verifier infers them. */
    private void frame(MethodVisitor code, Object[] locals, Object[] stack) {
        if (frames) {
            code.visitFrame(Opcodes.F_FULL, locals.length, locals, stack.length, stack);
        }
    }

    private static void push(MethodVisitor code, int value) {
        if (value <= Short.MAX_VALUE) {
            code.visitIntInsn(Opcodes.SIPUSH, value);
        } else {
            code.visitLdcInsn(value);
        }
    }
}
