/*
 * Workloads with static state as applications have it: about thirty non-final statics, read and
 * written from a hundred places a request. One class per workload, so that each has its own statics.
 */
package work;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;

/** The workloads by name. */
public final class Workloads {
    private Workloads() {}

    /** One invocation; the result keeps the JIT from dropping it. */
    public static long run(String name) throws Exception {
        switch (name) {
            case "rest":
                return Rest.handle();
            case "hash":
                return Hash.handle();
            case "classify":
                return Classify.handle();
            case "access":
                return Access.handle();
            default:
                throw new IllegalArgumentException("no workload " + name);
        }
    }

    /** A request with a path, a query result of 200 rows, and a JSON answer. No network. */
    static final class Rest {
        private static final Pattern PATH = Pattern.compile("/users/(\\d+)/orders");
        private static String service = "orders";
        private static String region = "local";
        private static String version = "1.4.2";
        private static int requests;
        private static int rows;
        private static int bytesOut;
        private static int cacheHits;
        private static int cacheMisses;
        private static int retries = 3;
        private static int pageSize = 200;
        private static long started = 1;
        private static long lastRequest;
        private static long totalNanos;
        private static boolean pretty;
        private static boolean verbose;
        private static double sampling = 0.1;
        private static String tablePrefix = "t_";
        private static String currency = "EUR";
        private static String locale = "en";
        private static String idPrefix = "ord-";
        private static char separator = ',';
        private static int timeoutMs = 1000;
        private static int poolSize = 4;
        private static Map<String, String> headers = new LinkedHashMap<>();
        private static Map<String, Integer> cache = new HashMap<>();
        private static List<String> columns = new ArrayList<>(List.of("id", "name", "amount", "state", "created"));
        private static String[] states = {"new", "paid", "sent", "done"};
        private static int[] histogram = new int[32];
        private static String lastUser = "";
        private static Object lock = new Object();

        static {
            for (int i = 0; i < 12; i++) {
                headers.put("X-Header-" + i, "value-" + i);
            }
            for (int i = 0; i < 50; i++) {
                cache.put("t_" + i, i);
            }
        }

        static long handle() {
            requests++;
            lastRequest = started + requests;
            var matcher = PATH.matcher("/users/42137/orders");
            lastUser = matcher.matches() ? matcher.group(1) : "";
            StringBuilder out = new StringBuilder(32 * 1024);
            out.append("{\"service\":\"").append(service).append("\",\"region\":\"").append(region).append("\",\"version\":\"")
                .append(version).append("\",\"user\":").append(lastUser).append(",\"headers\":{");
            headers.forEach((key, value) -> out.append('"').append(key).append("\":\"").append(value).append("\","));
            out.append("},\"rows\":[");
            for (int row = 0; row < pageSize; row++) {
                row(out, row);
            }
            byte[] body = out.append("]}").toString().getBytes(StandardCharsets.UTF_8);
            bytesOut += body.length;
            synchronized (lock) {
                totalNanos += body.length;
            }
            histogram[body.length & 31]++;
            long check = 0;
            for (String part : new String(body, StandardCharsets.UTF_8).split("\"")) {
                check += part.length() * 31L + part.hashCode();
            }
            return check + totalNanos + retries + timeoutMs + poolSize + (pretty ? 1 : 0) + (verbose ? 1 : 0)
                + (long) (sampling * 10) + locale.length() + cacheHits + cacheMisses + lastRequest;
        }

        private static void row(StringBuilder out, int row) {
            rows++;
            String key = tablePrefix + row % 50;
            Integer cached = cache.get(key);
            if (cached == null) {
                cacheMisses++;
                cached = key.hashCode();
                cache.put(key, cached);
            } else {
                cacheHits++;
            }
            out.append("{\"").append(columns.get(0)).append("\":\"").append(idPrefix).append(row).append("\",\"")
                .append(columns.get(1)).append("\":\"name-").append(cached).append("\",\"").append(columns.get(2))
                .append("\":").append(row * 1.25).append(",\"currency\":\"").append(currency).append("\",\"")
                .append(columns.get(3)).append("\":\"").append(states[row & 3]).append("\"}").append(separator);
        }
    }

    /** SHA-256 of 2 MB, as in the paper. */
    static final class Hash {
        private static final byte[] OBJECT = new byte[2 * 1024 * 1024];
        private static String algorithm = "SHA-256";
        private static int blockBytes = 64 * 1024;
        private static long hashed;
        private static int blocks;
        private static byte[] last = new byte[32];
        private static byte[] buffer = new byte[64 * 1024];

        static long handle() throws Exception {
            MessageDigest digest = MessageDigest.getInstance(algorithm);
            for (int at = 0; at < OBJECT.length; at += blockBytes) {
                System.arraycopy(OBJECT, at, buffer, 0, blockBytes);
                digest.update(buffer, 0, blockBytes);
                hashed += blockBytes;
                blocks++;
            }
            last = digest.digest();
            return last[0] + hashed + blocks;
        }
    }

    /** Two dense layers with their weights and activations in statics, read in the inner loops. */
    static final class Classify {
        private static final float[][] MODEL = new float[512][512];
        private static int width = 512;
        private static int layers = 2;
        private static float bias = 0.01f;
        private static float[] input = new float[512];
        private static float[] output = new float[512];
        private static long operations;
        private static int best;

        static {
            for (int i = 0; i < 512; i++) {
                for (int j = 0; j < 512; j++) {
                    MODEL[i][j] = (i * 31 + j) % 17 / 17f - 0.5f;
                }
                input[i] = i % 7 / 7f;
            }
        }

        static long handle() {
            for (int layer = 0; layer < layers; layer++) {
                for (int row = 0; row < width; row++) {
                    output[row] = Math.max(0, dot(MODEL[row]) + bias);
                }
                float[] swap = input;
                input = output;
                output = swap;
            }
            best = 0;
            for (int i = 1; i < width; i++) {
                if (input[i] > input[best]) {
                    best = i;
                }
            }
            return best + operations;
        }

        private static float dot(float[] weights) {
            float sum = 0;
            for (int i = 0; i < width; i++) {
                sum += weights[i] * input[i];
            }
            operations += width;
            return sum;
        }
    }

    /** Nothing but a static int that is incremented a million times: the cost of an access. */
    static final class Access {
        private static int counter;
        private static volatile int spoiler;

        static long handle() {
            for (int i = 0; i < 1_000_000; i++) {
                counter = counter * 31 + i;
                if ((i & 1023) == 0) {
                    spoiler = counter;
                }
            }
            return counter + spoiler;
        }
    }
}
