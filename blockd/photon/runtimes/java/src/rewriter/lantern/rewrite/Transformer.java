/*
 * The agent's class file transformer: application classes go to AppRewriter, a few JDK classes to
 * JdkRewriter, all others pass.
 *
 * Invariant: a class that should be isolated and cannot be rewritten fails to load; it is never
 * loaded as it is. (The instrumentation interface would swallow an exception and use the original,
 * so a class that throws is given instead.)
 */
package lantern.rewrite;

import java.lang.instrument.ClassFileTransformer;
import java.security.ProtectionDomain;
import lantern.photon.Isolation;
import org.objectweb.asm.ClassReader;

/** See the head of this file. */
public final class Transformer implements ClassFileTransformer {
    private final Lists lists = Lists.fromEnvironment();
    private final Classes classes = new Classes(lists);
    private final ClassLoader platform = ClassLoader.getPlatformClassLoader();

    /** Reads the lists and turns isolation on. Called by the agent. */
    public Transformer() {
        Isolation.activate(lists);
    }

    @Override
    public byte[] transform(ClassLoader loader, String name, Class<?> redefined, ProtectionDomain domain, byte[] bytes) {
        if (name == null || redefined != null || loader == platform || loader == getClass().getClassLoader()) {
            return null;
        }
        if (loader == null) {
            return JdkRewriter.wants(name) ? guarded(name, () -> JdkRewriter.rewrite(new ClassReader(bytes))) : null;
        }
        if (name.contains(Isolation.HOLDER) || !lists.test(name.replace('/', '.'))) {
            return null;
        }
        return guarded(name, () -> new AppRewriter(classes, lists, loader, domain).rewrite(new ClassReader(bytes)));
    }

    private interface Rewrite {
        byte[] run();
    }

    private static byte[] guarded(String name, Rewrite rewrite) {
        try {
            return rewrite.run();
        } catch (Throwable thrown) {
            System.err.println("lantern: class " + name.replace('/', '.') + " cannot be isolated and will not load: " + thrown
                + "; add it to LANTERN_JAVA_EXCLUDE to load it shared");
            return new byte[0];
        }
    }
}
