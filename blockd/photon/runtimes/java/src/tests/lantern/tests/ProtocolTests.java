/*
 * The runtime as a process against a mock of blockd: handler shapes, errors, concurrency, late
 * answers, logs.
 */
package lantern.tests;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** See the head of this file. */
final class ProtocolTests {
    private ProtocolTests() {}

    static void run() {
        Check.test("handler shapes", ProtocolTests::shapes);
        Check.test("AWS's interfaces", ProtocolTests::aws);
        Check.test("statics and handler fields start anew in every invocation", ProtocolTests::anew);
        Check.test("without the agent statics are shared", ProtocolTests::withoutAgent);
        Check.test("errors", ProtocolTests::errors);
        Check.test("exit ends the invocation, not the sandbox", ProtocolTests::exit);
        Check.test("init errors", ProtocolTests::initErrors);
        Check.test("concurrency", ProtocolTests::concurrency);
        Check.test("a late answer", ProtocolTests::late);
        Check.test("logs per invocation", ProtocolTests::logs);
        Check.test("large and chunked events", ProtocolTests::large);
        Check.test("an answer that is too large is not answered twice", ProtocolTests::tooLarge);
        Check.test("no memory: the others finish, then the process ends", ProtocolTests::noMemory);
        Check.test("no memory to take an event: the process ends", ProtocolTests::noMemoryForEvent);
    }

    private static void expect(String handler, String event, String wanted) throws Exception {
        try (Sandbox sandbox = new Sandbox(handler, 1)) {
            MockApi.Outcome outcome = sandbox.invoke(event);
            Check.equal(wanted, outcome.body);
            Check.that(!outcome.failed, "it failed");
            Check.equal(wanted, sandbox.invoke(event).body);
        }
    }

    private static void shapes() throws Exception {
        expect("app.Plain::echo", "\"h\\u00e4\"", "\"hä!\"");
        expect("app.Plain::bytes", "abc", "cba");
        expect("app.Plain::streams", "abc", "abc");
        expect("app.Plain::nothing", "{}", "null");
        try (Sandbox sandbox = new Sandbox("app.Plain::context", 1)) {
            String body = sandbox.invoke("{}").body;
            Check.contains(body, "\"Root=1-2-3\",\"arn:aws:lambda:local:1:function:f\",true,");
        }
    }

    private static void aws() throws Exception {
        try (Sandbox sandbox = new Sandbox("app.Aws", 1)) {
            for (int i = 0; i < 2; i++) {
                MockApi.Outcome outcome = sandbox.invoke("{\"n\":[1,2.5,null,true]}");
                Check.contains(outcome.body, "\"input\":{\"n\":[1,2.5,null,true]}");
                Check.contains(outcome.body, "\"function\":\"f\"");
                Check.contains(outcome.body, "\"calls\":1");
                Check.contains(outcome.body, "\"time\":true");
                Check.contains(outcome.body, "\"custom\":\"b\"");
                Check.equal("logged by the logger\n", outcome.log);
            }
        }
    }

    private static void anew() throws Exception {
        expect("app.Plain::count", "[1,2,3]", "1113");
    }

    private static void withoutAgent() throws Exception {
        try (Sandbox sandbox = new Sandbox("app.Plain::count", 1, false, Map.of())) {
            Check.equal("1112", sandbox.invoke("[1,2]").body);
            Check.equal("2122", sandbox.invoke("[1,2]").body);
        }
    }

    private static void errors() throws Exception {
        try (Sandbox sandbox = new Sandbox("app.Plain::fail", 1)) {
            for (int i = 0; i < 2; i++) {
                MockApi.Outcome outcome = sandbox.invoke("\"x\"");
                Check.that(outcome.failed, "it did not fail");
                Check.equal("java.lang.IllegalStateException", outcome.errorType);
                Check.contains(outcome.body, "\"errorMessage\":\"failed with \\\"x\\\"\\u000aand a second line\"");
                Check.contains(outcome.body, "\"stackTrace\":[\"app.Plain.fail(Plain.java:");
                Check.contains(outcome.body, "\"errorMessage\":\"the cause\"");
                Check.contains(outcome.log, "IllegalStateException");
            }
        }
        try (Sandbox sandbox = new Sandbox("app.Plain::deep", 1)) {
            Check.equal("java.lang.StackOverflowError", sandbox.invoke("\"x\"").errorType);
            Check.equal("java.lang.StackOverflowError", sandbox.invoke("\"x\"").errorType);
        }
        try (Sandbox sandbox = new Sandbox("app.Plain::sleep", 1)) {
            Check.contains(sandbox.invoke("\"x\"").body, "takes a int");
            Check.contains(sandbox.invoke("{").body, "not JSON");
            Check.equal("1", sandbox.invoke("1").body);
        }
    }

    private static void exit() throws Exception {
        try (Sandbox sandbox = new Sandbox("app.Plain::exit", 1)) {
            Check.equal("lantern.photon.PhotonExit", sandbox.invoke("1").errorType);
            Check.equal("lantern.photon.PhotonExit", sandbox.invoke("1").errorType);
        }
    }

    private static void initError(String handler, String type, String message) throws Exception {
        try (Sandbox sandbox = new Sandbox(handler, 1)) {
            MockApi.Outcome outcome = sandbox.api.initError.get(30, TimeUnit.SECONDS);
            Check.equal(type, outcome.errorType);
            Check.contains(outcome.body, message);
            Check.that(sandbox.process.waitFor(30, TimeUnit.SECONDS), "the process goes on");
            Check.equal(1, sandbox.process.exitValue());
        }
    }

    private static void initErrors() throws Exception {
        initError("app.Missing", "Runtime.HandlerNotFound", "class app.Missing");
        initError("app.Plain::missing", "Runtime.HandlerNotFound", "no method missing");
        initError("", "Runtime.NoHandler", "_HANDLER");
        initError("app.Plain::pojo", "Runtime.HandlerUnsupported", "gson or jackson");
        initError("app.Broken", "java.lang.UnsupportedOperationException", "no luck today");
    }

    private static void concurrency() throws Exception {
        try (Sandbox sandbox = new Sandbox("app.Plain::sleep", 16)) {
            sandbox.invoke("1");
            List<CompletableFuture<MockApi.Outcome>> all = new ArrayList<>();
            for (int i = 0; i < 20; i++) {
                all.add(sandbox.api.invoke("1000"));
            }
            for (int i = 0; i < 20; i++) {
                Check.equal("1000", all.get(i).get(30, TimeUnit.SECONDS).body);
            }
            // Sixteen at once, then four.
            Check.equal(16, sandbox.api.peak.get());
            Check.that(sandbox.api.waiting.get() <= 16, "more wait than the limit says");
        }
    }

    private static void late() throws Exception {
        try (Sandbox sandbox = new Sandbox("app.Plain::sleep", 1)) {
            sandbox.api.invokeAndForget("10");
            Check.equal("1", sandbox.invoke("1").body);
            Check.equal(1, sandbox.api.late.get());
        }
    }

    private static void logs() throws Exception {
        try (Sandbox sandbox = new Sandbox("app.Plain::print", 8)) {
            List<CompletableFuture<MockApi.Outcome>> all = new ArrayList<>();
            for (int i = 0; i < 50; i++) {
                all.add(sandbox.api.invoke("\"" + i + "\""));
            }
            for (int i = 0; i < 50; i++) {
                Check.equal("out " + i + "\nerr " + i + "\nthread " + i, all.get(i).get(30, TimeUnit.SECONDS).log);
            }
        }
    }

    private static void large() throws Exception {
        try (Sandbox sandbox = new Sandbox("app.Plain::streams", 1)) {
            String event = "0123456789".repeat(600_000);
            Check.equal(event, sandbox.invoke(event).body);
            sandbox.api.chunked = true;
            Check.equal(event, sandbox.invoke(event).body);
            Check.equal(event, sandbox.invoke(event).body);
        }
    }

    private static void tooLarge() throws Exception {
        try (Sandbox sandbox = new Sandbox("app.Plain::many", 1)) {
            sandbox.api.mostAnswerBytes = 1000;
            Check.equal("Function.ResponseSizeTooLarge", sandbox.invoke("1001").errorType);
            Check.that(!sandbox.invoke("1000").failed, "one of the right size failed");
            Check.equal(0, sandbox.api.late.get());
        }
    }

    private static void noMemory() throws Exception {
        try (Sandbox sandbox = new Sandbox("app.Plain::memory", 4, true, Map.of(), "-Xmx24m")) {
            CompletableFuture<MockApi.Outcome> neighbour = sandbox.api.invoke("2000");
            MockApi.Outcome outcome = sandbox.invoke("-1");
            Check.equal("java.lang.OutOfMemoryError", outcome.errorType);
            Check.that(sandbox.process.isAlive(), "the process ended under its other invocations");
            Check.equal("2000", neighbour.get(30, TimeUnit.SECONDS).body);
            Check.that(sandbox.process.waitFor(10, TimeUnit.SECONDS), "the process goes on");
            Check.equal(1, sandbox.process.exitValue());
        }
    }

    private static void noMemoryForEvent() throws Exception {
        try (Sandbox sandbox = new Sandbox("app.Plain::streams", 1, true, Map.of(), "-Xmx16m")) {
            Check.equal("1", sandbox.invoke("1").body);
            sandbox.api.invoke("x".repeat(30_000_000));
            Check.that(sandbox.process.waitFor(20, TimeUnit.SECONDS), "the process goes on with a slot less");
            Check.equal(1, sandbox.process.exitValue());
        }
    }
}
