/*
 * The sandbox's shared store on the Runtime API address (/lantern/v1/store), for bytes that other
 * processes of the sandbox share too. Within the JVM, SharedStore is faster and takes any object.
 *
 * Safe for many threads; keeps a few connections. A call that the server answers late waits as long
 * as it was told to; IOException where the store cannot be reached or answers what it should not.
 * Only `get`, `metrics` and an unconditional `put` are sent again if a connection breaks: any other
 * call may have been done, and a second one would find its own lease, or its own value in the way.
 */
package lantern.runtime;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;

/** A client of the store; see the head of this file. */
public final class StoreClient implements AutoCloseable {
    private static final String STORE = "/lantern/v1/store/";
    private static final String LEASE = "/lantern/v1/lease/";
    private static final int MOST_IDLE = 8;
    private static final int MOST_KEY_BYTES = 1024;

    private final String host;
    private final int port;
    private final ArrayDeque<HttpConnection> idle = new ArrayDeque<>();
    private boolean closed;

    /** A value and its version. */
    public static final class Value {
        /** The bytes. */
        public final byte[] bytes;
        /** The version, for the conditional calls. */
        public final String version;

        Value(byte[] bytes, String version) {
            this.bytes = bytes;
            this.version = version;
        }
    }

    /** A client of the store at `address`, HOST:PORT. */
    public StoreClient(String address) {
        int colon = address.lastIndexOf(':');
        this.host = address.substring(0, Math.max(colon, 0));
        this.port = Integer.parseInt(address.substring(colon + 1));
    }

    /** A client of this sandbox's store. */
    public static StoreClient ofSandbox() {
        String address = System.getenv("AWS_LAMBDA_RUNTIME_API");
        if (address == null) {
            throw new IllegalStateException("AWS_LAMBDA_RUNTIME_API is not set: this is not a sandbox");
        }
        return new StoreClient(address);
    }

    /** The value of a key. */
    public Optional<Value> get(String key) throws IOException {
        HttpConnection.Reply reply = call("GET", path(STORE, key), null);
        return reply.status == 404 ? Optional.empty() : Optional.of(value(expect(reply, 200)));
    }

    /** Puts a value; ttlMs 0: for good. Returns its version. */
    public String put(String key, byte[] value, long ttlMs) throws IOException {
        return version(expect(ttlMs > 0
            ? call("PUT", path(STORE, key), value, "Lantern-Ttl-Ms", Long.toString(ttlMs))
            : call("PUT", path(STORE, key), value), 200));
    }

    /** Puts a value if the key has this version (null: if it has none). Empty if it does not hold. */
    public Optional<String> compareAndSwap(String key, String version, byte[] value) throws IOException {
        HttpConnection.Reply reply = version == null
            ? call("PUT", path(STORE, key), value, "If-None-Match", "*")
            : call("PUT", path(STORE, key), value, "If-Match", quoted(version));
        return reply.status == 412 ? Optional.empty() : Optional.of(version(expect(reply, 200)));
    }

    /** Removes a key. Returns whether there was one. */
    public boolean delete(String key) throws IOException {
        HttpConnection.Reply reply = call("DELETE", path(STORE, key), null);
        return reply.status != 404 && expect(reply, 204) != null;
    }

    /**
     * The value of a key; where there is none, made by exactly one caller in the sandbox.
     *
     * @param waitMs  how long to wait for another's initialiser; then IOException
     * @param leaseMs how long an initialiser may take before another gets its turn
     */
    public byte[] getOrInit(String key, Callable<byte[]> init, long waitMs, long leaseMs) throws Exception {
        String path = path(STORE, key);
        HttpConnection.Reply reply = call("POST", path + "/init?wait_ms=" + waitMs + "&lease_ms=" + leaseMs, new byte[0]);
        if (reply.status == 200) {
            return reply.body;
        }
        String lease = expect(reply, 201).header("lantern-lease");
        boolean put = false;
        try {
            byte[] value = init.call();
            expect(call("PUT", path, value, "Lantern-Lease", lease), 200);
            put = true;
            return value;
        } finally {
            if (!put) {
                giveUp(path, lease);
            }
        }
    }

    private void giveUp(String path, String lease) {
        try {
            call("DELETE", path + "/init", null, "Lantern-Lease", lease);
        } catch (IOException e) {
            // The lease ends by itself; what the caller must hear of is why there is no value.
        }
    }

    /** Exclusive use of a name. The token is for `release`; empty if another held it all the time. */
    public Optional<String> lease(String name, long ttlMs, long waitMs) throws IOException {
        HttpConnection.Reply reply = call("POST", path(LEASE, name) + "?ttl_ms=" + ttlMs + "&wait_ms=" + waitMs, new byte[0]);
        return reply.status == 408 ? Optional.empty() : Optional.of(expect(reply, 200).header("lantern-lease"));
    }

    /** Gives a lease back. Returns false if it was another's by then. */
    public boolean release(String name, String token) throws IOException {
        HttpConnection.Reply reply = call("DELETE", path(LEASE, name), null, "Lantern-Lease", token);
        return reply.status != 412 && expect(reply, 204) != null;
    }

    /** The store's metrics, by name. */
    public Map<?, ?> metrics() throws IOException {
        HttpConnection.Reply reply = expect(call("GET", "/lantern/v1/store", null), 200);
        return (Map<?, ?>) Json.read(new String(reply.body, StandardCharsets.UTF_8));
    }

    private HttpConnection.Reply call(String method, String path, byte[] body, String... headers) throws IOException {
        boolean repeatable = method.equals("GET") || method.equals("PUT")
            && (headers.length == 0 || headers[0].equals("Lantern-Ttl-Ms"));
        HttpConnection connection = take();
        HttpConnection.Reply reply = repeatable ? connection.request(method, path, body, headers)
            : connection.requestOnce(method, path, body, headers);
        synchronized (idle) {
            if (!closed && idle.size() < MOST_IDLE) {
                idle.push(connection);
                return reply;
            }
        }
        connection.close();
        return reply;
    }

    private HttpConnection take() {
        synchronized (idle) {
            HttpConnection connection = idle.poll();
            return connection != null ? connection : new HttpConnection(host, port);
        }
    }

    private static HttpConnection.Reply expect(HttpConnection.Reply reply, int status) throws IOException {
        if (reply.status != status) {
            String text = new String(reply.body, StandardCharsets.UTF_8);
            throw new IOException("the shared store answered " + reply.status + " "
                + text.substring(0, Math.min(300, text.length())));
        }
        return reply;
    }

    private static Value value(HttpConnection.Reply reply) {
        return new Value(reply.body, version(reply));
    }

    private static String version(HttpConnection.Reply reply) {
        String tag = reply.header("etag");
        return tag == null ? "" : tag.replace("\"", "");
    }

    private static String quoted(String version) {
        return "\"" + version + "\"";
    }

    private static String path(String root, String key) {
        byte[] bytes = key.getBytes(StandardCharsets.UTF_8);
        if (bytes.length == 0 || bytes.length > MOST_KEY_BYTES) {
            throw new IllegalArgumentException("a key has 1 to " + MOST_KEY_BYTES + " bytes, this one " + bytes.length);
        }
        StringBuilder path = new StringBuilder(root);
        for (byte b : bytes) {
            boolean plain = b >= '0' && b <= '9' || b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || b == '-' || b == '_'
                || b == '~';
            path.append(plain ? String.valueOf((char) b) : String.format("%%%02X", b & 0xff));
        }
        return path.toString();
    }

    @Override
    public void close() {
        synchronized (idle) {
            closed = true;
            for (HttpConnection connection : idle) {
                connection.close();
            }
            idle.clear();
        }
    }
}
