//! Every way that an invocation may take through the slots of a sandbox.

use super::*;
use crate::logs::FunctionLog;

fn slots() -> Arc<Slots> {
    Slots::new("s".into(), OnFree(Box::new(|| {})))
}

fn task() -> (Task, mpsc::UnboundedReceiver<Progress>) {
    let (progress, heard) = mpsc::unbounded_channel();
    let invocation = Arc::new(Invocation::new("{}"));
    let log = InvocationLog::new(invocation.request_id.clone(), Arc::new(FunctionLog::default()));
    let timeout = Duration::from_secs(1);
    (Task { invocation, timeout, deadline_at: SystemTime::UNIX_EPOCH, log, progress }, heard)
}

fn response() -> Answer {
    Answer::Response { payload: Bytes::from_static(b"1"), content_type: None }
}

#[tokio::test]
async fn nothing_is_queued() {
    let slots = slots();
    let (task, _heard) = task();
    let back = slots.offer(task).unwrap_err();
    let waiting = tokio::spawn({
        let slots = Arc::clone(&slots);
        async move { slots.next(None, None).await.map(Delivery::take) }
    });
    while slots.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    slots.offer(back).unwrap();
    let given = waiting.await.unwrap().unwrap();
    assert!(given.deadline_at > SystemTime::now());
    assert_eq!((slots.waiting(), slots.in_flight()), (0, 1));
    slots.answer(&given.invocation.request_id, response()).unwrap();
    assert_eq!(slots.in_flight(), 0);
}

#[tokio::test]
async fn an_invocation_ends_once() {
    let slots = slots();
    let (task, mut heard) = task();
    let id = task.invocation.request_id.clone();
    let process = Named::new(7, Arc::default());
    let (given, offered) = tokio::join!(slots.next(Some(process), None), async {
        tokio::task::yield_now().await;
        slots.offer(task)
    });
    offered.unwrap();
    let _ = given.unwrap().take();
    let mut one = slots.begin_answer(id.as_str()).unwrap();
    let _two = slots.begin_answer(id.as_str()).unwrap();
    assert_eq!(slots.begin_answer(id.as_str()).unwrap_err(), AnswerError::Underway);
    assert!(futures_util::poll!(Box::pin(one.over())).is_pending());
    assert!(matches!(slots.expire(&id), Stop::Process(_)));
    one.over().await;
    slots.over(&id).await;
    assert!(matches!(slots.expire(&id), Stop::Gone));
    assert_eq!(slots.answer(&id, response()), Err(AnswerError::Late));
    assert_eq!(slots.check("someone else's"), Err(AnswerError::Unknown));
    assert!(matches!(heard.recv().await, Some(Progress::Delivered { first: true, .. })));
    assert!(heard.try_recv().is_err(), "who lets it expire answers it");
}

#[tokio::test]
async fn a_call_that_goes_away_loses_nothing() {
    let slots = slots();
    let (task, mut heard) = task();
    let mut gone = Box::pin(slots.next(None, None));
    assert!(futures_util::poll!(&mut gone).is_pending());
    drop(gone);
    assert_eq!(slots.waiting(), 0);
    let task = slots.offer(task).unwrap_err();
    // gone between the hand-over and the call's return
    let mut unlucky = Box::pin(slots.next(None, None));
    assert!(futures_util::poll!(&mut unlucky).is_pending());
    slots.offer(task).unwrap();
    drop(unlucky);
    assert!(matches!(heard.recv().await, Some(Progress::Delivered { .. })));
    assert!(matches!(heard.recv().await, Some(Progress::Answered(Answer::Lost))));
    assert_eq!(slots.in_flight(), 0);
}

#[tokio::test]
async fn the_end_of_a_sandbox_answers_all_and_lets_nobody_wait() {
    let slots = slots();
    let (task, mut heard) = task();
    let (given, offered) = tokio::join!(slots.next(None, None), async {
        tokio::task::yield_now().await;
        slots.offer(task)
    });
    offered.unwrap();
    let _ = given.unwrap().take();
    slots.end("gone");
    assert!(matches!(heard.recv().await, Some(Progress::Delivered { .. })));
    assert!(matches!(heard.recv().await, Some(Progress::Answered(Answer::Ended { .. }))));
    assert!(slots.next(None, None).await.is_none());
}

#[tokio::test]
async fn a_common_line_is_given_to_whom_it_can_only_belong() {
    let slots = slots();
    let offer = |slots: Arc<Slots>| async move {
        let (task, heard) = task();
        let id = task.invocation.request_id.clone();
        let (given, offered) = tokio::join!(slots.next(None, None), async {
            tokio::task::yield_now().await;
            slots.offer(task)
        });
        offered.unwrap();
        let _ = given.unwrap().take();
        (id, heard)
    };
    let (first, _one) = offer(Arc::clone(&slots)).await;
    assert!(slots.log_for_line("anything").is_some());
    let (_second, _two) = offer(Arc::clone(&slots)).await;
    assert!(slots.log_for_line("anything").is_none(), "it may be either's");
    assert!(slots.log_for_line(&format!("[{first}] hello")).is_some());
}

#[tokio::test]
async fn an_idle_sandbox_ends_before_anything_more_is_handed_to_it() {
    let slots = slots();
    let (first, _heard) = task();
    let id = first.invocation.request_id.clone();
    assert!(slots.listens(Duration::ZERO), "the first call is on its way");
    let (given, offered) = tokio::join!(slots.next(None, None), async {
        tokio::task::yield_now().await;
        assert!(slots.listens(Duration::ZERO), "a call waits");
        slots.offer(first)
    });
    offered.unwrap();
    let _ = given.unwrap().take();
    assert!(!slots.end_if_idle(), "one is in flight");
    assert!(!slots.listens(Duration::ZERO) && slots.listens(Duration::from_secs(60)));
    slots.answer(&id, response()).unwrap();
    let waiting = tokio::spawn({
        let slots = Arc::clone(&slots);
        async move { slots.next(None, None).await.is_none() }
    });
    while slots.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(slots.end_if_idle());
    assert!(waiting.await.unwrap(), "it is told that the sandbox has ended");
    let (second, _heard) = task();
    assert!(slots.offer(second).is_err());
    assert_eq!(slots.handed(), 1);
}

#[test]
fn calls_that_never_come_or_come_no_more_are_not_counted_on() {
    let mut state = State::default();
    let begun = Instant::now();
    let at = |seconds| begun + Duration::from_secs(seconds);
    let call = |state: &mut State, calls: usize, seconds| {
        state.pollers.clear();
        for _ in 0..calls {
            let (deliver, _) = oneshot::channel();
            state.pollers.push_back(Poller { process: None, abort: None, deliver });
        }
        state.came(at(seconds));
    };
    for calls in 1..=4 {
        call(&mut state, calls, 0);
    }
    assert_eq!(state.calls(at(29)), None, "more may come yet");
    assert_eq!(state.calls(at(30)), Some(4));
    // two processes have died: two windows later that is known
    for seconds in 31..120 {
        call(&mut state, 2, seconds);
    }
    assert_eq!(state.calls(at(120)), Some(2));
}
