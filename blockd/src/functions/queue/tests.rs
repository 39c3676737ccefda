//! Bounds, order and restarts, without anybody who runs events.

use super::*;
use crate::functions::store::tests::Disk;

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
    let settings = EventSettings { max_events: 8, max_bytes: 400, ..EventSettings::default() };
    let Opened { queue, .. } = open(settings);
    let accept = |tenant: &str, name: &str, bytes| {
        let key = FunctionKey { tenant: tenant.into(), name: name.into() };
        queue.accept(key, Invocation::new(vec![b'1'; bytes]))
    };
    assert!(accept("a", "f", 101).await.is_err(), "more than a quarter of the bytes");
    assert!(accept("a", "f", 100).await.is_ok());
    assert!(accept("a", "f", 1).await.is_err(), "its quarter of the bytes is used up");
    assert!(accept("a", "g", 1).await.is_ok() && accept("a", "g", 1).await.is_ok());
    let error = accept("a", "g", 1).await.unwrap_err();
    assert_eq!(error.code, crate::functions::ErrorCode::TooManyRequests, "its quarter of the count");
    assert!(accept("a", "h", 1).await.is_ok());
    assert!(accept("a", "i", 1).await.is_err(), "the tenant's half of the count");
    assert!(!queue.has_room(&key("i"), 1), "for what follows from events, too");
    assert!(accept("b", "f", 100).await.is_ok(), "another tenant has its own half");
    assert!(accept("b", "g", 99).await.is_ok());
    assert!(accept("b", "h", 2).await.is_err(), "the tenant's half of the bytes");
    assert!(accept("b", "h", 1).await.is_ok() && accept("b", "h", 0).await.is_ok());
    assert!(accept("c", "f", 0).await.is_err(), "all of the count");
    assert_eq!(queue.stats(), QueueStats { events: 8, bytes: 303, dropped: 0 });
    let event = picked(&queue);
    assert_eq!(queue.stats().events, 8, "what runs still counts");
    queue.end(event, Remains::Nothing, Vec::new()).await;
    assert!(accept("c", "f", 0).await.is_ok());
}

#[tokio::test]
async fn one_tenant_never_runs_more_than_half() {
    let Opened { queue, .. } = open(EventSettings { concurrency: 8, ..EventSettings::default() });
    let keys = ["a/f", "a/f", "a/g", "a/g", "a/h", "b/f"];
    for (tenant, name) in keys.map(|key| key.split_once('/').unwrap()) {
        let key = FunctionKey { tenant: tenant.into(), name: name.into() };
        queue.accept(key, Invocation::new("1")).await.unwrap();
    }
    let events: Vec<_> = (0..5).map(|_| picked(&queue)).collect();
    let run: Vec<_> = events.iter().map(|event| event.key().to_string()).collect();
    assert_eq!(run, ["a/f", "a/f", "a/g", "a/g", "b/f"]);
    assert!(matches!(queue.pick(u64::MAX), Pick::Later(None)), "the tenant's half is used up");
    for event in events {
        queue.end(event, Remains::Nothing, Vec::new()).await;
    }
    assert_eq!(picked(&queue).name, "h");
}

#[tokio::test]
async fn one_function_never_runs_more_than_a_quarter() {
    let Opened { queue, .. } = open(EventSettings { concurrency: 8, ..EventSettings::default() });
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

fn letter(event: &EventRecord) -> DeadLetter {
    DeadLetter {
        id: event.id,
        tenant: event.tenant.clone(),
        function: event.name.clone(),
        request_id: event.request_id.clone(),
        accepted_ms: 0,
        ended_ms: 0,
        condition: crate::functions::retry::Condition::RetriesExhausted,
        failures: 3,
        error: "no".into(),
        payload_bytes: event.payload_bytes,
    }
}

#[tokio::test]
async fn an_end_that_is_not_stored_is_tried_again() {
    let disk = Disk::default();
    let load = || {
        let (store, contents) = disk.open();
        Queue::load(Arc::new(store), &contents, Path::new("disk"), EventSettings::default()).unwrap()
    };
    let queue = Arc::new(load());
    for _ in 0..2 {
        queue.accept(key("f"), Invocation::new("1")).await.unwrap();
    }
    let (ended, buried) = (picked(&queue), picked(&queue));
    let (first, id) = (ended.id, buried.id);
    disk.take_writes(Some(0));
    let follow_up = FollowUp { key: key("g"), payload: Bytes::from_static(b"\"told\""), hops: 1 };
    queue.end(ended, Remains::Nothing, vec![follow_up]).await;
    let dead = letter(&buried);
    queue.end(buried, Remains::Letter(dead.clone()), Vec::new()).await;
    assert!(queue.dead_letters("a").is_empty(), "it is not in the store");
    assert_eq!(queue.stats().events, 3, "what follows counts already");
    assert!(matches!(queue.pick(now_ms()), Pick::Later(Some(_))), "not at once again");

    disk.take_writes(None);
    for event in [picked(&queue), picked(&queue)] {
        assert!([first, id].contains(&event.id), "what follows waits until it is stored");
        let settlement = queue.unsettled(event.id).expect("it is not to be run again");
        queue.settle(event, settlement).await;
    }
    let follow_up = picked(&queue);
    assert_eq!((&*follow_up.name, queue.unsettled(follow_up.id).is_none()), ("g", true));
    assert_eq!(queue.stats().events, 1);
    assert_eq!(queue.dead_letters("a"), std::slice::from_ref(&dead));
    drop(queue);
    let queue = load();
    assert_eq!((queue.stats().events, queue.dead_letters("a")), (1, vec![dead]));
    assert_eq!(queue.payload(id).await.unwrap().unwrap(), "1");
}

#[tokio::test]
async fn events_of_a_later_version_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("functions.redb");
    let (store, _) = Store::open(&path).unwrap();
    let record = b"{\"version\":2,\"when\":\"now\"}".to_vec();
    store.commit(vec![Change::PutEvent { id: 7, record, payload: None }]).await.unwrap();
    drop(store);
    let (store, contents) = Store::open(&path).unwrap();
    let error = Queue::load(Arc::new(store), &contents, &path, EventSettings::default()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("events entry 7") && error.contains("use that version"), "{error}");
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
    let letter = letter(&buried);
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
