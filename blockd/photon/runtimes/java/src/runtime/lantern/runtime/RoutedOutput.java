/*
 * System.out and System.err of the sandbox: every call goes to the log of the photon that makes it,
 * or to the real stream outside one. A PrintStream of its own per photon, not one with a routed
 * sink, so that photons neither wait for each other's lock nor mix their lines.
 */
package lantern.runtime;

import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.util.Locale;
import lantern.photon.Photon;
import lantern.photon.Photons;

/** A PrintStream that belongs to whoever writes; see the head of this file. */
final class RoutedOutput extends PrintStream {
    private final PrintStream real;

    RoutedOutput(PrintStream real) {
        super(OutputStream.nullOutputStream());
        this.real = real;
    }

    private PrintStream to() {
        Photon photon = Photons.current();
        Object attached = photon == null ? null : photon.attachment;
        PrintStream log = attached instanceof Invocation ? ((Invocation) attached).log.stream() : null;
        return log == null ? real : log;
    }

    @Override public void flush() { to().flush(); }
    @Override public void close() { to().flush(); }
    @Override public boolean checkError() { return to().checkError(); }
    @Override public void write(int b) { to().write(b); }
    @Override public void write(byte[] bytes) throws IOException { to().write(bytes); }
    @Override public void write(byte[] bytes, int from, int length) { to().write(bytes, from, length); }
    @Override public void writeBytes(byte[] bytes) { to().write(bytes, 0, bytes.length); }
    @Override public void print(boolean value) { to().print(value); }
    @Override public void print(char value) { to().print(value); }
    @Override public void print(int value) { to().print(value); }
    @Override public void print(long value) { to().print(value); }
    @Override public void print(float value) { to().print(value); }
    @Override public void print(double value) { to().print(value); }
    @Override public void print(char[] value) { to().print(value); }
    @Override public void print(String value) { to().print(value); }
    @Override public void print(Object value) { to().print(value); }
    @Override public void println() { to().println(); }
    @Override public void println(boolean value) { to().println(value); }
    @Override public void println(char value) { to().println(value); }
    @Override public void println(int value) { to().println(value); }
    @Override public void println(long value) { to().println(value); }
    @Override public void println(float value) { to().println(value); }
    @Override public void println(double value) { to().println(value); }
    @Override public void println(char[] value) { to().println(value); }
    @Override public void println(String value) { to().println(value); }
    @Override public void println(Object value) { to().println(value); }

    @Override
    public PrintStream printf(String format, Object... arguments) {
        return format(format, arguments);
    }

    @Override
    public PrintStream printf(Locale locale, String format, Object... arguments) {
        return format(locale, format, arguments);
    }

    @Override
    public PrintStream format(String format, Object... arguments) {
        to().format(format, arguments);
        return this;
    }

    @Override
    public PrintStream format(Locale locale, String format, Object... arguments) {
        to().format(locale, format, arguments);
        return this;
    }

    @Override
    public PrintStream append(CharSequence text) {
        to().append(text);
        return this;
    }

    @Override
    public PrintStream append(CharSequence text, int from, int to) {
        to().append(text, from, to);
        return this;
    }

    @Override
    public PrintStream append(char value) {
        to().append(value);
        return this;
    }
}
