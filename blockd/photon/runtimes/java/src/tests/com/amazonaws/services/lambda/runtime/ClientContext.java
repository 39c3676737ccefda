/*
 * See Context.
 */
package com.amazonaws.services.lambda.runtime;

import java.util.Map;

/** See aws-lambda-java-core. */
public interface ClientContext {
    Map<String, String> getCustom();
}
