/* Transforms ten seconds of video with ffmpeg, below /tmp. */
package workloads;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** See {@link #handle}. */
public class Video {
    private static final long HALF_US = 5_000_000;

    /** {@code url}: a presigned address of the input; without it, the one in the image. */
    public Map<String, Object> handle(Map<String, Object> event) throws Exception {
        long started = System.nanoTime();
        Path directory = Files.createTempDirectory(Path.of("/tmp"), "video");
        Path target = directory.resolve("out.mp4");
        Path source = directory.resolve("in.mp4");
        Map<String, Object> reply = new HashMap<>();
        try {
            if (event.containsKey("url")) {
                try (InputStream body = Hash.open((String) event.get("url")).getInputStream()) {
                    Files.copy(body, source);
                }
            }
            transform(Files.exists(source) ? source : Path.of("/var/task/chunk.mp4"), target, event);
            reply.put("bytes", Files.size(target));
        } finally {
            Files.deleteIfExists(source);
            Files.deleteIfExists(target);
            Files.delete(directory);
        }
        reply.put("ms", Gate.ms(started));
        return reply;
    }

    /** 1280x720 to 640x480; one thread each for decoding and encoding. */
    private static void transform(Path source, Path target, Map<String, Object> event) throws Exception {
        Process process = new ProcessBuilder(List.of("ffmpeg", "-v", "error", "-nostdin",
                "-progress", "pipe:1", "-stats_period", "0.1", "-threads", "1", "-filter_threads", "1",
                "-i", source.toString(), "-vf", "scale=640:480", "-c:v", "libx264", "-preset", "veryfast",
                "-threads", "1", target.toString())).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        boolean held = !event.containsKey("gate");
        try (BufferedReader lines = new BufferedReader(new InputStreamReader(process.getInputStream()))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                if (!held && line.startsWith("out_time_us=") && at(line) >= HALF_US) {
                    new ProcessBuilder("sh", "-c", "kill -STOP " + process.pid()).start().waitFor();
                    Gate.await(event);
                    held = true;
                    // what it held has been seen; the rest would only take time
                    process.destroyForcibly();
                    break;
                }
            }
        }
        if (!held) {
            throw new IOException("ffmpeg was done before it could be held");
        }
        if (process.waitFor() != 0 && !event.containsKey("gate")) {
            throw new IOException("ffmpeg ended with " + process.exitValue());
        }
    }

    private static long at(String line) {
        String value = line.substring(line.indexOf('=') + 1);
        return value.matches("[0-9]+") ? Long.parseLong(value) : 0;
    }
}
