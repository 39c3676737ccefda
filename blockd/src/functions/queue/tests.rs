//! Bounds, order and restarts, without anybody who runs events.

use super::*;

fn key(name: &str) -> FunctionKey {
    FunctionKey { tenant: "a".into(), name: name.into() }
}

struct Opened {
    directory: tempfile::TempDir,
    queue: Arc<Queue>,
}

fn load(path: &Path, settings: EventSettings) -> Arc<Queue> {
    let (store, contents) = Store::open(path).unwrap();
    Arc::new(Queue::load(Arc::new(store), &contents, path, settings).unwrap())
}

fn open(settings: EventSettings) -> Opened {
    let directory = tempfile::tempdir().unwrap();
    let queue = load(&directory.path().join("functions.redb"), settings);
    Opened { directory, queue }
}

fn picked(queue: &Queue) -> EventRecord {
    match queue.pick(u64::MAX) {
        Pick::Now(event) => event,
        Pick::Later(due) => panic!("nothing is due before {due:?}"),
    }
}

#[tokio::test]
async fn full_by_count_and_by_bytes() {
    let settings = EventSettings { max_events: 4, max_bytes: 100, ..EventSettings::default() };
    let Opened { queue, .. } = open(settings);
    let accept = |name: &str, bytes| queue.accept(key(name), Invocation::new(vec![b'1'; bytes]));
    assert!(accept("f", 51).await.is_err(), "more than half of the bytes");
    assert!(accept("f", 50).await.is_ok());
    assert!(accept("f", 1).await.is_err(), "its half of the bytes is used up");
    assert!(accept("g", 1).await.is_ok() && accept("g", 1).await.is_ok());
    let error = accept("g", 1).await.unwrap_err();
    assert_eq!(error.code, crate::functions::ErrorCode::TooManyRequests, "its half of the count");
    assert!(accept("h", 1).await.is_ok());
    assert!(accept("i", 1).await.is_err(), "all of the count");
    assert_eq!(queue.stats(), QueueStats { events: 4, bytes: 53, dropped: 0 });
    let event = picked(&queue);
    assert_eq!(queue.stats().events, 4, "what runs still counts");
    queue.end(event, Remains::Nothing, Vec::new()).await;
    assert!(accept("i", 1).await.is_ok());
}

#[tokio::test]
async fn one_function_never_runs_more_than_half() {
    let Opened { queue, .. } = open(EventSettings { concurrency: 4, ..EventSettings::default() });
    for name in ["f", "f", "f", "g"] {
        queue.accept(key(name), Invocation::new("1")).await.unwrap();
    }
    let (one, two, three) = (picked(&queue), picked(&queue), picked(&queue));
    assert_eq!([&*one.name, &two.name, &three.name], ["f", "f", "g"]);
    assert!(matches!(queue.pick(u64::MAX), Pick::Later(None)));
    queue.again(EventRecord { due_ms: u64::MAX - 1, ..one }, true).await;
    assert_eq!(picked(&queue).name, "f");
    assert!(matches!(queue.pick(0), Pick::Later(None)), "f runs twice again");
    queue.end(two, Remains::Dropped, Vec::new()).await;
    assert!(matches!(queue.pick(0), Pick::Later(Some(due)) if due == u64::MAX - 1));
    assert_eq!(queue.stats().dropped, 1);
}

#[tokio::test]
async fn what_was_not_ended_waits_again_after_a_restart() {
    let Opened { queue, directory } = open(EventSettings::default());
    for payload in ["\"waits\"", "\"runs\"", "\"ended\"", "\"buried\"", "\"failed once\""] {
        queue.accept(key("f"), Invocation::new(payload)).await.unwrap();
    }
    let events: Vec<_> = (0..5).map(|_| picked(&queue)).collect();
    let [waits, _runs, ended, buried, failed] = events.try_into().unwrap();
    queue.again(waits, false).await;
    let follow_up = FollowUp { key: key("g"), payload: Bytes::from_static(b"\"told\""), hops: 1 };
    queue.end(ended, Remains::Nothing, vec![follow_up]).await;
    let letter = DeadLetter {
        id: buried.id,
        tenant: "a".into(),
        function: "f".into(),
        request_id: buried.request_id.clone(),
        accepted_ms: 0,
        ended_ms: 0,
        condition: crate::functions::retry::Condition::RetriesExhausted,
        failures: 3,
        error: "no".into(),
        payload_bytes: buried.payload_bytes,
    };
    queue.end(buried, Remains::Letter(letter.clone()), Vec::new()).await;
    queue.again(EventRecord { failures: 1, ..failed }, true).await;
    drop(queue);

    let queue = load(&directory.path().join("functions.redb"), EventSettings::default());
    assert_eq!(queue.stats().events, 4);
    assert_eq!(queue.dead_letters("a"), std::slice::from_ref(&letter));
    assert_eq!(queue.payload(letter.id).await.unwrap().unwrap(), "\"buried\"");
    let mut found = Vec::new();
    while let Pick::Now(event) = queue.pick(u64::MAX) {
        let payload = queue.payload(event.id).await.unwrap().unwrap();
        found.push((payload, event.failures));
    }
    found.sort();
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let want = [("\"failed once\"", 1), ("\"runs\"", 0), ("\"told\"", 0), ("\"waits\"", 0)];
    assert_eq!(found, want.map(|(payload, failures)| (text(payload), failures)));
    queue.accept(key("h"), Invocation::new("1")).await.unwrap();
    assert!(picked(&queue).id > 5, "ids are not given twice");
    queue.remove_dead_letters(&[letter.id]).await.unwrap();
    assert!(queue.dead_letters("a").is_empty());
    assert_eq!(queue.payload(letter.id).await.unwrap(), None);
}
