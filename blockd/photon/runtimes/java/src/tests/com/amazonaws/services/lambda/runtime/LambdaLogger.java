/*
 * See Context.
 */
package com.amazonaws.services.lambda.runtime;

/** See aws-lambda-java-core. */
public interface LambdaLogger {
    void log(String message);
}
