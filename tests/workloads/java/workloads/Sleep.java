/* Sleeps: what a function costs that only waits. */
package workloads;

import java.util.HashMap;
import java.util.Map;

/** See {@link #handle}. */
public class Sleep {
    /** Sleeps {@code seconds}, 1 without it. */
    public Map<String, Object> handle(Map<String, Object> event) throws Exception {
        long started = System.nanoTime();
        Gate.await(event);
        Object seconds = event.getOrDefault("seconds", 1);
        Thread.sleep((long) (((Number) seconds).doubleValue() * 1000));
        Map<String, Object> reply = new HashMap<>();
        reply.put("ms", Gate.ms(started));
        return reply;
    }
}
