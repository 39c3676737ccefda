/*
 * One keep-alive HTTP/1.1 connection over a plain socket.
 *
 * The JDK's HttpClient costs megabytes and threads of its own; this costs a socket and 2 KiB, and
 * there is one per photon. Invariants: used by one thread at a time, but for `lastRequest`; after
 * any error the socket is closed and the next request opens another; sizes of what is read are
 * bounded before memory is taken. Understands Content-Length and chunked bodies, nothing else.
 */
package lantern.runtime;

import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;

/** A keep-alive connection; see the head of this file. */
final class HttpConnection implements AutoCloseable {
    /** Most bytes of a status line and headers: AWS's largest header, the client context, has 3,583. */
    static final int MOST_HEAD_BYTES = 64 * 1024;
    /** Most bytes of a body: ten times AWS's largest event. */
    static final int MOST_BODY_BYTES = 64 * 1024 * 1024;
    /** Bodies up to this size go out in one write with the headers. */
    private static final int ONE_WRITE_BYTES = 16 * 1024;
    /** Most bytes of one read. The JDK copies through a direct buffer of this size. */
    private static final int READ_BYTES = 64 * 1024;
    private static final int CONNECT_TIMEOUT_MS = 5_000;
    /** How long to look for the reply of a server that takes no more: it is there, or never comes. */
    private static final int REFUSAL_TIMEOUT_MS = 1_000;
    /** How long a connection may have been idle for `requestOnce`: less than servers have patience with one. */
    private static final long FRESH_NANOS = 10_000_000_000L;

    /** A reply, whole. Header names are in lower case. */
    static final class Reply {
        final int status;
        final Map<String, String> headers;
        final byte[] body;

        Reply(int status, Map<String, String> headers, byte[] body) {
            this.status = status;
            this.headers = headers;
            this.body = body;
        }

        String header(String name) {
            return headers.get(name);
        }
    }

    private final String host;
    private final int port;
    private final byte[] buffer = new byte[2048];
    private int position;
    private int limit;
    private volatile Socket socket;
    private volatile boolean last;
    private long usedAt;

    HttpConnection(String host, int port) {
        this.host = host;
        this.port = port;
    }

    /**
     * Sends a request and waits for its reply, without a limit of time: `next` may take forever.
     * A kept-alive connection that the server closed meanwhile is replaced once.
     *
     * @param headers further headers, names and values in turn
     */
    Reply request(String method, String path, byte[] body, String... headers) throws IOException {
        if (last) {
            // It came too late for the request it was meant for.
            last = false;
            close();
        }
        boolean reused = socket != null;
        try {
            return attempt(method, path, body, headers);
        } catch (StaleException e) {
            if (!reused || last) {
                throw e;
            }
            return attempt(method, path, body, headers);
        }
    }

    /**
     * As `request`, for what must not be done twice: never sent again. IOException where the
     * connection broke, and then nobody knows whether it was done.
     */
    Reply requestOnce(String method, String path, byte[] body, String... headers) throws IOException {
        if (System.nanoTime() - usedAt > FRESH_NANOS) {
            close();
        }
        return attempt(method, path, body, headers);
    }

    /**
     * Says that no request follows the one that waits, so that the server may give it up; a reply
     * that is on its way still comes. From any thread; the next request opens another connection.
     */
    void lastRequest() {
        last = true;
        Socket now = socket;
        try {
            if (now != null) {
                now.shutdownOutput();
            }
        } catch (IOException e) {
            // It is closed, and nothing waits on it.
        }
    }

    private Reply attempt(String method, String path, byte[] body, String[] headers) throws IOException {
        boolean done = false;
        try {
            boolean whole = sendAndFill(method, path, body, headers);
            Reply reply = read();
            done = true;
            usedAt = System.nanoTime();
            if (!whole || "close".equalsIgnoreCase(reply.header("connection"))) {
                close();
            }
            return reply;
        } finally {
            if (!done) {
                close();
            }
        }
    }

    /**
     * Until the first bytes of the reply are there. A server that takes no more, because a request is
     * too large for it or comes too late, has said so before it closed: then that is the reply.
     *
     * @return whether the request went out to its end
     */
    private boolean sendAndFill(String method, String path, byte[] body, String[] headers) throws IOException {
        try {
            send(method, path, body, headers);
        } catch (IOException e) {
            try {
                if (socket != null) {
                    socket.setSoTimeout(REFUSAL_TIMEOUT_MS);
                    fill();
                    return false;
                }
            } catch (IOException none) {
                e.addSuppressed(none);
            }
            throw new StaleException(e);
        }
        try {
            fill();
            return true;
        } catch (IOException e) {
            throw new StaleException(e);
        }
    }

    /** The connection failed before a byte of the reply had come. */
    private static final class StaleException extends IOException {
        private static final long serialVersionUID = 1L;

        StaleException(IOException cause) {
            super(cause.getMessage(), cause);
        }
    }

    private void send(String method, String path, byte[] body, String[] headers) throws IOException {
        if (socket == null) {
            Socket fresh = new Socket();
            fresh.setTcpNoDelay(true);
            try {
                fresh.connect(new InetSocketAddress(host, port), CONNECT_TIMEOUT_MS);
            } catch (IOException e) {
                fresh.close();
                throw e;
            }
            socket = fresh;
            position = 0;
            limit = 0;
        }
        StringBuilder head = new StringBuilder(256);
        head.append(method).append(' ').append(path).append(" HTTP/1.1\r\nHost: ").append(host).append(':').append(port)
            .append("\r\n");
        for (int i = 0; i < headers.length; i += 2) {
            head.append(headers[i]).append(": ").append(clean(headers[i + 1])).append("\r\n");
        }
        if (body != null) {
            head.append("Content-Length: ").append(body.length).append("\r\n");
        }
        byte[] start = head.append("\r\n").toString().getBytes(StandardCharsets.ISO_8859_1);
        OutputStream out = socket.getOutputStream();
        if (body == null) {
            out.write(start);
        } else if (body.length <= ONE_WRITE_BYTES) {
            byte[] all = Arrays.copyOf(start, start.length + body.length);
            System.arraycopy(body, 0, all, start.length, body.length);
            out.write(all);
        } else {
            out.write(start);
            out.write(body);
        }
    }

    /** A header's value on one line: the text of an error must not become headers of its own. */
    private static String clean(String value) {
        return value.replaceAll("[\\x00-\\x1f\\x7f]", " ");
    }

    private Reply read() throws IOException {
        int[] left = {MOST_HEAD_BYTES};
        String status = line(left);
        while (status.startsWith("HTTP/1.1 100")) {
            while (!line(left).isEmpty()) {
                continue;
            }
            status = line(left);
        }
        if (!status.startsWith("HTTP/1.") || status.length() < 12) {
            throw new IOException("the Runtime API at " + host + ":" + port + " does not speak HTTP/1.1");
        }
        int code = number(status.substring(9, 12), 10);
        Map<String, String> headers = new HashMap<>();
        for (String text = line(left); !text.isEmpty(); text = line(left)) {
            int colon = text.indexOf(':');
            if (colon > 0) {
                headers.put(text.substring(0, colon).trim().toLowerCase(Locale.ROOT), text.substring(colon + 1).trim());
            }
        }
        return new Reply(code, headers, body(code, headers));
    }

    private byte[] body(int code, Map<String, String> headers) throws IOException {
        if (code == 204 || code == 304) {
            return new byte[0];
        }
        if ("chunked".equalsIgnoreCase(headers.get("transfer-encoding"))) {
            return chunks();
        }
        String length = headers.get("content-length");
        if (length == null) {
            headers.put("connection", "close");
            return new byte[0];
        }
        byte[] body = new byte[bounded(number(length, 10), 0)];
        exactly(body, body.length);
        return body;
    }

    private byte[] chunks() throws IOException {
        ByteArrayOutputStream all = new ByteArrayOutputStream();
        while (true) {
            String size = line(new int[] {1024});
            int end = size.indexOf(';');
            int length = bounded(number((end < 0 ? size : size.substring(0, end)).trim(), 16), all.size());
            if (length == 0) {
                int[] left = {MOST_HEAD_BYTES};
                while (!line(left).isEmpty()) {
                    continue;
                }
                return all.toByteArray();
            }
            byte[] chunk = new byte[length];
            exactly(chunk, length);
            all.write(chunk, 0, length);
            line(new int[] {2});
        }
    }

    private static int bounded(int length, int before) throws IOException {
        if (length > MOST_BODY_BYTES - before) {
            throw new IOException("a body of more than " + MOST_BODY_BYTES + " bytes");
        }
        return length;
    }

    private static int number(String text, int radix) throws IOException {
        try {
            int number = Integer.parseInt(text, radix);
            if (number >= 0) {
                return number;
            }
        } catch (NumberFormatException e) {
            // Said below.
        }
        throw new IOException("\"" + text + "\" where the Runtime API should have sent a number");
    }

    private String line(int[] left) throws IOException {
        StringBuilder line = new StringBuilder(64);
        while (true) {
            if (position == limit) {
                fill();
            }
            byte next = buffer[position++];
            if (next == '\n') {
                int end = line.length();
                if (end > 0 && line.charAt(end - 1) == '\r') {
                    line.setLength(end - 1);
                }
                return line.toString();
            }
            if (left[0]-- == 0) {
                throw new IOException("headers of more than " + MOST_HEAD_BYTES + " bytes");
            }
            line.append((char) (next & 0xff));
        }
    }

    private void exactly(byte[] into, int length) throws IOException {
        int have = Math.min(length, limit - position);
        System.arraycopy(buffer, position, into, 0, have);
        position += have;
        InputStream in = socket.getInputStream();
        while (have < length) {
            int got = in.read(into, have, Math.min(READ_BYTES, length - have));
            if (got < 0) {
                throw new EOFException("the connection ended within a body");
            }
            have += got;
        }
    }

    private void fill() throws IOException {
        if (position < limit) {
            return;
        }
        int got = socket.getInputStream().read(buffer, 0, buffer.length);
        if (got <= 0) {
            throw new EOFException("the connection was closed");
        }
        position = 0;
        limit = got;
    }

    @Override
    public void close() {
        Socket old = socket;
        socket = null;
        if (old != null) {
            try {
                old.close();
            } catch (IOException e) {
                // Nothing of ours is left in it.
            }
        }
    }
}
