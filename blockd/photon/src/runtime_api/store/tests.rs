//! The store's promises under paused time, and its HTTP as the contract says it.

use super::*;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures_util::future::join_all;
use proptest::prelude::*;
use std::sync::atomic::AtomicUsize;
use tower::ServiceExt;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn store(budget_bytes: u64) -> Arc<SharedStore> {
    Arc::new(SharedStore::new(StoreLimits { budget_bytes, ..StoreLimits::default() }))
}

fn put(store: &SharedStore, key: &str, value: &'static str) -> Version {
    store
        .put(key, Bytes::from_static(value.as_bytes()), &PutOptions::default())
        .expect("room and no condition")
}

fn under(token: LeaseToken) -> PutOptions {
    PutOptions { lease: Some(token), ..PutOptions::default() }
}

async fn lease_of(store: &SharedStore, key: &str, lease: Duration) -> LeaseToken {
    match store.init(key, Duration::ZERO, lease).await.expect("nobody holds it") {
        Init::Make(token) => token,
        Init::Present(_) => panic!("{key} is there"),
    }
}

#[tokio::test(start_paused = true)]
async fn values_and_conditions() {
    let store = store(1 << 20);
    assert_eq!(store.get("a"), Err(StoreError::NotFound));
    let first = put(&store, "a", "1");
    let found = store.get("a").expect("put before");
    assert_eq!((found.value.as_ref(), found.version), (b"1".as_ref(), first));
    let absent = PutOptions { condition: Condition::Absent, ..PutOptions::default() };
    let stale = StoreError::Condition { present: Some(first) };
    assert_eq!(store.put("a", Bytes::new(), &absent), Err(stale.clone()));
    let swap = PutOptions { condition: Condition::Is(first), ..PutOptions::default() };
    let second = store.put("a", Bytes::from_static(b"2"), &swap).expect("the version holds");
    assert!(second > first);
    assert_eq!(store.put("a", Bytes::new(), &swap), Err(StoreError::Condition { present: Some(second) }));
    assert_eq!(store.delete("a", Condition::Is(first)), Err(StoreError::Condition { present: Some(second) }));
    assert_eq!(store.delete("a", Condition::Is(second)), Ok(()));
    assert_eq!(store.delete("a", Condition::Any), Err(StoreError::NotFound));
    // a version is never used again
    assert!(put(&store, "a", "1") > second);
    for key in ["", &"k".repeat(MOST_KEY_BYTES + 1)] {
        assert_eq!(store.get(key), Err(StoreError::Key { length: key.len() }));
    }
    put(&store, &"k".repeat(MOST_KEY_BYTES), "longest");
}

#[tokio::test(start_paused = true)]
async fn values_expire() {
    let store = store(1 << 20);
    let ttl = |ttl| PutOptions { ttl: Some(ttl), ..PutOptions::default() };
    store.put("a", Bytes::new(), &ttl(SECOND)).expect("room");
    store.put("b", Bytes::new(), &ttl(Duration::MAX)).expect("room");
    tokio::time::advance(SECOND / 2).await;
    assert!(store.get("a").is_ok());
    tokio::time::advance(SECOND / 2).await;
    assert_eq!(store.get("a"), Err(StoreError::NotFound));
    store.put("a", Bytes::new(), &ttl(SECOND)).expect("room");
    // a put without a time makes it stay
    put(&store, "a", "");
    tokio::time::advance(MINUTE).await;
    assert!(store.get("a").is_ok() && store.get("b").is_ok());
    assert_eq!(store.metrics().expired, 1);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_at_once_initialise_once() {
    let store = store(1 << 20);
    let made = AtomicUsize::new(0);
    let all = (0..100).map(|_| async {
        match store.init("model", MINUTE, MINUTE).await.expect("in time") {
            Init::Present(stored) => stored,
            Init::Make(token) => {
                made.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(SECOND).await;
                store.put("model", Bytes::from_static(b"weights"), &under(token)).expect("the lease holds");
                store.get("model").expect("just put")
            }
        }
    });
    let found = join_all(all).await;
    assert!(found.iter().all(|stored| stored.value == "weights" && stored.version == found[0].version));
    assert_eq!(made.into_inner(), 1);
    let metrics = store.metrics();
    assert_eq!((metrics.inits, metrics.waits, metrics.hits), (1, 99, 100));
}

#[tokio::test(start_paused = true)]
async fn giving_up_hands_over_to_exactly_one() {
    let store = store(1 << 20);
    let tries = AtomicUsize::new(0);
    let all = (0..50).map(|_| async {
        match store.init("a", MINUTE, MINUTE).await.expect("in time") {
            Init::Present(_) => false,
            Init::Make(token) => {
                tokio::time::sleep(SECOND).await;
                if tries.fetch_add(1, Ordering::Relaxed) < 9 {
                    store.give_up("a", &token).expect("the lease holds");
                    assert!(store.give_up("a", &token).is_err(), "only once");
                    false
                } else {
                    store.put("a", Bytes::new(), &under(token)).expect("the lease holds");
                    true
                }
            }
        }
    });
    let begun = Instant::now();
    assert_eq!(join_all(all).await.into_iter().filter(|made| *made).count(), 1);
    assert_eq!((tries.into_inner(), store.metrics().inits), (10, 10));
    assert_eq!(begun.elapsed().as_secs(), 10, "handed over at once each time");
}

#[tokio::test(start_paused = true)]
async fn an_expired_lease_goes_to_exactly_one_and_is_void() {
    let store = store(1 << 20);
    let late = lease_of(&store, "a", SECOND).await;
    let made = AtomicUsize::new(0);
    let all = (0..20).map(|_| async {
        if let Init::Make(token) = store.init("a", MINUTE, MINUTE).await.expect("in time") {
            made.fetch_add(1, Ordering::Relaxed);
            assert_eq!(
                store.put("a", Bytes::new(), &under(late.clone())),
                Err(StoreError::Lease { present: None })
            );
            assert_eq!(store.give_up("a", &late), Err(StoreError::Lease { present: None }));
            store.put("a", Bytes::new(), &under(token)).expect("the lease holds");
        }
    });
    let begun = Instant::now();
    join_all(all).await;
    // tokio's timer has a grain of a millisecond
    let took = begun.elapsed();
    assert!(took >= SECOND && took <= SECOND + Duration::from_millis(2), "{took:?}");
    assert_eq!(made.into_inner(), 1);
}

#[tokio::test(start_paused = true)]
async fn dropped_waiters_lose_no_grant() {
    let store = store(1 << 20);
    let token = lease_of(&store, "a", MINUTE).await;
    let mut waiters: Vec<_> = (0..10)
        .map(|_| {
            let store = Arc::clone(&store);
            Box::pin(async move { store.init("a", MINUTE, MINUTE).await })
        })
        .collect();
    for waiter in &mut waiters {
        assert!(futures_util::poll!(waiter).is_pending());
    }
    store.give_up("a", &token).expect("the lease holds");
    // the first was woken for the lease and is dropped before it looks; so are the next
    drop(waiters.drain(..9));
    let last = waiters.pop().expect("ten less nine");
    assert!(matches!(last.await, Ok(Init::Make(_))));
    assert!(store.lock().queues.len() == 0);
}

#[tokio::test(start_paused = true)]
async fn the_first_to_wait_is_the_first_served_and_newcomers_queue() {
    let store = store(1 << 20);
    let held = store.acquire("lock", MINUTE, Duration::ZERO).await.expect("free");
    let order = Mutex::new(Vec::new());
    let (store, order) = (&store, &order);
    let one = |number: u32| async move {
        tokio::time::sleep(SECOND * number).await;
        let token = store.acquire("lock", MINUTE, MINUTE).await.expect("in time");
        order.lock().expect("no panic").push(number);
        store.release("lock", &token).expect("held");
    };
    let release = async {
        tokio::time::sleep(SECOND * 9).await;
        store.release("lock", &held).expect("held");
        // free, but others were first
        assert_eq!(store.acquire("lock", MINUTE, Duration::ZERO).await, Err(StoreError::Timeout));
    };
    tokio::join!(release, one(3), one(1), one(2), one(4));
    assert_eq!(*order.lock().expect("no panic"), [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn waits_end_in_time_and_are_bounded_in_number() {
    let limits = StoreLimits { most_waiters: 2, most_leases: 2, ..StoreLimits::default() };
    let store = SharedStore::new(limits);
    let begun = Instant::now();
    let _held = store.acquire("a", Duration::MAX, Duration::ZERO).await.expect("free");
    let wait = |wait| store.acquire("a", MINUTE, wait);
    let (one, two, three) = tokio::join!(wait(SECOND), wait(Duration::MAX), wait(MINUTE));
    assert_eq!(one, Err(StoreError::Timeout));
    assert_eq!(two, Err(StoreError::Timeout));
    assert_eq!(three, Err(StoreError::Busy { what: "waiters", most: 2 }));
    assert!(begun.elapsed() <= LONGEST_WAIT + SECOND);
    lease_of(&store, "b", MINUTE).await;
    assert_eq!(wait_none(&store, "c").await, Err(StoreError::Busy { what: "leases", most: 2 }));
    tokio::time::advance(LONGEST_LEASE).await;
    assert!(wait_none(&store, "c").await.is_ok(), "expired leases make room");
}

async fn wait_none(store: &SharedStore, name: &str) -> Result<LeaseToken, StoreError> {
    store.acquire(name, MINUTE, Duration::ZERO).await
}

#[tokio::test(start_paused = true)]
async fn a_put_from_outside_ends_an_initialisation() {
    let store = store(1 << 20);
    let token = lease_of(&store, "a", MINUTE).await;
    let waiting = store.init("a", MINUTE, MINUTE);
    let putting = async {
        tokio::time::sleep(SECOND).await;
        put(&store, "a", "other")
    };
    let (found, version) = tokio::join!(waiting, putting);
    assert!(matches!(found, Ok(Init::Present(stored)) if stored.version == version));
    assert_eq!(
        store.put("a", Bytes::new(), &under(token)),
        Err(StoreError::Lease { present: Some(version) })
    );
}

#[tokio::test(start_paused = true)]
async fn the_least_recently_used_goes_first_and_leased_stays() {
    // four values of 100 bytes with keys of one byte
    let store = store(4 * (101 + ENTRY_BYTES));
    let big = || Bytes::from(vec![7; 100]);
    for key in ["a", "b", "c", "d"] {
        store.put(key, big(), &PutOptions::default()).expect("room");
    }
    store.get("a").expect("held");
    let lease = store.acquire("b", MINUTE, Duration::ZERO).await.expect("free");
    store.put("e", big(), &PutOptions::default()).expect("c can go");
    let held = |key| store.get(key).is_ok();
    assert_eq!(["a", "b", "c", "d", "e"].map(held), [true, true, false, true, true]);
    // too large beside what is leased: nothing is evicted for nothing
    let large = Bytes::from(vec![7; 1100]);
    assert!(matches!(store.put("f", large.clone(), &PutOptions::default()), Err(StoreError::Full { .. })));
    assert_eq!(store.metrics().keys, 4);
    store.release("b", &lease).expect("held");
    store.put("f", large, &PutOptions::default()).expect("all others can go");
    let metrics = store.metrics();
    assert_eq!((metrics.keys, metrics.evictions), (1, 5));
    let huge = Bytes::from(vec![7; 2000]);
    assert!(matches!(store.put("g", huge, &PutOptions::default()), Err(StoreError::TooLarge { .. })));
}

#[tokio::test(start_paused = true)]
async fn slow_readers_hold_a_bounded_amount() {
    let budget = 10_000;
    let store = store(budget);
    let mut readers = Vec::new();
    let mut held = 0;
    let refused = loop {
        match store.put("a", Bytes::from(vec![1; 4000]), &PutOptions::default()) {
            Ok(_) => readers.push(store.get("a").expect("just put").value),
            Err(error) => break error,
        }
        held += 4000;
        assert!(held < 10 * budget, "no bound");
    };
    assert!(matches!(refused, StoreError::Full { .. }));
    assert!(u64::try_from(readers.len() * 4000).expect("small") <= 3 * budget);
    readers.clear();
    store.put("a", Bytes::from(vec![1; 4000]), &PutOptions::default()).expect("the readers are gone");
    assert_eq!(store.alive.load(Ordering::Relaxed), store.metrics().bytes);
}

#[derive(Debug, Clone)]
enum Step {
    Get(u8),
    Put { key: u8, size: u16, ttl: Option<u8> },
    Delete(u8),
    Lease(u8),
    Release,
    Pass(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0u8..8).prop_map(Step::Get),
        (0u8..8, 0u16..1500, prop::option::of(1u8..9)).prop_map(|(key, size, ttl)| Step::Put {
            key,
            size,
            ttl
        }),
        (0u8..8).prop_map(Step::Delete),
        (0u8..8).prop_map(Step::Lease),
        Just(Step::Release),
        (0u8..5).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    /// Against a list that is searched from end to end.
    #[test]
    fn the_store_is_what_a_plain_list_says(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()
            .expect("a runtime of one thread");
        runtime.block_on(async {
            let budget = 4000;
            let store = store(budget);
            // key, value, when it expires; the least recently used first
            let mut model: Vec<(String, Bytes, Option<Instant>)> = Vec::new();
            let mut leased: Option<(String, LeaseToken)> = None;
            for step in steps {
                let now = Instant::now();
                model.retain(|(.., expires)| expires.is_none_or(|at| at > now));
                let at = |model: &[(String, Bytes, Option<Instant>)], key: &str| model.iter().position(|e| e.0 == key);
                match step {
                    Step::Get(key) => {
                        let key = key.to_string();
                        let expected = at(&model, &key).map(|index| {
                            let entry = model.remove(index);
                            model.push(entry.clone());
                            entry.1
                        });
                        assert_eq!(store.get(&key).ok().map(|stored| stored.value), expected);
                    }
                    Step::Put { key, size, ttl } => {
                        let (key, value) = (key.to_string(), Bytes::from(vec![key; size.into()]));
                        let ttl = ttl.map(|seconds| SECOND * u32::from(seconds));
                        let options = PutOptions { ttl, ..PutOptions::default() };
                        let charge = |e: &(String, Bytes, Option<Instant>)| charge_of(&e.0, e.1.len());
                        let entry = (key.clone(), value.clone(), ttl.map(|ttl| now + ttl));
                        let mut after = model.clone();
                        after.retain(|e| e.0 != key);
                        let pinned = |e: &(String, Bytes, Option<Instant>)| {
                            leased.as_ref().is_some_and(|(name, _)| *name == e.0)
                        };
                        after.push(entry);
                        let total = |all: &[(String, Bytes, Option<Instant>)]| all.iter().map(charge).sum::<u64>();
                        while total(&after) > budget {
                            let Some(victim) = after[..after.len() - 1].iter().position(|e| !pinned(e)) else { break };
                            after.remove(victim);
                        }
                        let fits = total(&after) <= budget;
                        assert_eq!(store.put(&key, value, &options).is_ok(), fits);
                        if fits {
                            model = after;
                        }
                    }
                    Step::Delete(key) => {
                        let key = key.to_string();
                        let index = at(&model, &key);
                        assert_eq!(store.delete(&key, Condition::Any).is_ok(), index.is_some());
                        index.map(|index| model.remove(index));
                    }
                    Step::Lease(key) if leased.is_none() => {
                        let name = key.to_string();
                        let token = store.acquire(&name, LONGEST_LEASE, Duration::ZERO).await.expect("free");
                        leased = Some((name, token));
                    }
                    Step::Lease(_) => {}
                    Step::Release => {
                        if let Some((name, token)) = leased.take() {
                            store.release(&name, &token).expect("held");
                        }
                    }
                    Step::Pass(seconds) => tokio::time::advance(SECOND * u32::from(seconds)).await,
                }
                let now = Instant::now();
                model.retain(|(.., expires)| expires.is_none_or(|at| at > now));
                let metrics = store.metrics();
                assert_eq!(metrics.keys, model.len());
                assert_eq!(metrics.bytes, model.iter().map(|e| charge_of(&e.0, e.1.len())).sum::<u64>());
                assert!(metrics.bytes <= budget);
                let state = store.lock();
                assert_eq!((state.recency.len(), state.entries.len()), (model.len(), model.len()));
            }
        });
    }
}

/// Sends a request; returns status, `ETag`, lease and body.
async fn call(
    router: &axum::Router,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> (u16, Option<String>, Option<String>, Bytes) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.into()).expect("a request");
    let response = router.clone().oneshot(request).await.expect("infallible");
    let text = |name| response.headers().get(name).map(|v| v.to_str().expect("text").to_owned());
    let (etag, lease) = (text("etag"), text("lantern-lease"));
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body in memory");
    (status, etag, lease, body)
}

#[tokio::test(start_paused = true)]
async fn http_values() {
    let router = router(store(1 << 20));
    let key = "/lantern/v1/store/a%2Fb%20%C3%A9";
    assert_eq!(call(&router, "GET", key, &[], "").await.0, 404);
    let (status, etag, ..) = call(&router, "PUT", key, &[("if-none-match", "*")], "one").await;
    let etag = etag.expect("an ETag");
    assert_eq!((status, etag.as_str()), (200, "\"1\""));
    let (status, found, _, body) = call(&router, "GET", key, &[], "").await;
    assert_eq!((status, found.as_ref(), body.as_ref()), (200, Some(&etag), b"one".as_ref()));
    let (status, present, ..) = call(&router, "PUT", key, &[("if-none-match", "*")], "two").await;
    assert_eq!((status, present.as_ref()), (412, Some(&etag)));
    let (status, second, ..) = call(&router, "PUT", key, &[("if-match", &etag)], "two").await;
    assert_eq!(status, 200);
    let (status, present, ..) = call(&router, "PUT", key, &[("if-match", &etag)], "three").await;
    assert_eq!((status, &present), (412, &second));
    assert_eq!(call(&router, "DELETE", key, &[("if-match", &etag)], "").await.0, 412);
    assert_eq!(call(&router, "DELETE", key, &[("if-match", &second.expect("an ETag"))], "").await.0, 204);
    assert_eq!(call(&router, "DELETE", key, &[], "").await.0, 404);
    assert_eq!(call(&router, "PUT", key, &[("lantern-ttl-ms", "1000")], "").await.0, 200);
    tokio::time::advance(SECOND).await;
    assert_eq!(call(&router, "GET", key, &[], "").await.0, 404);
    let (status, .., body) = call(&router, "GET", "/lantern/v1/store", &[], "").await;
    let figures: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((status, figures["expired"].as_u64(), figures["hits"].as_u64()), (200, Some(1), Some(1)));
    for name in ["keys", "bytes", "budget_bytes", "misses", "evictions", "inits", "waits"] {
        assert!(figures[name].is_u64(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn http_initialisation_and_leases() {
    let router = router(store(1 << 20));
    let key = "/lantern/v1/store/model";
    let init = "/lantern/v1/store/model/init?wait_ms=1000&lease_ms=60000";
    let (status, _, lease, _) = call(&router, "POST", init, &[], "").await;
    let lease = lease.expect("a lease");
    assert_eq!(status, 201);
    assert_eq!(call(&router, "POST", init, &[], "").await.0, 408);
    assert_eq!(call(&router, "PUT", key, &[("lantern-lease", "another")], "").await.0, 412);
    let give_up = "/lantern/v1/store/model/init";
    assert_eq!(call(&router, "DELETE", give_up, &[("lantern-lease", "another")], "").await.0, 412);
    assert_eq!(call(&router, "DELETE", give_up, &[("lantern-lease", &lease)], "").await.0, 204);
    let (status, _, lease, _) = call(&router, "POST", init, &[], "").await;
    assert_eq!(status, 201);
    let lease = lease.expect("a lease");
    let lease_header = [("lantern-lease", lease.as_str())];
    let (waited, put) =
        tokio::join!(call(&router, "POST", init, &[], ""), call(&router, "PUT", key, &lease_header, "w"));
    assert_eq!((waited.0, waited.3.as_ref()), (200, b"w".as_ref()));
    assert_eq!((put.0, put.1), (200, waited.1));

    let lock = "/lantern/v1/lease/lock?ttl_ms=1000&wait_ms=0";
    let (status, _, lease, _) = call(&router, "POST", lock, &[], "").await;
    assert_eq!(status, 200);
    assert_eq!(call(&router, "POST", lock, &[], "").await.0, 408);
    let release = "/lantern/v1/lease/lock";
    assert_eq!(call(&router, "DELETE", release, &[("lantern-lease", "x")], "").await.0, 412);
    let lease = lease.expect("a lease");
    assert_eq!(call(&router, "DELETE", release, &[("lantern-lease", &lease)], "").await.0, 204);
    assert_eq!(call(&router, "POST", lock, &[], "").await.0, 200);
    tokio::time::advance(SECOND).await;
    assert_eq!(call(&router, "POST", lock, &[], "").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn http_refuses_nonsense_and_too_much() {
    let router = router(store(4000));
    let key = "/lantern/v1/store/a";
    let long = format!("/lantern/v1/store/{}", "k".repeat(MOST_KEY_BYTES + 1));
    type Call<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
    let wrong: [Call<'_>; 9] = [
        ("PUT", key, &[("if-match", "1")]),
        ("PUT", key, &[("if-match", "W/\"1\"")]),
        ("PUT", key, &[("if-none-match", "\"1\"")]),
        ("PUT", key, &[("if-match", "*"), ("if-none-match", "*")]),
        ("PUT", key, &[("lantern-ttl-ms", "-1")]),
        ("DELETE", "/lantern/v1/lease/a", &[]),
        ("POST", "/lantern/v1/store/a/init?wait_ms=soon", &[]),
        ("GET", "/lantern/v1/store/%FF", &[]),
        ("GET", &long, &[]),
    ];
    for (method, path, headers) in wrong {
        let (status, .., body) = call(&router, method, path, headers, "").await;
        assert_eq!(status, 400, "{method} {path} {headers:?}");
        let error: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert!(error["errorType"].is_string() && error["errorMessage"].is_string(), "{error}");
    }
    assert_eq!(call(&router, "PUT", key, &[], vec![0; 4001]).await.0, 413);
    assert_eq!(call(&router, "PUT", key, &[], vec![0; 3999]).await.0, 413, "with its key and entry");
    // of unknown length
    let chunks = (0..100).map(|_| Ok::<_, std::io::Error>(vec![0u8; 100]));
    let endless = Body::from_stream(futures_util::stream::iter(chunks));
    assert_eq!(call(&router, "PUT", key, &[], endless).await.0, 413);
    let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
    assert_eq!(call(&router, "PUT", key, &[], Body::from_stream(broken)).await.0, 400);
    let silent = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(call(&router, "PUT", key, &[], silent).await.0, 408);
    // pinned by its lease
    let fill = Body::from(vec![0; 3000]);
    assert_eq!(call(&router, "PUT", key, &[], fill).await.0, 200);
    assert_eq!(call(&router, "POST", "/lantern/v1/lease/a", &[], "").await.0, 200);
    assert_eq!(call(&router, "PUT", "/lantern/v1/store/b", &[], vec![0; 3000]).await.0, 507);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_leaves_the_queue() {
    let store = store(1 << 20);
    let router = router(Arc::clone(&store));
    let token = lease_of(&store, "a", MINUTE).await;
    let path = "/lantern/v1/store/a/init";
    let dropped = tokio::time::timeout(SECOND, call(&router, "POST", path, &[], "")).await;
    assert!(dropped.is_err());
    assert_eq!(store.lock().queues.len(), 0);
    store.give_up("a", &token).expect("held");
    assert_eq!(call(&router, "POST", path, &[], "").await.0, StatusCode::CREATED.as_u16());
}
