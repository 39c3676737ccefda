//! crates.io's lambda_runtime: a task for each invocation at once.

use super::*;

const CLIENT: Client = Client {
    name: "rust",
    handler: None,
    entrypoint: &["/var/task/bootstrap"],
    error_type: "Sorry",
    init_error: ("Runtime.ExitError", "Runtime exited"),
};

#[tokio::test(flavor = "multi_thread")]
async fn privileged_lambda_runtime_answers_and_fails() {
    answers_and_fails(&CLIENT, 1).await;
    answers_and_fails(&CLIENT, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_lambda_runtime_tells_what_it_was_told() {
    tells_what_it_was_told(&CLIENT, 1).await;
    tells_what_it_was_told(&CLIENT, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_lambda_runtime_says_why_it_cannot_start() {
    says_why_it_cannot_start(&CLIENT, 1).await;
    says_why_it_cannot_start(&CLIENT, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_lambda_runtime_takes_several_at_once() {
    let processes = meets_in_one_sandbox(&CLIENT, 4, 4).await;
    assert!(processes.is_none_or(|processes| processes == 1), "tasks of one process");
    meets_in_one_sandbox(&CLIENT, 2, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_lambda_runtime_survives_too_large_an_answer() {
    too_large_an_answer_is_an_error(&CLIENT, 1, true).await;
    too_large_an_answer_is_an_error(&CLIENT, 4, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_lambda_runtime_is_replaced_after_a_timeout() {
    is_replaced_after_a_timeout(&CLIENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_lambda_runtime_survives_the_refusal_of_a_late_answer() {
    survives_the_refusal_of_a_late_answer(&CLIENT, "410").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_lambda_runtime_that_ends_is_replaced() {
    that_ends_is_replaced(&CLIENT, 1, "Runtime.ExitError").await;
    that_ends_is_replaced(&CLIENT, 4, "Runtime.ExitError").await;
}
