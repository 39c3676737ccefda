/* Returns the event: what an invocation costs that does nothing. */
package workloads;

import java.util.Map;

/** See {@link #handle}. */
public class Echo {
    /** Anything. */
    public Map<String, Object> handle(Map<String, Object> event) {
        return event;
    }
}
