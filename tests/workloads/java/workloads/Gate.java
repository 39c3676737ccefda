/* Holds an invocation at the point where it has all the memory that it will have. */
package workloads;

import java.io.IOException;
import java.net.Socket;
import java.util.Map;

/** The gate of an event, if it has one. */
final class Gate {
    private Gate() {}

    /** Connects to the event's {@code gate}, if any, and returns when the other side closes. */
    static void await(Map<String, Object> event) throws IOException {
        String address = (String) event.get("gate");
        if (address == null) {
            return;
        }
        int colon = address.lastIndexOf(':');
        try (Socket gate = new Socket(address.substring(0, colon), Integer.parseInt(address.substring(colon + 1)))) {
            gate.getOutputStream().write('1');
            while (gate.getInputStream().read() >= 0) {
                continue;
            }
        }
    }

    /** What a reply says of the time since {@code started}, a {@link System#nanoTime()}. */
    static double ms(long started) {
        return (System.nanoTime() - started) / 1e6;
    }
}
