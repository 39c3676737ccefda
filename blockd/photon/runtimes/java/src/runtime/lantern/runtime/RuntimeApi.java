/*
 * The Lambda Runtime API 2018-06-01, as a client on one connection. Used by one slot.
 */
package lantern.runtime;

import java.io.IOException;
import java.nio.charset.StandardCharsets;

/** A client of the Runtime API. */
final class RuntimeApi implements AutoCloseable {
    private static final String ROOT = "/2018-06-01/runtime/";
    /** A late answer: the invocation has been answered without us. */
    private static final int GONE = 410;
    /** Larger than the Runtime API takes: blockd has told the caller so. */
    private static final int TOO_LARGE = 413;

    private final Settings settings;
    private final HttpConnection connection;

    RuntimeApi(Settings settings) {
        this.settings = settings;
        this.connection = new HttpConnection(settings.apiHost, settings.apiPort);
    }

    /** Waits for an invocation. */
    Invocation next() throws IOException {
        HttpConnection.Reply reply = connection.request("GET", ROOT + "invocation/next", null);
        if (reply.status != 200) {
            throw new IOException("next was answered " + reply.status + " " + text(reply));
        }
        if (reply.header("lambda-runtime-aws-request-id") == null) {
            throw new IOException("next gave no Lambda-Runtime-Aws-Request-Id");
        }
        return new Invocation(reply, settings);
    }

    /** Answers. A reply that is too large or late is dropped: blockd has answered instead. */
    void respond(Invocation invocation, byte[] payload) throws IOException {
        check("response", connection.request("POST", ROOT + "invocation/" + invocation.requestId + "/response", payload,
            "Content-Type", "application/json"));
    }

    /** Reports that the handler failed. */
    void fail(Invocation invocation, Failure failure) throws IOException {
        check("error", connection.request("POST", ROOT + "invocation/" + invocation.requestId + "/error", failure.json(),
            "Content-Type", "application/vnd.aws.lambda.error+json", "Lambda-Runtime-Function-Error-Type", failure.type));
    }

    /** Reports that the handler could not be loaded. */
    void failInit(Failure failure) throws IOException {
        check("init/error", connection.request("POST", ROOT + "init/error", failure.json(),
            "Content-Type", "application/vnd.aws.lambda.error+json", "Lambda-Runtime-Function-Error-Type", failure.type));
    }

    /** Lets the call that waits be the last on this connection. From any thread. */
    void lastRequest() {
        connection.lastRequest();
    }

    private static void check(String what, HttpConnection.Reply reply) throws IOException {
        if (reply.status / 100 != 2 && reply.status != GONE && reply.status != TOO_LARGE) {
            throw new IOException(what + " was answered " + reply.status + " " + text(reply));
        }
    }

    private static String text(HttpConnection.Reply reply) {
        String text = new String(reply.body, StandardCharsets.UTF_8);
        return text.length() > 300 ? text.substring(0, 300) : text;
    }

    @Override
    public void close() {
        connection.close();
    }
}
