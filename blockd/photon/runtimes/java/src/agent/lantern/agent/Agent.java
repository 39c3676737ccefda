/*
 * The agent's premain: puts what rewritten classes call where every class loader sees it, and the
 * rewriter where no application can see it.
 *
 * lantern.photon (in this jar) must be the boot loader's: rewritten JDK classes use it too. Best by
 * -Xbootclasspath/a:lantern-agent.jar (in `options`); otherwise it is appended here, and the JVM
 * prints a warning about class data sharing. The rewriter and ASM (lantern-rewriter.jar and asm.jar
 * beside this jar) get a class loader of their own, a child of the platform's, so that an
 * application's ASM and ours never meet. Invariant: a failure here ends the JVM before main, as
 * running without isolation unasked would be worse.
 */
package lantern.agent;

import java.io.File;
import java.lang.instrument.ClassFileTransformer;
import java.lang.instrument.Instrumentation;
import java.net.URI;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.Map;
import java.util.Set;
import java.util.jar.JarFile;

/** Entry point of the agent. */
public final class Agent {
    private static final String[] BESIDE = {"lantern-rewriter.jar", "asm.jar"};

    private Agent() {}

    /** Called by the JVM before main. */
    public static void premain(String arguments, Instrumentation instrumentation) throws Exception {
        File jar = jar();
        Class<?> photon;
        try {
            photon = Class.forName("lantern.photon.Photon", false, null);
        } catch (ClassNotFoundException e) {
            instrumentation.appendToBootstrapClassLoaderSearch(new JarFile(jar));
            photon = Class.forName("lantern.photon.Photon", false, null);
        }
        Set<Module> ours = Set.of(photon.getModule());
        instrumentation.redefineModule(Object.class.getModule(), Set.of(), Map.of("jdk.internal.misc", ours),
            Map.of("java.lang", ours, "java.util", ours, "java.util.concurrent", ours,
                "java.util.concurrent.atomic", ours, "java.util.concurrent.locks", ours), Set.of(), Map.of());

        URL[] urls = new URL[BESIDE.length];
        for (int i = 0; i < BESIDE.length; i++) {
            File beside = new File(jar.getParentFile(), BESIDE[i]);
            if (!beside.canRead()) {
                throw new IllegalStateException(beside + " is missing; it belongs beside " + jar);
            }
            urls[i] = beside.toURI().toURL();
        }
        // Never closed: the rewriter loads classes of its own as long as the application does.
        @SuppressWarnings("resource")
        URLClassLoader loader = new URLClassLoader("lantern-rewriter", urls, ClassLoader.getPlatformClassLoader());
        ClassFileTransformer transformer = (ClassFileTransformer) loader.loadClass("lantern.rewrite.Transformer")
            .getDeclaredConstructor().newInstance();
        instrumentation.addTransformer(transformer, false);
        // Loaded now, so that they are rewritten whatever loads them first: classes that are loaded
        // while a transformer works on that thread are not offered to it.
        Class.forName("java.util.concurrent.FutureTask");
        Class.forName("java.util.concurrent.ForkJoinTask");
        Class.forName("java.util.concurrent.ThreadPoolExecutor");
    }

    /** This class's jar; asked of its resource, as a class of the boot loader has no code source. */
    private static File jar() throws Exception {
        String url = ClassLoader.getSystemResource("lantern/agent/Agent.class").toString();
        return new File(new URI(url.substring("jar:".length(), url.indexOf("!/"))));
    }
}
