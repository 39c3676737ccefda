/*
 * Handlers in plain Java, one method per shape or behaviour that the protocol tests need.
 */
package app;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.ArrayList;
import java.util.List;
import lantern.runtime.Context;

/** Handlers. */
public class Plain {
    private static int calls;
    private static int instances;
    private int mine;

    /** Counted: one for all photons. */
    public Plain() {
        instances++;
    }

    public static String echo(String event) {
        return event + "!";
    }

    public byte[] bytes(byte[] event) {
        byte[] back = event.clone();
        for (int i = 0; i < back.length / 2; i++) {
            byte last = back[back.length - 1 - i];
            back[back.length - 1 - i] = back[i];
            back[i] = last;
        }
        return back;
    }

    public void streams(InputStream in, OutputStream out) throws IOException {
        in.transferTo(out);
    }

    public Object context(Object event, Context context) {
        return List.of(context.getAwsRequestId(), context.getTraceId(), context.getInvokedFunctionArn(),
            context.getRemainingTimeInMillis() > 0, context.getClientContextJson());
    }

    public int count(List<Integer> event) {
        calls++;
        mine++;
        return calls * 1000 + instances * 100 + mine * 10 + event.size();
    }

    public void nothing() {}

    public static String fail(String event) {
        throw new IllegalStateException("failed with \"" + event + "\"\nand a second line", new RuntimeException("the cause"));
    }

    public static String deep(String event) {
        return deep(event + "x");
    }

    public static String exit(String event) {
        System.exit(7);
        return "not reached";
    }

    public static int sleep(int millis) throws InterruptedException {
        Thread.sleep(millis);
        return millis;
    }

    /** Below zero: takes all memory there is. Else as `sleep`. */
    public static int memory(int millis) throws InterruptedException {
        List<byte[]> all = new ArrayList<>();
        while (millis < 0) {
            all.add(new byte[1 << 20]);
        }
        return sleep(millis) + all.size();
    }

    public static byte[] many(int bytes) {
        return new byte[bytes];
    }

    public static String print(String event) throws InterruptedException {
        System.out.println("out " + event);
        System.err.printf("err %s%n", event);
        Thread thread = new Thread(() -> System.out.print("thread " + event));
        thread.start();
        thread.join();
        return event;
    }

    /** A class that no JSON of ours makes. */
    public static class Pojo {
        public String name;
    }

    public static Pojo pojo(Pojo event) {
        return event;
    }
}
