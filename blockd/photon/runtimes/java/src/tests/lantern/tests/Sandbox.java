/*
 * A runtime process as blockd starts it, against a MockApi. LANTERN_TEST_RUNTIME is the directory
 * that `build` made.
 */
package lantern.tests;

import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** A started runtime. */
final class Sandbox implements AutoCloseable {
    static final String RUNTIME = System.getenv("LANTERN_TEST_RUNTIME");
    final MockApi api = new MockApi();
    final Process process;

    Sandbox(String handler, int concurrency, boolean agent, Map<String, String> environment, String... options)
        throws IOException {
        List<String> command = new ArrayList<>();
        command.add(System.getProperty("java.home") + "/bin/java");
        if (agent) {
            command.add("@" + RUNTIME + "/options");
            command.add("-Xbootclasspath/a:" + RUNTIME + "/lantern-agent.jar");
            command.add("-javaagent:" + RUNTIME + "/lantern-agent.jar");
        }
        command.addAll(List.of(options));
        command.add("-cp");
        command.add(RUNTIME + "/lantern-runtime.jar" + File.pathSeparator + System.getProperty("lantern.tests.classes"));
        command.add("lantern.runtime.Bootstrap");
        ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true)
            .redirectOutput(ProcessBuilder.Redirect.INHERIT);
        Map<String, String> env = builder.environment();
        env.put("AWS_LAMBDA_RUNTIME_API", api.address());
        env.put("LANTERN_LOG_ADDRESS", api.logAddress());
        env.put("AWS_LAMBDA_MAX_CONCURRENCY", Integer.toString(concurrency));
        env.put("AWS_LAMBDA_FUNCTION_NAME", "f");
        env.put("_HANDLER", handler);
        env.putAll(environment);
        process = builder.start();
    }

    Sandbox(String handler, int concurrency) throws IOException {
        this(handler, concurrency, true, Map.of());
    }

    /** The answer to an event. */
    MockApi.Outcome invoke(String event) throws Exception {
        return api.invoke(event).get(30, TimeUnit.SECONDS);
    }

    @Override
    public void close() throws IOException {
        process.destroyForcibly();
        api.close();
    }
}
