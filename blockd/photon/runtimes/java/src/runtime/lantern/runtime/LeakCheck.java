/*
 * Reports static finals that hold mutable objects: what photons share in spite of the agent.
 *
 *     java -cp lantern-runtime.jar lantern.runtime.LeakCheck [--json] [--no-init] [--exclude PREFIXES] CLASSPATH
 *
 * Prints class, field, type and why, one per line or as JSON. Exit code 0: nothing found; 1: some;
 * 2: wrong use. Initialises the classes it looks at, so that values can be judged and not only
 * declared types; with --no-init it does not. A class whose initialiser fails is judged by its
 * declared types. Fields annotated with lantern.runtime.Shared are left out.
 */
package lantern.runtime;

import java.io.File;
import java.io.IOException;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.jar.JarFile;
import java.util.stream.Stream;

/** Main of the leak check. */
public final class LeakCheck {
    private static final int EXIT_FOUND = 1;
    private static final int EXIT_USAGE = 2;

    /** One static final that photons share and can change. */
    static final class Finding {
        final String className;
        final String field;
        final String type;
        final String why;

        Finding(String className, String field, String type, String why) {
            this.className = className;
            this.field = field;
            this.type = type;
            this.why = why;
        }
    }

    private final boolean initialise;
    private final List<String> exclude;
    private final List<Finding> findings = new ArrayList<>();
    private final List<String> skipped = new ArrayList<>();

    LeakCheck(boolean initialise, List<String> exclude) {
        this.initialise = initialise;
        this.exclude = exclude;
    }

    /** See the head of this file. */
    public static void main(String[] arguments) throws IOException {
        boolean json = false;
        boolean initialise = true;
        List<String> exclude = new ArrayList<>(List.of("lantern.runtime.", "lantern.photon.", "lantern.agent."));
        String classPath = null;
        for (int i = 0; i < arguments.length; i++) {
            switch (arguments[i]) {
                case "--json":
                    json = true;
                    break;
                case "--no-init":
                    initialise = false;
                    break;
                case "--exclude":
                    exclude.addAll(List.of(i + 1 < arguments.length ? arguments[++i].split(",") : new String[0]));
                    break;
                default:
                    if (arguments[i].startsWith("-") || classPath != null) {
                        usage();
                    }
                    classPath = arguments[i];
            }
        }
        if (classPath == null) {
            usage();
        }
        // Initialisers may print; the report alone goes to stdout.
        java.io.PrintStream out = System.out;
        System.setOut(System.err);
        LeakCheck check = new LeakCheck(initialise, exclude);
        check.run(classPath);
        check.print(out, json);
        out.flush();
        // Initialisers may have started threads.
        Runtime.getRuntime().halt(check.findings.isEmpty() ? 0 : EXIT_FOUND);
    }

    private static void usage() {
        System.err.println("usage: LeakCheck [--json] [--no-init] [--exclude PREFIX,...] CLASSPATH");
        System.exit(EXIT_USAGE);
    }

    List<Finding> run(String classPath) throws IOException {
        List<URL> urls = new ArrayList<>();
        TreeSet<String> names = new TreeSet<>();
        for (Path entry : entries(classPath)) {
            urls.add(entry.toUri().toURL());
            names.addAll(Files.isDirectory(entry) ? inDirectory(entry) : inJar(entry));
        }
        try (URLClassLoader loader = new URLClassLoader(urls.toArray(new URL[0]), LeakCheck.class.getClassLoader())) {
            for (String name : names) {
                if (exclude.stream().noneMatch(name::startsWith)) {
                    look(name, loader);
                }
            }
        }
        return findings;
    }

    private static List<Path> entries(String classPath) throws IOException {
        List<Path> entries = new ArrayList<>();
        for (String part : classPath.split(File.pathSeparator)) {
            if (part.endsWith("*")) {
                try (Stream<Path> jars = Files.list(Path.of(part.substring(0, part.length() - 1)))) {
                    jars.filter(jar -> jar.toString().endsWith(".jar")).sorted().forEach(entries::add);
                }
            } else if (!part.isEmpty()) {
                if (!Files.exists(Path.of(part))) {
                    throw new IOException("there is no " + part + " to check");
                }
                entries.add(Path.of(part));
            }
        }
        return entries;
    }

    private static List<String> inDirectory(Path directory) throws IOException {
        try (Stream<Path> files = Files.walk(directory)) {
            return named(files.map(file -> directory.relativize(file).toString().replace(File.separatorChar, '/')));
        }
    }

    private static List<String> inJar(Path jar) throws IOException {
        try (JarFile file = new JarFile(jar.toFile())) {
            return named(file.stream().map(entry -> entry.getName()));
        }
    }

    private static List<String> named(Stream<String> files) {
        List<String> names = new ArrayList<>();
        files.filter(file -> file.endsWith(".class") && !file.startsWith("META-INF/") && !file.endsWith("-info.class"))
            .forEach(file -> names.add(file.substring(0, file.length() - ".class".length()).replace('/', '.')));
        return names;
    }

    private void look(String name, ClassLoader loader) {
        Class<?> type;
        Field[] fields;
        boolean ready = initialise;
        try {
            type = Class.forName(name, false, loader);
            fields = type.getDeclaredFields();
        } catch (ClassNotFoundException | LinkageError e) {
            skipped.add(name + ": " + e);
            return;
        }
        if (type.isAnnotationPresent(Shared.class)) {
            return;
        }
        try {
            if (ready) {
                Class.forName(name, true, loader);
            }
        } catch (ClassNotFoundException | LinkageError e) {
            ready = false;
        }
        for (Field field : fields) {
            int modifiers = field.getModifiers();
            if (Modifier.isStatic(modifiers) && Modifier.isFinal(modifiers) && !field.isSynthetic()
                && !field.isAnnotationPresent(Shared.class)) {
                judge(type, field, ready);
            }
        }
    }

    private void judge(Class<?> type, Field field, boolean ready) {
        String why;
        String found = field.getType().getTypeName();
        try {
            field.setAccessible(true);
            Object value = ready && !field.getType().isPrimitive() ? field.get(null) : null;
            why = ready ? Mutability.why(value) : Mutability.why(field.getType());
            found = value == null ? found : value.getClass().getTypeName();
        } catch (IllegalAccessException | RuntimeException | LinkageError e) {
            why = Mutability.why(field.getType());
        }
        if (why != null) {
            findings.add(new Finding(type.getName(), field.getName(), found, why));
        }
    }

    private void print(java.io.PrintStream out, boolean json) {
        if (json) {
            List<Object> all = new ArrayList<>();
            for (Finding finding : findings) {
                Map<String, Object> fields = new LinkedHashMap<>();
                fields.put("class", finding.className);
                fields.put("field", finding.field);
                fields.put("type", finding.type);
                fields.put("why", finding.why);
                all.add(fields);
            }
            out.println(Json.write(Map.of("findings", all, "skipped", skipped)));
            return;
        }
        for (Finding finding : findings) {
            out.println(finding.className + "." + finding.field + " (" + finding.type + "): " + finding.why);
        }
        out.println(findings.isEmpty() ? "no static final holds a mutable object"
            : findings.size() + " static finals hold mutable objects, which all photons share: make them immutable, make them"
                + " non-final, or annotate them with lantern.runtime.Shared");
        if (!skipped.isEmpty()) {
            out.println(skipped.size() + " classes could not be looked at, the first: " + skipped.get(0));
        }
    }
}
