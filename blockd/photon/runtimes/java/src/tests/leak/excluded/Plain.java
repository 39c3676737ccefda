/*
 * A class that the suite puts on the exclude list.
 */
package leak.excluded;

/** Shared state. */
public final class Plain {
    /** Not isolated. */
    public static String value = "nothing";

    private Plain() {}
}
