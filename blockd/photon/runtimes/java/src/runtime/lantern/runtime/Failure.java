/*
 * An error in the Runtime API's shape: errorMessage, errorType, stackTrace. Invariant: a Failure
 * can be made of any Throwable, also of one whose own methods throw, and has a bounded size.
 */
package lantern.runtime;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** An error as the Runtime API wants it. */
final class Failure {
    /** Frames and causes kept: enough to see where, little enough for a header's and a log's limits. */
    private static final int MOST_FRAMES = 100;
    private static final int MOST_CAUSES = 8;
    private static final int MOST_MESSAGE_CHARS = 32 * 1024;

    final String type;
    private final Map<String, Object> fields;

    private Failure(String type, Map<String, Object> fields) {
        this.type = type;
        this.fields = fields;
    }

    static Failure of(String type, String message) {
        return new Failure(type, fields(message, type, List.of()));
    }

    /** Of what a handler threw. Frames of the runtime below the handler are left out. */
    static Failure of(Throwable thrown) {
        return new Failure(thrown.getClass().getName(), describe(thrown, 0));
    }

    byte[] json() {
        return Json.write(fields).getBytes(StandardCharsets.UTF_8);
    }

    private static Map<String, Object> describe(Throwable thrown, int depth) {
        List<Object> frames = new ArrayList<>();
        for (StackTraceElement frame : thrown.getStackTrace()) {
            String owner = frame.getClassName();
            if (frames.size() == MOST_FRAMES || owner.startsWith("lantern.runtime.")) {
                break;
            }
            if (!owner.startsWith("jdk.internal.reflect.") && !owner.equals("java.lang.reflect.Method")) {
                frames.add(frame.toString());
            }
        }
        Map<String, Object> fields = fields(message(thrown), thrown.getClass().getName(), frames);
        Throwable cause = thrown.getCause();
        if (cause != null && cause != thrown && depth < MOST_CAUSES) {
            fields.put("cause", describe(cause, depth + 1));
        }
        return fields;
    }

    private static Map<String, Object> fields(String message, String type, List<Object> frames) {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("errorMessage", message);
        fields.put("errorType", type);
        fields.put("stackTrace", frames);
        return fields;
    }

    private static String message(Throwable thrown) {
        String text;
        try {
            text = thrown.getMessage();
        } catch (RuntimeException e) {
            text = null;
        }
        if (text == null) {
            return thrown.getClass().getName();
        }
        return text.length() > MOST_MESSAGE_CHARS ? text.substring(0, MOST_MESSAGE_CHARS) : text;
    }
}
