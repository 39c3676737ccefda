/*
 * PSS of a runtime process while so many invocations sleep in it at once. Prints JSON: bytes by
 * concurrency, and the increment per added photon.
 */
package lantern.tests;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import lantern.runtime.Json;

/** See the head of this file. */
public final class MemoryBench {
    private static final int[] STEPS = {1, 2, 4, 8, 16, 32, 64};

    private MemoryBench() {}

    /** The argument is "agent" or "plain". */
    public static void main(String[] arguments) throws Exception {
        boolean agent = arguments.length == 0 || arguments[0].equals("agent");
        Map<String, Object> result = new LinkedHashMap<>();
        result.put("agent", agent);
        Map<String, Object> pss = new LinkedHashMap<>();
        try (Sandbox sandbox = new Sandbox("app.Plain::sleep", 64, agent, Map.of("MALLOC_ARENA_MAX", "2"))) {
            for (int i = 0; i < 200; i++) {
                sandbox.invoke("0");
            }
            Thread.sleep(1000);
            long first = 0;
            long last = 0;
            for (int step : STEPS) {
                List<CompletableFuture<MockApi.Outcome>> running = new ArrayList<>();
                for (int i = 0; i < step; i++) {
                    running.add(sandbox.api.invoke("1500"));
                }
                Thread.sleep(1000);
                long now = pss(sandbox.process.pid());
                pss.put(Integer.toString(step), now);
                first = first == 0 ? now : first;
                last = now;
                for (CompletableFuture<MockApi.Outcome> each : running) {
                    each.get(30, TimeUnit.SECONDS);
                }
            }
            result.put("pssBytes", pss);
            result.put("bytesPerAddedPhoton", (last - first) / (STEPS[STEPS.length - 1] - STEPS[0]));
        }
        System.out.println(Json.write(result));
        System.exit(0);
    }

    private static long pss(long pid) throws Exception {
        for (String line : Files.readAllLines(Path.of("/proc/" + pid + "/smaps_rollup"))) {
            if (line.startsWith("Pss:")) {
                return Long.parseLong(line.replaceAll("\\D", "")) * 1024;
            }
        }
        throw new IllegalStateException("no Pss in smaps_rollup");
    }
}
