/*
 * One way to carry data from an invocation to another: plant in one photon, look in another.
 */
package leak;

/** A way to leak. */
public abstract class Probe {
    /** What stands for "nothing found". */
    public static final String NOTHING = "nothing";

    private final String name;
    private final boolean isolated;

    Probe(String name, boolean isolated) {
        this.name = name;
        this.isolated = isolated;
    }

    /** The row of the README's table. */
    public final String name() {
        return name;
    }

    /** Whether the runtime promises that nothing is found. */
    public final boolean isolated() {
        return isolated;
    }

    /** Leaves a secret, and checks that this photon itself finds it. */
    public abstract void plant(String secret) throws Exception;

    /** What is found; NOTHING if nothing is. */
    public abstract String look() throws Exception;
}
