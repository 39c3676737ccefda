/*
 * The log of one invocation: a TCP connection of its own to LANTERN_LOG_ADDRESS, opened at the
 * first output. Invariant: closed before the response is posted, so that blockd has seen all of it
 * by then; output that comes later (a thread that outlives its invocation) goes to the real stdout.
 */
package lantern.runtime;

import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;

/** Where an invocation's output goes. */
final class InvocationLog {
    private static final int CONNECT_TIMEOUT_MS = 2_000;
    private static final int BUFFER_BYTES = 2048;

    private final Settings settings;
    private final String requestId;
    private Socket socket;
    private PrintStream stream;
    private boolean closed;

    InvocationLog(Settings settings, String requestId) {
        this.settings = settings;
        this.requestId = requestId;
    }

    /** The stream to write to; null where output belongs on the real stdout. */
    synchronized PrintStream stream() {
        if (stream == null && !closed && settings.logHost != null) {
            try {
                socket = new Socket();
                socket.connect(new InetSocketAddress(settings.logHost, settings.logPort), CONNECT_TIMEOUT_MS);
                OutputStream out = socket.getOutputStream();
                out.write((requestId + "\n").getBytes(StandardCharsets.UTF_8));
                stream = new PrintStream(new BufferedOutputStream(out, BUFFER_BYTES), true, StandardCharsets.UTF_8);
            } catch (IOException e) {
                closed = true;
            }
        }
        return closed ? null : stream;
    }

    /** Ends the log; all of it has been handed to the kernel when this returns. */
    synchronized void close() {
        closed = true;
        if (stream != null) {
            stream.close();
            stream = null;
        }
        if (socket != null) {
            try {
                socket.close();
            } catch (IOException e) {
                // blockd closed it first; it has what it wanted.
            }
            socket = null;
        }
    }
}
