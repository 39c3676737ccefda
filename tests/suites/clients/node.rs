//! npm's aws-lambda-ric: worker threads, more of them than invocations are allowed at once.

use super::*;

const CLIENT: Client = Client {
    name: "node",
    handler: Some(("app.mjs", include_str!("app.mjs"))),
    entrypoint: &["/usr/bin/node", "/var/task/node_modules/aws-lambda-ric/index.mjs"],
    error_type: "TypeError",
    init_error: ("TypeError", "no such luck"),
};

#[tokio::test(flavor = "multi_thread")]
async fn privileged_aws_lambda_ric_answers_and_fails() {
    answers_and_fails(&CLIENT, 1).await;
    answers_and_fails(&CLIENT, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_aws_lambda_ric_tells_what_it_was_told() {
    tells_what_it_was_told(&CLIENT, 1).await;
    tells_what_it_was_told(&CLIENT, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_aws_lambda_ric_says_why_it_cannot_start() {
    says_why_it_cannot_start(&CLIENT, 1).await;
    says_why_it_cannot_start(&CLIENT, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_aws_lambda_ric_takes_several_at_once() {
    let processes = meets_in_one_sandbox(&CLIENT, 4, 4).await;
    assert!(processes.is_none_or(|processes| processes == 1), "threads of one process");
    // eight threads for each processor ask, whatever it is told: it is blockd that bounds them
    meets_in_one_sandbox(&CLIENT, 8, 2).await;
    meets_in_one_sandbox(&CLIENT, 2, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_aws_lambda_ric_survives_too_large_an_answer() {
    too_large_an_answer_is_an_error(&CLIENT, 1, true).await;
    too_large_an_answer_is_an_error(&CLIENT, 4, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_aws_lambda_ric_is_replaced_after_a_timeout() {
    is_replaced_after_a_timeout(&CLIENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_aws_lambda_ric_survives_the_refusal_of_a_late_answer() {
    survives_the_refusal_of_a_late_answer(&CLIENT, "410").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_aws_lambda_ric_that_ends_is_replaced() {
    that_ends_is_replaced(&CLIENT, 1, "Runtime.ExitError").await;
    // ends the thread only; that it is gone shows at the deadline
    that_ends_is_replaced(&CLIENT, 4, "Sandbox.Timedout").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_aws_lambda_ric_streams() {
    for max_concurrency in [1, 4] {
        let Some(mut world) = CLIENT.world(max_concurrency) else { return };
        world.function.command = Some(vec!["app.streaming".into()]);
        let reply = world.invoke(json!({"parts": 3})).await;
        world.is_ok(&reply);
        assert_eq!(reply.payload, "part 0,part 1,part 2,");
        assert_eq!(reply.content_type.as_deref(), Some("text/plain"));
        let broken = world.invoke(json!({"parts": 2, "fail": true})).await;
        assert_eq!(broken.function_error.as_deref(), Some("Unhandled"));
        assert_eq!(answer(&broken)["errorType"], "RangeError", "{}", answer(&broken));
        world.shutdown().await;
    }
}
