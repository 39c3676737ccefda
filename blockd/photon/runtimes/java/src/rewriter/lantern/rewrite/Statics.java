/*
 * Generates what an isolated class is given: a holder class with one instance field per isolated
 * static, and accessors in the class itself.
 *
 *     lantern$own()            this photon's holder; null in the base view
 *     lantern$read$f(h)        h == null ? X.f : h.f                        (lantern$write$f(v, h))
 *     lantern$lazy$f(h)        the same, after a copy if there is none yet  (lantern$lazyset$f(v, h))
 *     lantern$ensure$w(h, m)   copies what is not yet copied of the fields in mask m of word w
 *     lantern$get$f()          lazy(own()), for other classes               (lantern$set$f(v))
 *
 * X.f stays and holds the initial value (the base view). Fields of types that may be mutable are
 * copied one by one at first use: a bit in the holder's `lantern$filled$w` says that one is there.
 * Invariants: filling and setting take the holder's lock for their last step, and filling leaves
 * alone what was set, so no write is lost; copies are made before that lock is taken, so that no
 * code but ours ever runs under it (Photon says why); the bit is volatile and set last, so who sees
 * it sees the copy; every accessor is small enough for the JIT to inline, and those on a holder
 * leave loads that it can move out of loops.
 */
package lantern.rewrite;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
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
    static final String OWN = "lantern$own";
    static final String READ = "lantern$read$";
    static final String WRITE = "lantern$write$";
    static final String LAZY = "lantern$lazy$";
    static final String LAZY_SET = "lantern$lazyset$";
    static final String ENSURE = "lantern$ensure$";
    private static final String FILLED = "lantern$filled$";
    private static final String OBJECT = "Ljava/lang/Object;";
    private static final int WORD_BITS = 32;
    private static final int PRIVATE = Opcodes.ACC_PRIVATE | Opcodes.ACC_STATIC | Opcodes.ACC_SYNTHETIC;
    private static final int PUBLIC = Opcodes.ACC_PUBLIC | Opcodes.ACC_STATIC | Opcodes.ACC_SYNTHETIC;
    /** Declared types whose values cannot change, so that the reference itself is the copy. */
    private static final Set<String> IMMUTABLE = Set.of("Ljava/lang/String;", "Ljava/lang/Integer;", "Ljava/lang/Long;",
        "Ljava/lang/Boolean;", "Ljava/lang/Double;", "Ljava/lang/Float;", "Ljava/lang/Short;", "Ljava/lang/Byte;",
        "Ljava/lang/Character;", "Ljava/lang/Class;", "Ljava/util/UUID;", "Ljava/util/Locale;",
        "Ljava/util/regex/Pattern;", "Ljava/lang/ThreadLocal;", "Ljava/time/Instant;", "Ljava/time/Duration;");

    private final String owner;
    private final String holder;
    private final int index;
    private final boolean frames;
    private final Collection<Static> statics;
    private final List<Static> copied = new ArrayList<>();

    Statics(String owner, int index, int version, Collection<Static> statics) {
        this.owner = owner;
        this.index = index;
        this.holder = owner + Isolation.HOLDER + index;
        this.frames = (version & 0xffff) >= Opcodes.V1_6;
        this.statics = statics;
        for (Static field : statics) {
            if (field.copied()) {
                copied.add(field);
            }
        }
    }

    /** Whether values of a declared type may be objects that change. */
    static boolean copied(String descriptor) {
        return descriptor.length() > 1 && !IMMUTABLE.contains(descriptor);
    }

    String holder() {
        return holder;
    }

    int words() {
        return (copied.size() + WORD_BITS - 1) / WORD_BITS;
    }

    int word(Static field) {
        return copied.indexOf(field) / WORD_BITS;
    }

    int bit(Static field) {
        return 1 << copied.indexOf(field) % WORD_BITS;
    }

    String ownDescriptor() {
        return "()L" + holder + ";";
    }

    String readDescriptor(Static field) {
        return "(L" + holder + ";)" + field.descriptor;
    }

    String writeDescriptor(Static field) {
        return "(" + field.descriptor + "L" + holder + ";)V";
    }

    String ensureDescriptor() {
        return "(L" + holder + ";I)V";
    }

    /** The holder class. */
    byte[] holderClass() {
        ClassWriter writer = new ClassWriter(ClassWriter.COMPUTE_MAXS);
        writer.visit(Opcodes.V1_8, Opcodes.ACC_FINAL | Opcodes.ACC_SUPER | Opcodes.ACC_SYNTHETIC, holder, null,
            "java/lang/Object", null);
        MethodVisitor init = writer.visitMethod(0, "<init>", "()V", null, null);
        init.visitCode();
        init.visitVarInsn(Opcodes.ALOAD, 0);
        init.visitMethodInsn(Opcodes.INVOKESPECIAL, "java/lang/Object", "<init>", "()V", false);
        end(init, Opcodes.RETURN);
        for (int word = 0; word < words(); word++) {
            writer.visitField(Opcodes.ACC_VOLATILE, FILLED + word, "I", null, null);
        }
        for (Static field : statics) {
            writer.visitField(field.isVolatile ? Opcodes.ACC_VOLATILE : 0, field.name, field.descriptor, null, null);
        }
        for (Static field : copied) {
            fill(writer, field);
            firstSet(writer, field, false);
            firstSet(writer, field, true);
        }
        writer.visitEnd();
        return writer.toByteArray();
    }

    /** fill$f(photon, base): unless the field has been set, makes the copy and hands it to first$f. */
    private void fill(ClassWriter writer, Static field) {
        MethodVisitor code = writer.visitMethod(0, "fill$" + field.name, "(L" + PHOTON + ";" + OBJECT + ")V", null, null);
        code.visitCode();
        Label filled = new Label();
        testBit(code, 0, field);
        code.visitJumpInsn(Opcodes.IFNE, filled);
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitVarInsn(Opcodes.ALOAD, 1);
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitLdcInsn(field.name);
        code.visitVarInsn(Opcodes.ALOAD, 2);
        code.visitMethodInsn(Opcodes.INVOKEVIRTUAL, PHOTON, "copy",
            "(" + OBJECT + "Ljava/lang/String;" + OBJECT + ")" + OBJECT, false);
        code.visitTypeInsn(Opcodes.CHECKCAST, Type.getType(field.descriptor).getInternalName());
        code.visitMethodInsn(Opcodes.INVOKEVIRTUAL, holder, "first$" + field.name, "(" + field.descriptor + ")V", false);
        code.visitLabel(filled);
        code.visitFrame(Opcodes.F_SAME, 0, null, 0, null);
        end(code, Opcodes.RETURN);
    }

    /** first$f(v) sets the field unless it has been; set$f(v) in any case. */
    private void firstSet(ClassWriter writer, Static field, boolean always) {
        MethodVisitor code = writer.visitMethod(Opcodes.ACC_SYNCHRONIZED, (always ? "set$" : "first$") + field.name,
            "(" + field.descriptor + ")V", null, null);
        code.visitCode();
        Label filled = new Label();
        if (!always) {
            testBit(code, 0, field);
            code.visitJumpInsn(Opcodes.IFNE, filled);
        }
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitVarInsn(Opcodes.ALOAD, 1);
        code.visitFieldInsn(Opcodes.PUTFIELD, holder, field.name, field.descriptor);
        setBit(code, field);
        if (!always) {
            code.visitLabel(filled);
            code.visitFrame(Opcodes.F_SAME, 0, null, 0, null);
        }
        end(code, Opcodes.RETURN);
    }

    /** Leaves non-zero on the stack if the holder in a local has this field. */
    private void testBit(MethodVisitor code, int local, Static field) {
        code.visitVarInsn(Opcodes.ALOAD, local);
        code.visitFieldInsn(Opcodes.GETFIELD, holder, FILLED + word(field), "I");
        push(code, bit(field));
        code.visitInsn(Opcodes.IAND);
    }

    private void setBit(MethodVisitor code, Static field) {
        String filled = FILLED + word(field);
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitFieldInsn(Opcodes.GETFIELD, holder, filled, "I");
        push(code, bit(field));
        code.visitInsn(Opcodes.IOR);
        code.visitFieldInsn(Opcodes.PUTFIELD, holder, filled, "I");
    }

    /** The accessors, into the class itself. */
    void accessors(ClassVisitor target) {
        own(target);
        create(target);
        for (int word = 0; word < words(); word++) {
            ensure(target, word);
            ensureSlow(target, word);
        }
        for (Static field : statics) {
            read(target, field);
            write(target, field);
            if (field.copied()) {
                lazy(target, field);
                lazySet(target, field);
            }
            forOthers(target, field);
        }
    }

    private MethodVisitor method(ClassVisitor target, int access, String name, String descriptor) {
        MethodVisitor code = target.visitMethod(access, name, descriptor, null, null);
        code.visitCode();
        return code;
    }

    /** Callers' ClassWriter computes no sizes, so they are generous: nothing here needs more. */
    private static void end(MethodVisitor code, int instruction) {
        code.visitInsn(instruction);
        code.visitMaxs(6, 6);
        code.visitEnd();
    }

    private void own(ClassVisitor target) {
        MethodVisitor code = method(target, PRIVATE, OWN, ownDescriptor());
        Label inPhoton = new Label();
        Label slow = new Label();
        code.visitMethodInsn(Opcodes.INVOKESTATIC, PHOTONS, "current", "()L" + PHOTON + ";", false);
        code.visitVarInsn(Opcodes.ASTORE, 0);
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitJumpInsn(Opcodes.IFNONNULL, inPhoton);
        code.visitInsn(Opcodes.ACONST_NULL);
        code.visitInsn(Opcodes.ARETURN);
        code.visitLabel(inPhoton);
        frame(code, PHOTON);
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
        frame(code, PHOTON, "[Ljava/lang/Object;");
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitMethodInsn(Opcodes.INVOKESTATIC, owner, OWN + "$new", "(L" + PHOTON + ";)L" + holder + ";", false);
        end(code, Opcodes.ARETURN);
    }

    private void create(ClassVisitor target) {
        MethodVisitor code = method(target, PRIVATE, OWN + "$new", "(L" + PHOTON + ";)L" + holder + ";");
        code.visitTypeInsn(Opcodes.NEW, holder);
        code.visitInsn(Opcodes.DUP);
        code.visitMethodInsn(Opcodes.INVOKESPECIAL, holder, "<init>", "()V", false);
        code.visitVarInsn(Opcodes.ASTORE, 1);
        for (Static field : statics) {
            if (!field.copied()) {
                code.visitVarInsn(Opcodes.ALOAD, 1);
                code.visitFieldInsn(Opcodes.GETSTATIC, owner, field.name, field.descriptor);
                code.visitFieldInsn(Opcodes.PUTFIELD, holder, field.name, field.descriptor);
            }
        }
        code.visitVarInsn(Opcodes.ALOAD, 0);
        push(code, index);
        code.visitVarInsn(Opcodes.ALOAD, 1);
        code.visitMethodInsn(Opcodes.INVOKEVIRTUAL, PHOTON, "publish", "(I" + OBJECT + ")" + OBJECT, false);
        code.visitTypeInsn(Opcodes.CHECKCAST, holder);
        end(code, Opcodes.ARETURN);
    }

    private void ensure(ClassVisitor target, int word) {
        MethodVisitor code = method(target, PRIVATE, ENSURE + word, ensureDescriptor());
        Label done = new Label();
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitJumpInsn(Opcodes.IFNULL, done);
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitFieldInsn(Opcodes.GETFIELD, holder, FILLED + word, "I");
        code.visitVarInsn(Opcodes.ILOAD, 1);
        code.visitInsn(Opcodes.IAND);
        code.visitVarInsn(Opcodes.ILOAD, 1);
        code.visitJumpInsn(Opcodes.IF_ICMPEQ, done);
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitVarInsn(Opcodes.ILOAD, 1);
        code.visitMethodInsn(Opcodes.INVOKESTATIC, owner, ENSURE + "slow$" + word, ensureDescriptor(), false);
        code.visitLabel(done);
        frame(code, holder, Opcodes.INTEGER);
        end(code, Opcodes.RETURN);
    }

    private void ensureSlow(ClassVisitor target, int word) {
        MethodVisitor code = method(target, PRIVATE, ENSURE + "slow$" + word, ensureDescriptor());
        for (Static field : copied) {
            if (word(field) == word) {
                Label next = new Label();
                code.visitVarInsn(Opcodes.ILOAD, 1);
                push(code, bit(field));
                code.visitInsn(Opcodes.IAND);
                code.visitJumpInsn(Opcodes.IFEQ, next);
                fillFrom(code, field, 0);
                code.visitLabel(next);
                frame(code, holder, Opcodes.INTEGER);
            }
        }
        end(code, Opcodes.RETURN);
    }

    /** Fills a field of the holder in a local with a copy of the initial value. */
    private void fillFrom(MethodVisitor code, Static field, int local) {
        code.visitVarInsn(Opcodes.ALOAD, local);
        code.visitMethodInsn(Opcodes.INVOKESTATIC, PHOTONS, "current", "()L" + PHOTON + ";", false);
        code.visitFieldInsn(Opcodes.GETSTATIC, owner, field.name, field.descriptor);
        code.visitMethodInsn(Opcodes.INVOKEVIRTUAL, holder, "fill$" + field.name, "(L" + PHOTON + ";" + OBJECT + ")V", false);
    }

    /** The base view, if the holder in a local is null; the label is where to go on if it is not. */
    private Label readBase(MethodVisitor code, Static field) {
        Label inPhoton = new Label();
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitJumpInsn(Opcodes.IFNONNULL, inPhoton);
        code.visitFieldInsn(Opcodes.GETSTATIC, owner, field.name, field.descriptor);
        code.visitInsn(Type.getType(field.descriptor).getOpcode(Opcodes.IRETURN));
        code.visitLabel(inPhoton);
        frame(code, holder);
        return inPhoton;
    }

    private void returnField(MethodVisitor code, Static field) {
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitFieldInsn(Opcodes.GETFIELD, holder, field.name, field.descriptor);
        end(code, Type.getType(field.descriptor).getOpcode(Opcodes.IRETURN));
    }

    private void read(ClassVisitor target, Static field) {
        MethodVisitor code = method(target, PRIVATE, READ + field.name, readDescriptor(field));
        readBase(code, field);
        returnField(code, field);
    }

    private void lazy(ClassVisitor target, Static field) {
        MethodVisitor code = method(target, PRIVATE, LAZY + field.name, readDescriptor(field));
        readBase(code, field);
        Label filled = new Label();
        testBit(code, 0, field);
        code.visitJumpInsn(Opcodes.IFNE, filled);
        fillFrom(code, field, 0);
        code.visitLabel(filled);
        frame(code, holder);
        returnField(code, field);
    }

    private void writeBase(MethodVisitor code, Static field) {
        Type type = Type.getType(field.descriptor);
        Label inPhoton = new Label();
        code.visitVarInsn(Opcodes.ALOAD, type.getSize());
        code.visitJumpInsn(Opcodes.IFNONNULL, inPhoton);
        code.visitVarInsn(type.getOpcode(Opcodes.ILOAD), 0);
        code.visitFieldInsn(Opcodes.PUTSTATIC, owner, field.name, field.descriptor);
        code.visitInsn(Opcodes.RETURN);
        code.visitLabel(inPhoton);
        frame(code, local(type), holder);
    }

    private void setField(MethodVisitor code, Static field) {
        Type type = Type.getType(field.descriptor);
        code.visitVarInsn(Opcodes.ALOAD, type.getSize());
        code.visitVarInsn(type.getOpcode(Opcodes.ILOAD), 0);
        code.visitFieldInsn(Opcodes.PUTFIELD, holder, field.name, field.descriptor);
        end(code, Opcodes.RETURN);
    }

    private void write(ClassVisitor target, Static field) {
        MethodVisitor code = method(target, PRIVATE, WRITE + field.name, writeDescriptor(field));
        writeBase(code, field);
        setField(code, field);
    }

    private void lazySet(ClassVisitor target, Static field) {
        MethodVisitor code = method(target, PRIVATE, LAZY_SET + field.name, writeDescriptor(field));
        writeBase(code, field);
        Label filled = new Label();
        testBit(code, 1, field);
        code.visitJumpInsn(Opcodes.IFNE, filled);
        code.visitVarInsn(Opcodes.ALOAD, 1);
        code.visitVarInsn(Opcodes.ALOAD, 0);
        code.visitMethodInsn(Opcodes.INVOKEVIRTUAL, holder, "set$" + field.name, "(" + field.descriptor + ")V", false);
        code.visitInsn(Opcodes.RETURN);
        code.visitLabel(filled);
        frame(code, local(Type.getType(field.descriptor)), holder);
        setField(code, field);
    }

    private void forOthers(ClassVisitor target, Static field) {
        Type type = Type.getType(field.descriptor);
        MethodVisitor get = method(target, PUBLIC, Isolation.GETTER + field.name, "()" + field.descriptor);
        get.visitMethodInsn(Opcodes.INVOKESTATIC, owner, OWN, ownDescriptor(), false);
        get.visitMethodInsn(Opcodes.INVOKESTATIC, owner, (field.copied() ? LAZY : READ) + field.name, readDescriptor(field), false);
        end(get, type.getOpcode(Opcodes.IRETURN));
        MethodVisitor set = method(target, PUBLIC, Isolation.SETTER + field.name, "(" + field.descriptor + ")V");
        set.visitVarInsn(type.getOpcode(Opcodes.ILOAD), 0);
        set.visitMethodInsn(Opcodes.INVOKESTATIC, owner, OWN, ownDescriptor(), false);
        set.visitMethodInsn(Opcodes.INVOKESTATIC, owner, (field.copied() ? LAZY_SET : WRITE) + field.name,
            writeDescriptor(field), false);
        end(set, Opcodes.RETURN);
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
    private void frame(MethodVisitor code, Object... locals) {
        if (frames) {
            code.visitFrame(Opcodes.F_FULL, locals.length, locals, 0, new Object[0]);
        }
    }

    static void push(MethodVisitor code, int value) {
        if (value >= Short.MIN_VALUE && value <= Short.MAX_VALUE) {
            code.visitIntInsn(Opcodes.SIPUSH, value);
        } else {
            code.visitLdcInsn(value);
        }
    }
}
