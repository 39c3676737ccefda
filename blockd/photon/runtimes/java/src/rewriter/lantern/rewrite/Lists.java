/*
 * Which classes are isolated: include and exclude lists of name prefixes.
 *
 * LANTERN_JAVA_INCLUDE and LANTERN_JAVA_EXCLUDE (or the properties lantern.java.include and
 * lantern.java.exclude), separated by commas; a prefix ends at a dot, a dollar or the name's end.
 * `pkg.Class#field` in the exclude list names one field. Where both lists match, the longer prefix
 * counts, so a part of what the defaults exclude can be included. With an include list, nothing
 * else is isolated. The JDK never is.
 */
package lantern.rewrite;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.function.Predicate;

/** The lists; see the head of this file. */
final class Lists implements Predicate<String> {
    /**
     * Not isolated unless included: this runtime; AWS's interfaces (the runtime hands out proxies of
     * them); and logging, whose configuration and appenders are made once for the process and hold
     * no invocation's data (what is logged with an invocation goes through System.out, which is
     * routed per photon, and thread-locals such as MDC are taken away after every invocation).
     */
    private static final String[] DEFAULT_EXCLUDE = {"lantern.runtime", "lantern.photon", "lantern.agent",
        "lantern.rewrite", "com.amazonaws.services.lambda.runtime", "org.slf4j", "ch.qos.logback",
        "org.apache.logging", "org.apache.log4j", "org.apache.commons.logging", "org.jboss.logging"};
    private static final String[] JDK = {"java.", "jdk.", "sun.", "com.sun."};

    private final List<String> include = new ArrayList<>();
    private final List<String> exclude = new ArrayList<>(List.of(DEFAULT_EXCLUDE));
    private final Set<String> excludedFields = new HashSet<>();

    Lists(String include, String exclude) {
        for (String entry : split(include)) {
            this.include.add(entry);
        }
        for (String entry : split(exclude)) {
            if (entry.indexOf('#') >= 0) {
                excludedFields.add(entry);
            } else {
                this.exclude.add(entry);
            }
        }
    }

    static Lists fromEnvironment() {
        return new Lists(setting("lantern.java.include", "LANTERN_JAVA_INCLUDE"),
            setting("lantern.java.exclude", "LANTERN_JAVA_EXCLUDE"));
    }

    private static String setting(String property, String variable) {
        String value = System.getProperty(property);
        return value != null ? value : System.getenv(variable);
    }

    private static List<String> split(String list) {
        List<String> entries = new ArrayList<>();
        if (list != null) {
            for (String entry : list.split(",")) {
                String name = entry.trim().replaceFirst("\\.?\\*$", "").replaceFirst("\\.$", "");
                if (!name.isEmpty()) {
                    entries.add(name);
                }
            }
        }
        return entries;
    }

    /** Whether a class, by its name with dots, is isolated. */
    @Override
    public boolean test(String name) {
        for (String prefix : JDK) {
            if (name.startsWith(prefix)) {
                return false;
            }
        }
        int in = longest(include, name);
        int out = longest(exclude, name);
        return in > out || out < 0 && include.isEmpty();
    }

    boolean excludesField(String className, String field) {
        return !excludedFields.isEmpty() && excludedFields.contains(className + "#" + field);
    }

    private static int longest(List<String> prefixes, String name) {
        int longest = -1;
        for (String prefix : prefixes) {
            int length = prefix.length();
            boolean whole = name.length() == length || name.length() > length
                && (name.charAt(length) == '.' || name.charAt(length) == '$');
            if (length > longest && whole && name.startsWith(prefix)) {
                longest = length;
            }
        }
        return longest;
    }
}
