/*
 * What a handler may ask about its invocation, without depending on AWS's library.
 */
package lantern.runtime;

/** An invocation's context, as the last parameter of a handler. */
public interface Context {
    /** The invocation's name. */
    String getAwsRequestId();

    /** The function's name. */
    String getFunctionName();

    /** The function's version. */
    String getFunctionVersion();

    /** The ARN that was invoked. */
    String getInvokedFunctionArn();

    /** The log group. */
    String getLogGroupName();

    /** The log stream. */
    String getLogStreamName();

    /** Memory of the sandbox in MiB, as configured. */
    int getMemoryLimitInMB();

    /** Milliseconds until the deadline; 0 when it is over. */
    int getRemainingTimeInMillis();

    /** The caller's trace id (what single-invocation runtimes call _X_AMZN_TRACE_ID); null without one. */
    String getTraceId();

    /** The client context as JSON; null without one. */
    String getClientContextJson();

    /** A name that no other invocation has, for private files below /tmp. */
    String getPhotonId();
}
