/*
 * What static separation costs: the same workloads in photons, in JVMs with and without the agent,
 * by turns. Prints JSON, medians without the warm-up; a loss or "more" above zero is the agent's cost:
 *
 *     perCpuSecond   invocations per second of the process's CPU time: the photon's thread, the
 *                    collector, the JIT. On a free processor that is throughput. Not by the clock, as
 *                    other work on the machine moves that by more than the agent does.
 *     cpuMicros      CPU time of the photon's thread alone per invocation
 */
package lantern.tests;

import java.io.File;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import lantern.photon.Photon;
import lantern.photon.PhotonThread;
import lantern.photon.Photons;
import lantern.runtime.Json;
import work.Workloads;

/** See the head of this file. */
public final class OverheadBench {
    private static final List<String> WORKLOADS = List.of("rest", "hash", "classify", "access");
    /** CPU time, not time: on a busy machine the JIT would not be done otherwise. */
    private static final long WARM_UP_MS = 6_000;
    private static final long MEASURE_MS = 4_000;

    private OverheadBench() {}

    /** Without arguments all pairs; with "one NAME" one measurement in this JVM. */
    public static void main(String[] arguments) throws Exception {
        if (arguments.length == 2) {
            one(arguments[1]);
            return;
        }
        int pairs = arguments.length == 1 ? Integer.parseInt(arguments[0]) : 5;
        Map<String, Object> results = new LinkedHashMap<>();
        for (String workload : WORKLOADS) {
            List<double[]> plain = new ArrayList<>();
            List<double[]> agent = new ArrayList<>();
            for (int pair = 0; pair < pairs; pair++) {
                // The order changes from pair to pair, so that a drift of the machine hits both.
                for (boolean with : pair % 2 == 0 ? new boolean[] {false, true} : new boolean[] {true, false}) {
                    (with ? agent : plain).add(child(workload, with));
                }
            }
            results.put(workload, result(plain, agent));
        }
        System.out.println(Json.write(results));
    }

    private static Map<String, Object> result(List<double[]> plain, List<double[]> agent) {
        Map<String, Object> result = new LinkedHashMap<>();
        double plainRate = median(plain, 0);
        double agentRate = median(agent, 0);
        double plainCpu = median(plain, 1);
        double agentCpu = median(agent, 1);
        result.put("perCpuSecondPlain", plainRate);
        result.put("perCpuSecondAgent", agentRate);
        result.put("throughputLossPercent", 100 * (1 - agentRate / plainRate));
        result.put("cpuMicrosPlain", plainCpu);
        result.put("cpuMicrosAgent", agentCpu);
        result.put("cpuMorePercent", 100 * (agentCpu / plainCpu - 1));
        return result;
    }

    private static double median(List<double[]> values, int column) {
        double[] sorted = values.stream().mapToDouble(value -> value[column]).sorted().toArray();
        return sorted[sorted.length / 2];
    }

    private static double[] child(String workload, boolean agent) throws Exception {
        String runtime = Sandbox.RUNTIME;
        List<String> command = new ArrayList<>(List.of(System.getProperty("java.home") + "/bin/java", "@" + runtime + "/options"));
        if (agent) {
            command.addAll(List.of("-Xbootclasspath/a:" + runtime + "/lantern-agent.jar",
                "-javaagent:" + runtime + "/lantern-agent.jar", "-Dlantern.java.exclude=lantern.tests"));
        } else {
            command.addAll(List.of("--add-opens", "java.base/java.lang=ALL-UNNAMED"));
        }
        command.addAll(List.of("-cp", runtime + "/lantern-runtime.jar" + File.pathSeparator
            + System.getProperty("lantern.tests.classes"), "lantern.tests.OverheadBench", "one", workload));
        Process process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        String[] words = new String(process.getInputStream().readAllBytes()).trim().split(" ");
        if (process.waitFor() != 0 || words.length != 2) {
            throw new IllegalStateException("a measurement failed: " + Arrays.toString(words));
        }
        return new double[] {Double.parseDouble(words[0]), Double.parseDouble(words[1])};
    }

    private static void one(String workload) throws Exception {
        Thread thread = new PhotonThread("bench") {
            @Override
            public void run() {
                for (int i = 0; i < 6; i++) {
                    double[] warm = measure(workload, WARM_UP_MS / 6);
                    if (Boolean.getBoolean("bench.trace")) {
                        System.err.println(Arrays.toString(warm));
                    }
                }
                double[] found = measure(workload, MEASURE_MS);
                System.out.println(found[0] + " " + found[1]);
            }
        };
        thread.start();
        thread.join();
    }

    private static double[] measure(String workload, long millis) {
        var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        long cpu = system.getProcessCpuTime();
        long mine = ManagementFactory.getThreadMXBean().getCurrentThreadCpuTime();
        long count = 0;
        long sum = 0;
        while (system.getProcessCpuTime() - cpu < millis * 1_000_000) {
            // As a slot does for every invocation.
            Photon photon = new Photon();
            Object token = Photons.enter(photon);
            try {
                sum += Workloads.run(workload);
            } catch (Exception e) {
                throw new IllegalStateException(e);
            } finally {
                Photons.exit(token);
            }
            photon.close();
            Photons.wipe();
            count++;
        }
        double seconds = (system.getProcessCpuTime() - cpu) / 1e9;
        if (sum == 42) {
            System.err.println("unlikely");
        }
        return new double[] {count / seconds, (ManagementFactory.getThreadMXBean().getCurrentThreadCpuTime() - mine) / 1e3 / count};
    }
}
