/*
 * Rewrites the few JDK classes that run tasks on other threads than their submitter's, so that
 * every task runs for the photon that made it:
 *
 *     FutureTask, ForkJoinTask, TimerTask      remember their maker's photon in a new field
 *     FutureTask.run, runAndReset              run in it; so do ForkJoinTask.doExec, a
 *     CompletableFuture's completions          (tryFire), and TimerTask.run called by Timer
 *     ThreadPoolExecutor.execute               carries it with any other Runnable
 *
 * That covers executors of every kind, parallel streams, CompletableFuture and Timer, also when
 * JDK code submits. These classes are not loaded before the agent (it checks nothing is lost by
 * loading the first three itself), so fields and methods can be added. Invariant: without a photon
 * anywhere, behaviour is the JDK's.
 */
package lantern.rewrite;

import org.objectweb.asm.ClassReader;
import org.objectweb.asm.ClassVisitor;
import org.objectweb.asm.ClassWriter;
import org.objectweb.asm.Label;
import org.objectweb.asm.MethodVisitor;
import org.objectweb.asm.Opcodes;
import org.objectweb.asm.Type;

/** See the head of this file. */
final class JdkRewriter {
    private static final String FUTURE_TASK = "java/util/concurrent/FutureTask";
    private static final String FORK_JOIN_TASK = "java/util/concurrent/ForkJoinTask";
    private static final String POOL = "java/util/concurrent/ThreadPoolExecutor";
    private static final String COMPLETION = "java/util/concurrent/CompletableFuture$";
    private static final String TIMER_TASK = "java/util/TimerTask";
    private static final String TIMER_THREAD = "java/util/TimerThread";
    private static final String FIELD = "lantern$photon";
    private static final String ORIGINAL = "lantern$original$";
    private static final String PHOTON = "L" + Statics.PHOTON + ";";

    private JdkRewriter() {}

    static boolean wants(String name) {
        return name.equals(FUTURE_TASK) || name.equals(FORK_JOIN_TASK) || name.equals(POOL) || name.equals(TIMER_TASK)
            || name.equals(TIMER_THREAD) || name.startsWith(COMPLETION);
    }

    static byte[] rewrite(ClassReader reader) {
        // Frames of added methods are written by hand; old code keeps its own.
        ClassWriter writer = new ClassWriter(reader, ClassWriter.COMPUTE_MAXS);
        reader.accept(new Visitor(writer, reader.getClassName()), 0);
        return writer.toByteArray();
    }

    private static final class Visitor extends ClassVisitor {
        private final String owner;
        private final boolean remembers;

        Visitor(ClassVisitor next, String owner) {
            super(Opcodes.ASM9, next);
            this.owner = owner;
            remembers = owner.equals(FUTURE_TASK) || owner.equals(FORK_JOIN_TASK) || owner.equals(TIMER_TASK);
        }

        @Override
        public MethodVisitor visitMethod(int access, String name, String descriptor, String signature, String[] exceptions) {
            boolean concrete = (access & (Opcodes.ACC_ABSTRACT | Opcodes.ACC_STATIC)) == 0;
            if (remembers && name.equals("<init>")) {
                return new Remember(super.visitMethod(access, name, descriptor, signature, exceptions), owner);
            }
            if (concrete && runs(name, descriptor)) {
                wrapper(access, name, descriptor, exceptions);
                int hidden = access & ~(Opcodes.ACC_PUBLIC | Opcodes.ACC_PROTECTED) | Opcodes.ACC_PRIVATE | Opcodes.ACC_SYNTHETIC;
                return super.visitMethod(hidden, ORIGINAL + name, descriptor, signature, exceptions);
            }
            MethodVisitor next = super.visitMethod(access, name, descriptor, signature, exceptions);
            if (owner.equals(POOL) && name.equals("execute")) {
                return new Carry(next);
            }
            return owner.equals(TIMER_THREAD) ? new TimerCall(next) : next;
        }

        private boolean runs(String name, String descriptor) {
            switch (owner) {
                case FUTURE_TASK:
                    return name.equals("run") && descriptor.equals("()V") || name.equals("runAndReset");
                case FORK_JOIN_TASK:
                    return name.equals("doExec");
                default:
                    return owner.startsWith(COMPLETION) && name.equals("tryFire");
            }
        }

        @Override
        public void visitEnd() {
            if (remembers) {
                // Public: a Completion and a Timer read it from other classes.
                visitField(Opcodes.ACC_PUBLIC | Opcodes.ACC_TRANSIENT | Opcodes.ACC_SYNTHETIC, FIELD, PHOTON, null, null);
            }
            super.visitEnd();
        }

        /** The method of the old name: enter, call the original, exit however it ends. */
        private void wrapper(int access, String name, String descriptor, String[] exceptions) {
            MethodVisitor code = super.visitMethod(access, name, descriptor, null, exceptions);
            Type[] arguments = Type.getArgumentTypes(descriptor);
            int token = 1 + arguments.length;
            String field = owner.startsWith(COMPLETION) ? FORK_JOIN_TASK : owner;
            Label from = new Label();
            Label to = new Label();
            Label thrown = new Label();
            code.visitCode();
            code.visitTryCatchBlock(from, to, thrown, null);
            enter(code, field, 0, token);
            code.visitLabel(from);
            code.visitVarInsn(Opcodes.ALOAD, 0);
            Object[] locals = new Object[token + 1];
            locals[0] = owner;
            locals[token] = "java/lang/Object";
            for (int i = 0; i < arguments.length; i++) {
                // All are ints: tryFire's mode.
                code.visitVarInsn(Opcodes.ILOAD, i + 1);
                locals[i + 1] = Opcodes.INTEGER;
            }
            code.visitMethodInsn(Opcodes.INVOKESPECIAL, owner, ORIGINAL + name, descriptor, false);
            code.visitLabel(to);
            exit(code, token);
            code.visitInsn(Type.getReturnType(descriptor).getOpcode(Opcodes.IRETURN));
            code.visitLabel(thrown);
            code.visitFrame(Opcodes.F_FULL, locals.length, locals, 1, new Object[] {"java/lang/Throwable"});
            exit(code, token);
            code.visitInsn(Opcodes.ATHROW);
            code.visitMaxs(0, 0);
            code.visitEnd();
        }
    }

    private static void enter(MethodVisitor code, String owner, int object, int token) {
        code.visitVarInsn(Opcodes.ALOAD, object);
        code.visitFieldInsn(Opcodes.GETFIELD, owner, FIELD, PHOTON);
        code.visitMethodInsn(Opcodes.INVOKESTATIC, Statics.PHOTONS, "enter", "(" + PHOTON + ")Ljava/lang/Object;", false);
        code.visitVarInsn(Opcodes.ASTORE, token);
    }

    private static void exit(MethodVisitor code, int token) {
        code.visitVarInsn(Opcodes.ALOAD, token);
        code.visitMethodInsn(Opcodes.INVOKESTATIC, Statics.PHOTONS, "exit", "(Ljava/lang/Object;)V", false);
    }

    /** A constructor that stores the maker's photon when it is done. */
    private static final class Remember extends MethodVisitor {
        private final String owner;

        Remember(MethodVisitor next, String owner) {
            super(Opcodes.ASM9, next);
            this.owner = owner;
        }

        @Override
        public void visitInsn(int opcode) {
            if (opcode == Opcodes.RETURN) {
                mv.visitVarInsn(Opcodes.ALOAD, 0);
                mv.visitMethodInsn(Opcodes.INVOKESTATIC, Statics.PHOTONS, "current", "()" + PHOTON, false);
                mv.visitFieldInsn(Opcodes.PUTFIELD, owner, FIELD, PHOTON);
            }
            super.visitInsn(opcode);
        }
    }

    /** ThreadPoolExecutor.execute: its argument with its photon. */
    private static final class Carry extends MethodVisitor {
        Carry(MethodVisitor next) {
            super(Opcodes.ASM9, next);
        }

        @Override
        public void visitCode() {
            super.visitCode();
            mv.visitVarInsn(Opcodes.ALOAD, 1);
            mv.visitMethodInsn(Opcodes.INVOKESTATIC, "lantern/photon/Tasks", "carry",
                "(Ljava/lang/Runnable;)Ljava/lang/Runnable;", false);
            mv.visitVarInsn(Opcodes.ASTORE, 1);
        }
    }

    /** TimerThread's call of TimerTask.run. */
    private static final class TimerCall extends MethodVisitor {
        TimerCall(MethodVisitor next) {
            super(Opcodes.ASM9, next);
        }

        @Override
        public void visitMethodInsn(int opcode, String on, String name, String descriptor, boolean itf) {
            if (on.equals(TIMER_TASK) && name.equals("run")) {
                mv.visitInsn(Opcodes.DUP);
                mv.visitFieldInsn(Opcodes.GETFIELD, TIMER_TASK, FIELD, PHOTON);
                mv.visitMethodInsn(Opcodes.INVOKESTATIC, "lantern/photon/Tasks", "run",
                    "(Ljava/lang/Runnable;" + PHOTON + ")V", false);
            } else {
                super.visitMethodInsn(opcode, on, name, descriptor, itf);
            }
        }
    }
}
