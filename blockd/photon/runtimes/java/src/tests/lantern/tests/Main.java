/*
 * All tests but the leak suite, which needs the agent in its own JVM.
 */
package lantern.tests;

/** Runs the tests. */
public final class Main {
    private Main() {}

    /** Exits with 1 if a test fails. */
    public static void main(String[] arguments) {
        lantern.runtime.UnitTests.run(Check::test);
        ProtocolTests.run();
        Check.finish();
    }
}
