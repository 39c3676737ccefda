/*
 * Assertions and the running of tests, without a framework. A failed test is printed with its
 * stack; the process's exit code says whether there was one.
 */
package lantern.tests;

import java.util.Objects;

/** A tiny test library. */
public final class Check {
    private static int passed;
    private static int failed;

    private Check() {}

    public interface Body {
        void run() throws Exception;
    }

    public static synchronized void test(String name, Body body) {
        try {
            body.run();
            passed++;
            System.out.println("ok      " + name);
        } catch (Throwable thrown) {
            failed++;
            System.out.println("FAILED  " + name);
            thrown.printStackTrace(System.out);
        }
    }

    public static void that(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }

    public static void equal(Object wanted, Object found) {
        that(Objects.equals(wanted, found), "wanted " + wanted + ", found " + found);
    }

    public static void contains(String text, String part) {
        that(text.contains(part), "\"" + part + "\" is not in: " + text);
    }

    public static void throwsWith(String part, Body body) throws Exception {
        try {
            body.run();
        } catch (Exception e) {
            contains(String.valueOf(e.getMessage()), part);
            return;
        }
        throw new AssertionError("nothing was thrown; wanted \"" + part + "\"");
    }

    public static void finish() {
        System.out.println(passed + " passed, " + failed + " failed");
        System.exit(failed == 0 ? 0 : 1);
    }
}
