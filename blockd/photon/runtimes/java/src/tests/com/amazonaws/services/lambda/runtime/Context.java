/*
 * AWS's interface as handlers know it, in place of the library, which tests must do without.
 */
package com.amazonaws.services.lambda.runtime;

/** See aws-lambda-java-core. */
public interface Context {
    String getAwsRequestId();

    String getFunctionName();

    int getRemainingTimeInMillis();

    LambdaLogger getLogger();

    ClientContext getClientContext();
}
