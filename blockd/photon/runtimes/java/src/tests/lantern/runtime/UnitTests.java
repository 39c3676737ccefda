/*
 * Tests of the runtime's parts, in its package.
 */
package lantern.runtime;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.lang.reflect.Method;
import java.math.BigDecimal;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.AbstractList;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import lantern.tests.Check;

/** See the head of this file. */
public final class UnitTests {
    private UnitTests() {}

    /** How tests are run. */
    public interface Run {
        void test(String name, Check.Body body);
    }

    /** All. */
    public static void run(Run run) {
        run.test("json: reads and writes", UnitTests::json);
        run.test("json: refuses", UnitTests::notJson);
        run.test("store: versions, ttl, budget", UnitTests::store);
        run.test("store: getOrInit runs once under 100 threads", UnitTests::initOnce);
        run.test("store: an initialiser that fails gives the next its turn", UnitTests::initFails);
        run.test("store: a value whose size cannot be estimated locks nothing", UnitTests::sizeFails);
        run.test("store: leases exclude", UnitTests::leases);
        run.test("store: leases that are over are forgotten", UnitTests::oldLeases);
        run.test("converter: elements are what type arguments say", UnitTests::generics);
        run.test("store client", UnitTests::client);
        run.test("leak check", UnitTests::leakCheck);
        run.test("slots grow and shrink within their limit", UnitTests::slots);
        run.test("slots that cannot be started do not count", UnitTests::noThreads);
        run.test("slots drain", UnitTests::drains);
        run.test("connection: the last request", UnitTests::lastRequest);
        run.test("store client: a broken connection", UnitTests::brokenConnection);
        run.test("connection: a refusal before the end of a request", UnitTests::refusedEarly);
    }

    private static void json() {
        String text = "{\"a\":[1,-2.5,1.0E10,12345678901,123456789012345678901234,true,null,\"\\\"\\\\\\u000a\u00e4\"],\"b\":{},\"c\":[]}";
        Check.equal(text, Json.write(Json.read(text)));
        Check.equal("[1,2]", Json.write(new int[] {1, 2}));
        Check.equal("\"\\ud800\"", Json.write("\ud800"));
        Check.equal("\ud83d\ude00", Json.read("\"\\ud83d\\ude00\""));
    }

    private static void notJson() throws Exception {
        for (String text : List.of("", "{", "[1,]", "{\"a\"}", "01", "1.", "\"a", "\"\n\"", "nul", "1 2", "\"\\x\"", "-",
            "[".repeat(100_000))) {
            Check.throwsWith("not JSON", () -> Json.read(text));
        }
        List<Object> self = new ArrayList<>();
        self.add(self);
        Check.throwsWith("nesting", () -> Json.write(self));
        Check.throwsWith("cannot be written", () -> Json.write(new Object()));
    }

    private static void store() throws Exception {
        AtomicLong now = new AtomicLong();
        SharedStore store = new SharedStore(1000, now::get);
        long first = store.put("a", "one", 400, 0);
        Check.equal("one", store.get("a"));
        Check.that(!store.compareAndSwap("a", first + 1, "two"), "swapped on a wrong version");
        Check.that(store.compareAndSwap("a", first, "two"), "not swapped");
        Check.that(!store.compareAndSwap("a", 0, "three"), "swapped though it was there");
        Check.that(store.compareAndSwap("b", 0, "b"), "not put though it was not there");
        store.put("c", "c", 400, 5);
        store.put("d", "d", 400, 0);
        store.get("c");
        store.put("e", "e", 400, 0);
        Check.equal(null, store.get("a"));
        Check.equal(null, store.get("d"));
        Check.equal("c", store.get("c"));
        now.set(5_000_000);
        Check.equal(null, store.get("c"));
        Check.equal(1L, store.metrics().expired);
        Check.that(store.metrics().evictions > 0 && store.metrics().bytes <= 1000, "the budget is not kept");
        Check.throwsWith("does not fit", () -> store.put("f", "f", 1001, 0));
        Check.that(store.delete("e") && !store.delete("e"), "deleted twice");
        Check.equal(16L + 4 * 3 + 3 * (32 + 2), Sizes.estimate(new String[] {"a", "b", "c"}));
    }

    private static void initOnce() throws Exception {
        SharedStore store = new SharedStore(1000, System::nanoTime);
        AtomicInteger runs = new AtomicInteger();
        CountDownLatch all = new CountDownLatch(100);
        List<FutureTask<Object>> tasks = new ArrayList<>();
        for (int i = 0; i < 100; i++) {
            FutureTask<Object> task = new FutureTask<>(() -> {
                all.countDown();
                all.await();
                return store.<Object>getOrInit("model", () -> {
                    runs.incrementAndGet();
                    Thread.sleep(20);
                    return new Object();
                });
            });
            tasks.add(task);
            new Thread(task).start();
        }
        Object value = tasks.get(0).get();
        for (FutureTask<Object> task : tasks) {
            Check.that(task.get() == value, "two values");
        }
        Check.equal(1, runs.get());
        Check.throwsWith("asks for its own value", () -> store.getOrInit("x", () -> store.getOrInit("x", () -> 1)));
    }

    private static void initFails() throws Exception {
        SharedStore store = new SharedStore(1000, System::nanoTime);
        CountDownLatch begun = new CountDownLatch(1);
        FutureTask<Object> first = new FutureTask<>(() -> store.getOrInit("k", () -> {
            begun.countDown();
            Thread.sleep(20);
            throw new IOException("cannot");
        }));
        new Thread(first).start();
        begun.await();
        Check.equal("second", store.getOrInit("k", () -> "second"));
        Check.throwsWith("cannot", () -> first.get());
    }

    private static void sizeFails() throws Exception {
        SharedStore store = new SharedStore(1000, System::nanoTime);
        List<Object> broken = new AbstractList<>() {
            @Override
            public Object get(int index) {
                throw new IllegalStateException("no elements");
            }

            @Override
            public int size() {
                return 1;
            }
        };
        Check.throwsWith("no elements", () -> store.getOrInit("k", () -> broken));
        FutureTask<Object> second = new FutureTask<>(() -> store.getOrInit("k", () -> "second"));
        Thread thread = new Thread(second);
        thread.setDaemon(true);
        thread.start();
        Check.equal("second", second.get(10, TimeUnit.SECONDS));
    }

    private static void oldLeases() throws Exception {
        AtomicLong now = new AtomicLong();
        SharedStore store = new SharedStore(1000, now::get);
        SharedStore.Lease held = store.lease("held", 1_000_000, 0).get();
        for (int i = 0; i < 10_000; i++) {
            store.lease("once-" + i, 1, 0).get();
            now.addAndGet(1_000_000);
        }
        Check.that(store.leases() <= 128, store.leases() + " leases are kept");
        Check.that(held.isHeld(), "one that is held was forgotten");
    }

    /** Parameters of every generic sort. */
    @SuppressWarnings("unused") // By reflection.
    private static final class Generic<T extends Map<String, Long>> {
        void longs(List<Long> in) {}

        void doubles(Map<String, Double> in) {}

        void nested(Map<String, List<Map<String, BigDecimal>>> in) {}

        void strings(Map<String, String> in) {}

        void keys(HashMap<Integer, Short> in) {}

        void wild(Collection<? extends Number> in) {}

        void upper(List<? extends Float> in) {}

        void variable(T in) {}

        void any(List<?> in) {}

        void arrays(List<String>[] in) {}

        void sets(java.util.Set<String> in) {}
    }

    private static Object converted(String method, String event) throws Exception {
        Method found = Arrays.stream(Generic.class.getDeclaredMethods()).filter(each -> each.getName().equals(method))
            .findAny().get();
        try {
            return new Converter(UnitTests.class.getClassLoader()).input(found.getGenericParameterTypes()[0])
                .of(event.getBytes(StandardCharsets.UTF_8));
        } catch (Exception e) {
            throw e;
        } catch (Throwable thrown) {
            throw new AssertionError(thrown);
        }
    }

    private static void generics() throws Exception {
        Check.equal(List.of(1L, 12345678901L), converted("longs", "[1,12345678901]"));
        Check.equal(Map.of("price", 5.0), converted("doubles", "{\"price\":5}"));
        Check.equal(Map.of("a", List.of(Map.of("b", new BigDecimal(7)))), converted("nested", "{\"a\":[{\"b\":7}]}"));
        Check.equal(Map.of("a", "1", "b", "true", "c", "x"), converted("strings", "{\"a\":1,\"b\":true,\"c\":\"x\"}"));
        Check.equal(Map.of(1, (short) 2), converted("keys", "{\"1\":2}"));
        Check.equal(List.of(1, 2.5), converted("wild", "[1,2.5]"));
        Check.equal(List.of(1f), converted("upper", "[1]"));
        Check.equal(Map.of("a", 1L), converted("variable", "{\"a\":1}"));
        Check.equal(List.of(1, "a", List.of()), converted("any", "[1,\"a\",[]]"));
        Check.equal(null, ((List<?>) converted("longs", "[null]")).get(0));
        Check.throwsWith("holds a JSON String, but the handler takes a Long", () -> converted("longs", "[\"a\"]"));
        Check.throwsWith("1.5 is no Long", () -> converted("longs", "[1.5]"));
        Check.throwsWith("name \"x\"", () -> converted("keys", "{\"x\":2}"));
        Check.throwsWith("is a JSON ArrayList, but the handler takes a Map", () -> converted("doubles", "[]"));
        for (String other : List.of("arrays", "sets")) {
            Check.throwsWith("gson or jackson", () -> converted(other, "[]"));
        }
    }

    private static void leases() throws Exception {
        AtomicLong now = new AtomicLong();
        SharedStore store = new SharedStore(1000, now::get);
        SharedStore.Lease lease = store.lease("l", 10, 0).get();
        Check.that(lease.isHeld() && store.lease("l", 10, 0).isEmpty(), "two hold it");
        lease.close();
        SharedStore.Lease second = store.lease("l", 10, 0).get();
        now.set(10_000_000);
        Check.that(!second.isHeld(), "held after its time");
        SharedStore.Lease third = store.lease("l", 10, 0).get();
        second.close();
        Check.that(third.isHeld(), "another's close ended it");
    }

    /** A server that answers as the contract says for one key, and keeps what it was asked. */
    private static void client() throws Exception {
        List<String> asked = new ArrayList<>();
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/lantern/v1/", exchange -> answer(exchange, asked));
        server.start();
        try (StoreClient store = new StoreClient("127.0.0.1:" + server.getAddress().getPort())) {
            Check.equal("value", new String(store.get("k/1 \u00e4").get().bytes, StandardCharsets.UTF_8));
            Check.equal("7", store.get("k/1 \u00e4").get().version);
            Check.that(store.get("none").isEmpty(), "there is none");
            Check.equal("7", store.put("k", new byte[100_000], 50));
            Check.that(store.compareAndSwap("k", "6", new byte[0]).isEmpty(), "it did not hold");
            Check.equal(Optional.of("7"), store.compareAndSwap("k", "7", new byte[0]));
            Check.that(store.delete("k") && !store.delete("none"), "deletes");
            Check.equal("made", new String(store.getOrInit("init", () -> "made".getBytes(StandardCharsets.UTF_8), 5, 6),
                StandardCharsets.UTF_8));
            Check.throwsWith("cannot", () -> store.getOrInit("init", () -> {
                throw new IOException("cannot");
            }, 5, 6));
            Check.equal(Optional.of("t"), store.lease("l", 1, 2));
            Check.that(store.release("l", "t") && !store.release("l", "other"), "releases");
            Check.equal(3, store.metrics().get("keys"));
        } finally {
            server.stop(0);
        }
        Check.contains(asked.toString(), "GET /lantern/v1/store/k%2F1%20%C3%A4 ");
        Check.contains(asked.toString(), "PUT /lantern/v1/store/k ttl=50");
        Check.contains(asked.toString(), "POST /lantern/v1/store/init/init?wait_ms=5&lease_ms=6");
        Check.contains(asked.toString(), "PUT /lantern/v1/store/init lease=t");
        Check.contains(asked.toString(), "DELETE /lantern/v1/store/init/init lease=t");
        Check.contains(asked.toString(), "POST /lantern/v1/lease/l?ttl_ms=1&wait_ms=2");
    }

    private static void answer(HttpExchange exchange, List<String> asked) throws IOException {
        try (exchange) {
            exchange.getRequestBody().readAllBytes();
            String method = exchange.getRequestMethod();
            String uri = exchange.getRequestURI().toString();
            String lease = exchange.getRequestHeaders().getFirst("Lantern-Lease");
            String ttl = exchange.getRequestHeaders().getFirst("Lantern-Ttl-Ms");
            String match = exchange.getRequestHeaders().getFirst("If-Match");
            asked.add(method + " " + uri + " " + (ttl == null ? "" : "ttl=" + ttl) + (lease == null ? "" : "lease=" + lease));
            exchange.getResponseHeaders().set("ETag", "\"7\"");
            exchange.getResponseHeaders().set("Lantern-Lease", "t");
            byte[] body = uri.endsWith("/store") ? "{\"keys\":3}".getBytes(StandardCharsets.UTF_8)
                : "value".getBytes(StandardCharsets.UTF_8);
            int status = uri.endsWith("none") ? 404 : match != null && !match.equals("\"7\"") ? 412
                : lease != null && !lease.equals("t") ? 412 : method.equals("DELETE") ? 204
                : method.equals("POST") && uri.contains("/init?") ? 201 : 200;
            exchange.sendResponseHeaders(status, status == 204 ? -1 : body.length);
            if (status != 204) {
                exchange.getResponseBody().write(body);
            }
        }
    }

    private static void leakCheck() throws Exception {
        List<String> found = new ArrayList<>();
        for (LeakCheck.Finding finding : new LeakCheck(true, List.of("lantern.", "com.", "app."))
            .run(System.getProperty("lantern.tests.classes"))) {
            found.add(finding.className + "." + finding.field);
        }
        Check.equal(List.of("leak.Constants.ARRAY", "leak.Constants.ATOMIC", "leak.Constants.BEAN", "leak.Constants.FORMAT",
            "leak.Constants.LIST", "leak.Constants.NESTED", "leak.Probes.CONSTANT", "leak.Probes$Mode.ONLY",
            "leak.Statics.INITIALISERS"), found);
    }

    /** A process whose threads are only counted. */
    private static final class Counted implements Slots.Host {
        int started;
        int stopped;
        int ended;
        boolean full;

        @Override
        public void start() {
            if (full) {
                throw new OutOfMemoryError("unable to create native thread");
            }
            started++;
        }

        @Override
        public void stopWaiting() {
            stopped++;
        }

        @Override
        public void end() {
            ended++;
        }
    }

    private static void slots() {
        Counted host = new Counted();
        Slots slots = new Slots(5, host);
        slots.begin();
        Check.equal(2, host.started);
        for (int i = 0; i < 5; i++) {
            slots.taken();
        }
        Check.equal(5, host.started);
        int kept = 0;
        for (int i = 0; i < 5; i++) {
            kept += slots.keep() ? 1 : 0;
        }
        // All five were busy a moment ago.
        Check.equal(5, kept);
        Slots one = new Slots(1, host);
        one.begin();
        one.taken();
        Check.that(one.keep(), "the only slot ended");
        Check.equal(6, host.started);
    }

    private static void noThreads() {
        Counted host = new Counted();
        Slots slots = new Slots(5, host);
        slots.begin();
        host.full = true;
        slots.taken();
        slots.taken();
        Check.that(slots.keep() && slots.keep(), "a slot ended though there are too few");
        host.full = false;
        slots.taken();
        slots.taken();
        // One that was not started must not count as one that waits.
        Check.equal(4, host.started);
    }

    private static void drains() {
        Counted host = new Counted();
        Slots slots = new Slots(5, host);
        slots.begin();
        slots.taken();
        slots.taken();
        slots.drain();
        slots.drain();
        Check.equal(1, host.stopped);
        Check.that(!slots.keep(), "a slot waits for more");
        slots.left();
        Check.equal(0, host.ended);
        slots.gone();
        Check.equal(0, host.ended);
        Check.that(!slots.keep(), "a slot waits for more");
        slots.left();
        Check.equal(1, host.ended);
    }

    /** A call that waits can be told to be the last, and takes a reply that comes all the same. */
    private static void lastRequest() throws Exception {
        try (ServerSocket server = new ServerSocket(0, 10, InetAddress.getLoopbackAddress());
            HttpConnection connection = new HttpConnection("127.0.0.1", server.getLocalPort())) {
            FutureTask<HttpConnection.Reply> next = new FutureTask<>(() -> connection.request("GET", "/next", null));
            new Thread(next).start();
            try (Socket socket = server.accept()) {
                head(socket);
                connection.lastRequest();
                Check.equal(-1, socket.getInputStream().read());
                socket.getOutputStream().write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1".getBytes(StandardCharsets.UTF_8));
                Check.equal(200, next.get().status);
            }
        }
    }

    /** A connection that breaks in its second request: what is sent again, and what is not. */
    private static void brokenConnection() throws Exception {
        List<String> asked = Collections.synchronizedList(new ArrayList<>());
        try (ServerSocket server = new ServerSocket(0, 10, InetAddress.getLoopbackAddress());
            StoreClient store = new StoreClient("127.0.0.1:" + server.getLocalPort())) {
            Thread thread = new Thread(() -> {
                try {
                    while (true) {
                        try (Socket socket = server.accept()) {
                            asked.add(head(socket));
                            socket.getOutputStream().write(
                                "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 0\r\n\r\n".getBytes(StandardCharsets.UTF_8));
                            asked.add(head(socket));
                        }
                    }
                } catch (IOException e) {
                    // Closed.
                }
            });
            thread.start();
            store.get("a");
            store.get("b");
            List<Check.Body> once = List.of(() -> store.compareAndSwap("c", "1", new byte[0]), () -> store.lease("l", 1, 1),
                () -> store.delete("d"), () -> store.getOrInit("i", () -> new byte[0], 1, 1), () -> store.release("l", "t"));
            for (Check.Body call : once) {
                // The first of a connection is answered.
                Check.throwsWith("closed", call);
                store.get("x");
            }
        }
        for (String each : List.of("PUT /lantern/v1/store/c", "POST /lantern/v1/lease/l", "DELETE /lantern/v1/store/d",
            "POST /lantern/v1/store/i/init", "DELETE /lantern/v1/lease/l")) {
            Check.equal(1L, asked.stream().filter(line -> line.startsWith(each)).count());
        }
        Check.equal(2L, asked.stream().filter(line -> line.startsWith("GET /lantern/v1/store/b")).count());
    }

    /** A server that has heard enough answers and closes: what it said is the reply. */
    private static void refusedEarly() throws Exception {
        byte[] large = new byte[32 << 20];
        try (ServerSocket server = new ServerSocket(0, 10, InetAddress.getLoopbackAddress());
            HttpConnection connection = new HttpConnection("127.0.0.1", server.getLocalPort())) {
            Thread thread = new Thread(() -> {
                for (String reply : List.of("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!",
                    "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!", "")) {
                    try (Socket socket = server.accept()) {
                        head(socket);
                        socket.getOutputStream().write(reply.getBytes(StandardCharsets.UTF_8));
                    } catch (IOException e) {
                        return;
                    }
                }
            });
            thread.start();
            for (int i = 0; i < 2; i++) {
                HttpConnection.Reply reply = connection.request("PUT", "/", large);
                Check.equal(413, reply.status);
                Check.equal("no!", new String(reply.body, StandardCharsets.UTF_8));
            }
            try {
                connection.requestOnce("PUT", "/", large);
                throw new AssertionError("a request that was cut short without a word succeeded");
            } catch (IOException expected) {
                thread.join();
            }
        }
    }

    /** The first line of a request without a body. */
    private static String head(Socket socket) throws IOException {
        StringBuilder head = new StringBuilder();
        while (head.indexOf("\r\n\r\n") < 0) {
            int next = socket.getInputStream().read();
            if (next < 0) {
                throw new IOException("closed");
            }
            head.append((char) next);
        }
        return head.substring(0, head.indexOf("\r\n"));
    }
}
