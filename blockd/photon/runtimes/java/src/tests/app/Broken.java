/*
 * A handler whose constructor fails.
 */
package app;

/** Fails. */
public class Broken {
    public Broken() {
        throw new UnsupportedOperationException("no luck today");
    }

    public String handleRequest(String event) {
        return event;
    }
}
