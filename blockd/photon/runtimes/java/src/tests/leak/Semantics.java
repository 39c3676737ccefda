/*
 * What must stay as it is in a plain JVM, within one photon: identity, aliases, initialisers that
 * run once, threads that see their photon's values.
 */
package leak;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.FilterOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.lang.invoke.MethodHandles;
import java.util.concurrent.CompletableFuture;
import java.util.stream.IntStream;

/** Checks that run in a photon. */
public final class Semantics {
    private static Statics.Level chosen = Statics.Level.WARN;

    private Semantics() {}

    /** Throws AssertionError where one fails. */
    public static void check() throws Exception {
        that(Statics.initialisers == 1 && Statics.INITIALISERS.get() == 1, "an initialiser ran again");
        that(Statics.cycle == Statics.alias, "two statics that name one object name two");
        that(Statics.cycle.next.next == Statics.cycle, "a cycle came undone");
        that(Statics.nodes.contains(Statics.cycle), "a set does not find its own element");
        that(Statics.nodes.size() == 1, "a set has other elements");
        that(Statics.level == Statics.Level.INFO && chosen == Statics.Level.WARN, "a typesafe enum lost its identity");
        that(Statics.lru.size() == 1 && Statics.lru.get("one").value.equals("1"), "a map subclass lost its entries");
        Statics.lru.put("2", null);
        Statics.lru.put("3", null);
        Statics.lru.put("4", null);
        that(Statics.lru.size() == 3 && !Statics.lru.containsKey("one"), "a map subclass lost its override");
        that(Statics.lock == Statics.lock, "a lock changes");
        Statics.i++;
        Statics.i += 2;
        that(Statics.i == 6, "an increment is lost");
        Statics.matrix[0][0] += 5;
        that(Statics.matrix[0][0] == 5, "an array's element is lost");
        Statics.text = "mine";
        that(CompletableFuture.supplyAsync(() -> Statics.text).get().equals("mine"), "supplyAsync has another view");
        that(IntStream.range(0, 1000).parallel().allMatch(n -> Statics.text.equals("mine")), "a stream has another view");
        that(Probes.SHARED_POOL.submit(() -> Statics.text).get().equals("mine"), "a shared pool has another view");
        try {
            MethodHandles.lookup().findStaticVarHandle(Statics.class, "i", int.class);
            throw new AssertionError("a VarHandle of an isolated static was given");
        } catch (UnsupportedOperationException expected) {
            that(expected.getMessage().contains("Statics.i"), "the refusal names no field");
        }
        ends(3, () -> System.exit(3));
        ends(4, () -> Runtime.getRuntime().exit(4));
        ends(5, () -> Runtime.getRuntime().halt(5));
        streams();
    }

    private static void ends(int status, Runnable exit) {
        try {
            exit.run();
        } catch (Error expected) {
            that(expected.getMessage().contains("exit(" + status + ")"), "exit threw " + expected);
            return;
        }
        throw new AssertionError("exit(" + status + ") came back");
    }

    /** Output is caught and passed on, as programs do that want to see what they print. */
    private static void streams() {
        PrintStream before = System.out;
        ByteArrayOutputStream caught = new ByteArrayOutputStream();
        System.setOut(new PrintStream(new FilterOutputStream(caught) {
            @Override
            public void write(int b) throws IOException {
                super.write(b);
                before.flush();
            }
        }, true));
        System.out.print("mine");
        that(System.out != before && caught.toString().equals("mine"), "System.setOut does nothing");
        System.setOut(before);
        that(System.out == before, "System.out is not what was set");
        System.setIn(new ByteArrayInputStream(new byte[] {42}));
        try {
            that(System.in.read() == 42, "System.setIn does nothing");
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    /** The static text. */
    public static String text() {
        return Statics.list.isEmpty() ? Statics.text : Statics.list.get(0);
    }

    /** A number of the static generator. */
    public static long random() {
        return Statics.random.nextLong();
    }

    private static void that(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }

    /** Increments a static so often, and returns it: only this photon's increments may count. */
    public static int count(int times) {
        for (int n = 0; n < times; n++) {
            Statics.i++;
        }
        return Statics.i - 3;
    }

    /** Leaves a megabyte behind. */
    public static void litter() {
        Statics.none = new byte[1 << 20];
        Statics.list.add("x".repeat(1000));
    }
}
