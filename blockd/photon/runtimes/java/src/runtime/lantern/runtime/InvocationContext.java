/*
 * The Context of one invocation. Immutable.
 */
package lantern.runtime;

/** A Context over an invocation and the settings. */
final class InvocationContext implements Context {
    final Settings settings;
    final Invocation invocation;

    InvocationContext(Settings settings, Invocation invocation) {
        this.settings = settings;
        this.invocation = invocation;
    }

    @Override public String getAwsRequestId() { return invocation.requestId; }
    @Override public String getFunctionName() { return settings.functionName; }
    @Override public String getFunctionVersion() { return settings.functionVersion; }
    @Override public String getInvokedFunctionArn() { return invocation.functionArn; }
    @Override public String getLogGroupName() { return settings.logGroup; }
    @Override public String getLogStreamName() { return settings.logStream; }
    @Override public int getMemoryLimitInMB() { return settings.memoryMb; }
    @Override public String getTraceId() { return invocation.traceId; }
    @Override public String getClientContextJson() { return invocation.clientContext; }
    @Override public String getPhotonId() { return invocation.requestId; }

    @Override
    public int getRemainingTimeInMillis() {
        long left = invocation.deadlineMs - System.currentTimeMillis();
        return (int) Math.max(0, Math.min(Integer.MAX_VALUE, left));
    }
}
