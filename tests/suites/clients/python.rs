//! PyPI's awslambdaric: a process for each invocation at once, forked at the start.

use super::*;

const CLIENT: Client = Client {
    name: "python",
    handler: Some(("app.py", include_str!("app.py"))),
    entrypoint: &["/usr/bin/python3", "-m", "awslambdaric"],
    error_type: "ValueError",
    init_error: ("RuntimeError", "no such luck"),
};

#[tokio::test(flavor = "multi_thread")]
async fn privileged_awslambdaric_answers_and_fails() {
    answers_and_fails(&CLIENT, 1).await;
    answers_and_fails(&CLIENT, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_awslambdaric_tells_what_it_was_told() {
    tells_what_it_was_told(&CLIENT, 1).await;
    tells_what_it_was_told(&CLIENT, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_awslambdaric_says_why_it_cannot_start() {
    says_why_it_cannot_start(&CLIENT, 1).await;
    says_why_it_cannot_start(&CLIENT, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_awslambdaric_takes_several_at_once() {
    let processes = meets_in_one_sandbox(&CLIENT, 4, 4).await;
    assert!(processes.is_none_or(|processes| processes == 4), "a process for each at once");
    meets_in_one_sandbox(&CLIENT, 2, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_awslambdaric_survives_too_large_an_answer() {
    // alone, it ends when an answer is refused, as on AWS
    too_large_an_answer_is_an_error(&CLIENT, 1, false).await;
    too_large_an_answer_is_an_error(&CLIENT, 4, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_awslambdaric_is_replaced_after_a_timeout() {
    is_replaced_after_a_timeout(&CLIENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_awslambdaric_survives_the_refusal_of_a_late_answer() {
    survives_the_refusal_of_a_late_answer(&CLIENT, "410").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_awslambdaric_that_ends_is_replaced() {
    that_ends_is_replaced(&CLIENT, 1, "Runtime.ExitError").await;
    // the other processes go on; that this one is gone shows at the deadline
    that_ends_is_replaced(&CLIENT, 4, "Sandbox.Timedout").await;
}
