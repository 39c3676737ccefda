/*
 * blockd's side of a sandbox: the Runtime API, the log address, and what came of each invocation.
 */
package lantern.tests;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** A mock of blockd. */
final class MockApi implements AutoCloseable {
    private static final String ROOT = "/2018-06-01/runtime/";

    /** How an invocation ended. */
    static final class Outcome {
        final boolean failed;
        final String body;
        final String errorType;
        final String log;

        Outcome(boolean failed, String body, String errorType, String log) {
            this.failed = failed;
            this.body = body;
            this.errorType = errorType;
            this.log = log;
        }
    }

    private static final class Pending {
        final String id = UUID.randomUUID().toString();
        final byte[] event;
        final CompletableFuture<Outcome> outcome = new CompletableFuture<>();
        volatile boolean gone;

        Pending(byte[] event) {
            this.event = event;
        }
    }

    private final ExecutorService threads = Executors.newCachedThreadPool();
    private final HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 100);
    private final ServerSocket logs = new ServerSocket(0, 100, InetAddress.getLoopbackAddress());
    private final LinkedBlockingQueue<Pending> queue = new LinkedBlockingQueue<>();
    private final Map<String, Pending> running = new ConcurrentHashMap<>();
    private final Map<String, CompletableFuture<String>> logTexts = new ConcurrentHashMap<>();
    /** Calls of next that wait now, and answers that were refused as late. */
    final AtomicInteger waiting = new AtomicInteger();
    final AtomicInteger late = new AtomicInteger();
    /** Most invocations that ran at once. */
    final AtomicInteger peak = new AtomicInteger();
    /** Answers larger than this are refused, and their invocation is over, as with blockd. */
    volatile int mostAnswerBytes = Integer.MAX_VALUE;
    /** The body of init/error. */
    final CompletableFuture<Outcome> initError = new CompletableFuture<>();
    /** Whether next is answered in chunks. */
    volatile boolean chunked;

    MockApi() throws IOException {
        server.setExecutor(threads);
        server.createContext(ROOT, this::serve);
        server.start();
        threads.submit(this::acceptLogs);
    }

    String address() {
        return "127.0.0.1:" + server.getAddress().getPort();
    }

    String logAddress() {
        return "127.0.0.1:" + logs.getLocalPort();
    }

    CompletableFuture<Outcome> invoke(String event) {
        return invoke(event.getBytes(StandardCharsets.UTF_8));
    }

    CompletableFuture<Outcome> invoke(byte[] event) {
        Pending pending = new Pending(event);
        queue.add(pending);
        return pending.outcome;
    }

    /** An invocation whose answer will be refused, as if its deadline were over. */
    void invokeAndForget(String event) {
        Pending pending = new Pending(event.getBytes(StandardCharsets.UTF_8));
        pending.gone = true;
        queue.add(pending);
    }

    private void serve(HttpExchange exchange) throws IOException {
        try (exchange) {
            byte[] body = exchange.getRequestBody().readAllBytes();
            String path = exchange.getRequestURI().getPath().substring(ROOT.length());
            if (path.equals("invocation/next")) {
                next(exchange);
            } else if (path.equals("init/error")) {
                initError.complete(new Outcome(true, text(body), type(exchange), ""));
                exchange.sendResponseHeaders(202, -1);
            } else {
                answer(exchange, path.split("/"), body);
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private void next(HttpExchange exchange) throws IOException, InterruptedException {
        waiting.incrementAndGet();
        Pending pending;
        try {
            pending = queue.poll(60, TimeUnit.SECONDS);
        } finally {
            waiting.decrementAndGet();
        }
        if (pending == null) {
            return;
        }
        running.put(pending.id, pending);
        peak.accumulateAndGet(running.size(), Math::max);
        exchange.getResponseHeaders().set("Lambda-Runtime-Aws-Request-Id", pending.id);
        exchange.getResponseHeaders().set("Lambda-Runtime-Deadline-Ms", Long.toString(System.currentTimeMillis() + 30_000));
        exchange.getResponseHeaders().set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:local:1:function:f");
        exchange.getResponseHeaders().set("Lambda-Runtime-Trace-Id", "Root=1-2-3");
        exchange.getResponseHeaders().set("Lambda-Runtime-Client-Context", "{\"custom\":{\"a\":\"b\"}}");
        exchange.sendResponseHeaders(200, chunked ? 0 : pending.event.length == 0 ? -1 : pending.event.length);
        if (chunked || pending.event.length > 0) {
            for (int at = 0; at < pending.event.length; at += 1000) {
                exchange.getResponseBody().write(pending.event, at, Math.min(1000, pending.event.length - at));
                if (chunked) {
                    exchange.getResponseBody().flush();
                }
            }
            exchange.getResponseBody().close();
        }
    }

    private void answer(HttpExchange exchange, String[] path, byte[] body) throws IOException {
        Pending pending = running.remove(path[1]);
        if (pending == null || pending.gone) {
            late.incrementAndGet();
            byte[] refusal = "{\"errorMessage\":\"gone\",\"errorType\":\"InvalidRequestID\"}".getBytes(StandardCharsets.UTF_8);
            exchange.sendResponseHeaders(410, refusal.length);
            exchange.getResponseBody().write(refusal);
            return;
        }
        if (body.length > mostAnswerBytes) {
            exchange.sendResponseHeaders(413, -1);
            pending.outcome.complete(new Outcome(true, "", "Function.ResponseSizeTooLarge", log(pending.id)));
            return;
        }
        exchange.sendResponseHeaders(202, -1);
        pending.outcome.complete(new Outcome(path[2].equals("error"), text(body), type(exchange),
            log(pending.id)));
    }

    private static String type(HttpExchange exchange) {
        return exchange.getRequestHeaders().getFirst("Lambda-Runtime-Function-Error-Type");
    }

    private static String text(byte[] body) {
        return new String(body, StandardCharsets.UTF_8);
    }

    /** Accepts in order and reads whose log it is at once, so that what was opened earlier is known earlier. */
    private void acceptLogs() {
        try {
            while (true) {
                Socket socket = logs.accept();
                StringBuilder line = new StringBuilder();
                for (int next = socket.getInputStream().read(); next != '\n' && next >= 0;) {
                    line.append((char) next);
                    next = socket.getInputStream().read();
                }
                CompletableFuture<String> text = logTexts.computeIfAbsent(line.toString(), id -> new CompletableFuture<>());
                threads.submit(() -> readLog(socket, text));
            }
        } catch (IOException e) {
            // Closed.
        }
    }

    private static void readLog(Socket socket, CompletableFuture<String> text) {
        try (socket; InputStream in = socket.getInputStream()) {
            text.complete(new String(in.readAllBytes(), StandardCharsets.UTF_8));
        } catch (IOException e) {
            text.completeExceptionally(e);
        }
    }

    /** The log of an invocation that has been answered: the runtime closed it before, if there was one. */
    private String log(String id) throws IOException {
        String marker = UUID.randomUUID().toString();
        try (Socket socket = new Socket(logs.getInetAddress(), logs.getLocalPort())) {
            socket.getOutputStream().write((marker + "\n").getBytes(StandardCharsets.UTF_8));
        }
        logTexts.computeIfAbsent(marker, fresh -> new CompletableFuture<>()).join();
        CompletableFuture<String> text = logTexts.get(id);
        return text == null ? "" : text.join();
    }

    @Override
    public void close() throws IOException {
        server.stop(0);
        logs.close();
        threads.shutdownNow();
    }
}
