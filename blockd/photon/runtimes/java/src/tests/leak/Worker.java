/*
 * A worker thread as libraries write their own: a queue and a thread that the first task starts.
 * It belongs to the photon that started it, though it works for all.
 */
package leak;

import java.util.concurrent.Callable;
import java.util.concurrent.LinkedBlockingQueue;

/** A thread with a queue. */
public final class Worker {
    @lantern.runtime.Shared
    private static final Worker SHARED = new Worker();

    private final LinkedBlockingQueue<Object[]> queue = new LinkedBlockingQueue<>();
    private Thread thread;

    /** Has the worker set the static, by assignment and in place. */
    public static void write(String value) throws Exception {
        SHARED.run(() -> {
            Statics.text = value;
            Statics.list.add(value);
            return null;
        });
    }

    /** What the worker finds in them. */
    public static String read() throws Exception {
        return SHARED.run(() -> Statics.list.isEmpty() ? Statics.text : Statics.list.get(0));
    }

    @SuppressWarnings("unchecked")
    private <T> T run(Callable<T> task) throws Exception {
        synchronized (this) {
            if (thread == null) {
                thread = new Thread(this::work);
                thread.setDaemon(true);
                thread.start();
            }
        }
        // Not a FutureTask, which would remember its photon.
        Object[] box = {task, null, null};
        synchronized (box) {
            queue.put(box);
            while (box[2] == null) {
                box.wait();
            }
        }
        return (T) box[1];
    }

    private void work() {
        while (true) {
            try {
                Object[] box = queue.take();
                Object result = ((Callable<?>) box[0]).call();
                synchronized (box) {
                    box[1] = result;
                    box[2] = "done";
                    box.notifyAll();
                }
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
        }
    }
}
