/*
 * See Context.
 */
package com.amazonaws.services.lambda.runtime;

/** See aws-lambda-java-core. */
public interface RequestHandler<I, O> {
    O handleRequest(I input, Context context);
}
