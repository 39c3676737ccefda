/*
 * A handler written against AWS's interfaces.
 */
package app;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import java.util.Map;

/** Says what it was given. */
public class Aws implements RequestHandler<Map<String, Object>, Map<String, Object>> {
    private int calls;

    @Override
    public Map<String, Object> handleRequest(Map<String, Object> input, Context context) {
        calls++;
        context.getLogger().log("logged by the logger");
        return Map.of("input", input, "function", context.getFunctionName(), "id", context.getAwsRequestId(), "calls", calls,
            "time", context.getRemainingTimeInMillis() > 0,
            "custom", context.getClientContext() == null ? "none" : context.getClientContext().getCustom().get("a"));
    }
}
