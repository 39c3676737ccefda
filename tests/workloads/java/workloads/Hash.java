/* SHA-256 of an object in S3, as it arrives. */
package workloads;

import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.security.MessageDigest;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;

/** See {@link #handle}. */
public class Hash {
    private static final int PIECE = 64 * 1024;

    /** {@code url}: a presigned address. */
    public Map<String, Object> handle(Map<String, Object> event) throws Exception {
        long started = System.nanoTime();
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        byte[] piece = new byte[PIECE];
        long size = 0;
        HttpURLConnection connection = open((String) event.get("url"));
        long half = connection.getContentLengthLong() / 2;
        try (InputStream body = connection.getInputStream()) {
            for (int read = body.read(piece); read >= 0; read = body.read(piece)) {
                if (size < half && half <= size + read) {
                    Gate.await(event);
                }
                digest.update(piece, 0, read);
                size += read;
            }
        }
        Map<String, Object> reply = new HashMap<>();
        reply.put("sha256", HexFormat.of().formatHex(digest.digest()));
        reply.put("bytes", size);
        reply.put("ms", Gate.ms(started));
        return reply;
    }

    static HttpURLConnection open(String address) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) new URL(address).openConnection();
        if (connection.getResponseCode() != 200) {
            throw new IOException("the object store answered " + connection.getResponseCode());
        }
        return connection;
    }
}
