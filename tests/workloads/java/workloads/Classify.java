/*
 * Classifies a picture with a convolutional network that is loaded once for all invocations.
 *
 * A Net of OpenCV computes one picture at a time, so there are as many as the sandbox has CPUs,
 * behind a static final queue, which all photons share.
 */
package workloads;

import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import org.opencv.core.Core;
import org.opencv.core.CvType;
import org.opencv.core.Mat;
import org.opencv.dnn.Dnn;
import org.opencv.dnn.Net;

/** See {@link #handle}. */
public class Classify {
    private static final int SIDE = 64;
    private static final int BEST = 5;
    private static final BlockingQueue<Net> NETS = load();

    private static BlockingQueue<Net> load() {
        System.loadLibrary(Core.NATIVE_LIBRARY_NAME);
        // one thread for one invocation
        Core.setNumThreads(1);
        String model = System.getenv().getOrDefault("MODEL", "/var/task/model.onnx");
        int count = Runtime.getRuntime().availableProcessors();
        BlockingQueue<Net> nets = new ArrayBlockingQueue<>(count);
        for (int i = 0; i < count; i++) {
            nets.add(Dnn.readNetFromONNX(model));
        }
        return nets;
    }

    /** {@code image}: 64 x 64 grey bytes in base64. */
    public Map<String, Object> handle(Map<String, Object> event) throws Exception {
        long started = System.nanoTime();
        float[] scores = scores(Base64.getDecoder().decode((String) event.get("image")));
        List<Object> classes = new ArrayList<>();
        List<Object> best = new ArrayList<>();
        for (int i = 0; i < BEST; i++) {
            int most = 0;
            for (int j = 1; j < scores.length; j++) {
                most = scores[j] > scores[most] ? j : most;
            }
            classes.add(most);
            best.add(Math.round(scores[most] * 1e4) / 1e4);
            scores[most] = -1;
        }
        Gate.await(event);
        Map<String, Object> reply = new HashMap<>();
        reply.put("classes", classes);
        reply.put("scores", best);
        reply.put("ms", Gate.ms(started));
        return reply;
    }

    /** The memory behind a Mat is not the garbage collector's, so each is given back here. */
    private static float[] scores(byte[] grey) throws InterruptedException {
        Mat picture = new Mat(SIDE, SIDE, CvType.CV_8UC1);
        Net net = NETS.take();
        try {
            picture.put(0, 0, grey);
            Mat blob = Dnn.blobFromImage(picture, 1 / 255.0);
            net.setInput(blob);
            Mat out = net.forward();
            float[] scores = new float[(int) out.total()];
            out.get(0, 0, scores);
            out.release();
            blob.release();
            return scores;
        } finally {
            NETS.add(net);
            picture.release();
        }
    }
}
