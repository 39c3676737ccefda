/*
 * Opts a static field out of isolation.
 */
package lantern.runtime;

import java.lang.annotation.ElementType;
import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;
import java.lang.annotation.Target;

/**
 * On a non-final static field, or on a class for all of its own: one value for all photons, as in a
 * plain JVM. For caches whose owner keeps them free of invocations' data, and safe for many threads.
 * On a static final it tells the leak check that this has been thought of.
 */
@Retention(RetentionPolicy.RUNTIME)
@Target({ElementType.FIELD, ElementType.TYPE})
public @interface Shared {}
