/*
 * What the environment says, read once at the start. Invariant: a Settings is complete and checked;
 * nothing else in the runtime reads environment variables.
 */
package lantern.runtime;

import java.util.Map;

/** The runtime's settings. */
final class Settings {
    final String apiHost;
    final int apiPort;
    final String handler;
    final int maxConcurrency;
    final String logHost;
    final int logPort;
    final String functionName;
    final String functionVersion;
    final String logGroup;
    final String logStream;
    final int memoryMb;

    private Settings(Map<String, String> env) {
        String[] api = address("AWS_LAMBDA_RUNTIME_API", env.get("AWS_LAMBDA_RUNTIME_API"));
        if (api == null) {
            throw new IllegalArgumentException(
                "AWS_LAMBDA_RUNTIME_API is not set: this program runs inside a sandbox, started by blockd");
        }
        apiHost = api[0];
        apiPort = Integer.parseInt(api[1]);
        String[] log = address("LANTERN_LOG_ADDRESS", env.get("LANTERN_LOG_ADDRESS"));
        logHost = log == null ? null : log[0];
        logPort = log == null ? 0 : Integer.parseInt(log[1]);
        handler = env.getOrDefault("_HANDLER", "");
        maxConcurrency = positive(env, "AWS_LAMBDA_MAX_CONCURRENCY", 1);
        functionName = env.getOrDefault("AWS_LAMBDA_FUNCTION_NAME", "");
        functionVersion = env.getOrDefault("AWS_LAMBDA_FUNCTION_VERSION", "");
        logGroup = env.getOrDefault("AWS_LAMBDA_LOG_GROUP_NAME", "");
        logStream = env.getOrDefault("AWS_LAMBDA_LOG_STREAM_NAME", "");
        memoryMb = positive(env, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 128);
    }

    static Settings from(Map<String, String> env) {
        return new Settings(env);
    }

    private static String[] address(String name, String value) {
        if (value == null || value.isEmpty()) {
            return null;
        }
        int colon = value.lastIndexOf(':');
        try {
            int port = Integer.parseInt(value.substring(colon + 1));
            if (colon > 0 && port > 0 && port < 65536) {
                return new String[] {value.substring(0, colon), Integer.toString(port)};
            }
        } catch (NumberFormatException e) {
            // Said below.
        }
        throw new IllegalArgumentException(name + " is \"" + value + "\"; it must be HOST:PORT");
    }

    private static int positive(Map<String, String> env, String name, int otherwise) {
        String value = env.get(name);
        if (value == null || value.isEmpty()) {
            return otherwise;
        }
        try {
            int number = Integer.parseInt(value.trim());
            if (number > 0) {
                return number;
            }
        } catch (NumberFormatException e) {
            // Said below.
        }
        throw new IllegalArgumentException(name + " is \"" + value + "\"; it must be a whole number above zero");
    }
}
