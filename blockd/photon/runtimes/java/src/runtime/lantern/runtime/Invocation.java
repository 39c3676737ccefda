/*
 * One invocation as `next` gave it, and its log. Immutable but for the log, which opens itself at
 * the first output and takes no more once it is closed.
 */
package lantern.runtime;

/** An invocation. */
final class Invocation {
    final String requestId;
    final long deadlineMs;
    final String functionArn;
    final String traceId;
    final String clientContext;
    final String cognitoIdentity;
    final byte[] payload;
    final InvocationLog log;

    Invocation(HttpConnection.Reply reply, Settings settings) {
        requestId = reply.header("lambda-runtime-aws-request-id");
        deadlineMs = millis(reply.header("lambda-runtime-deadline-ms"));
        functionArn = reply.header("lambda-runtime-invoked-function-arn");
        traceId = reply.header("lambda-runtime-trace-id");
        clientContext = reply.header("lambda-runtime-client-context");
        cognitoIdentity = reply.header("lambda-runtime-cognito-identity");
        payload = reply.body;
        log = new InvocationLog(settings, requestId);
    }

    private static long millis(String text) {
        try {
            return text == null ? Long.MAX_VALUE : Long.parseLong(text);
        } catch (NumberFormatException e) {
            return Long.MAX_VALUE;
        }
    }
}
