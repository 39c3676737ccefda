//! The service against doubles: revisions, tenants, events and what becomes of them.

use super::super::input::{CodeInput, CreateFunction};
use super::super::store::Change;
use super::*;
use crate::functions::images::ResolvedImage;
use crate::functions::retry::Condition;
use async_trait::async_trait;
use bytes::Bytes;
use photon::function::Function;
use photon::invocation::{FunctionStats, Invocation, LogLine, Reply, RequestId};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[derive(Debug, Default)]
struct Double {
    /// Function, payload, attempt's request id.
    invoked: Mutex<Vec<(String, Bytes, RequestId)>>,
    retired: Mutex<Vec<(String, Option<String>)>>,
    told: tokio::sync::Notify,
    is_shutting_down: AtomicBool,
}

#[async_trait]
impl Invoker for Double {
    async fn invoke(&self, function: Arc<Function>, invocation: Invocation) -> Result<Reply, InvokeError> {
        let name = function.key.name.clone();
        let seen = {
            let mut invoked = self.invoked.lock().unwrap();
            invoked.push((name.clone(), invocation.payload.clone(), invocation.request_id));
            invoked.iter().filter(|(other, ..)| *other == name).count()
        };
        self.told.notify_waiters();
        if self.is_shutting_down.load(Ordering::SeqCst) {
            return Err(InvokeError::ShuttingDown);
        }
        let fails = name.starts_with("fails");
        if name == "throttled" && seen < 4 {
            return Err(InvokeError::Throttled { reason: "busy".into() });
        }
        Ok(Reply {
            payload: if fails {
                Bytes::from_static(b"{\"errorMessage\":\"no\"}")
            } else {
                invocation.payload
            },
            content_type: None,
            function_error: fails.then(|| "Unhandled".into()),
            log_tail: Bytes::new(),
            duration: Duration::ZERO,
            cold: false,
        })
    }

    async fn retire(&self, function: &FunctionKey, keep: Option<&str>) {
        self.retired.lock().unwrap().push((function.name.clone(), keep.map(Into::into)));
    }

    fn stats(&self, _function: &FunctionKey) -> FunctionStats {
        FunctionStats::default()
    }

    fn logs(&self, _function: &FunctionKey, _most: usize) -> Vec<LogLine> {
        Vec::new()
    }
}

#[async_trait]
impl ImageResolver for Double {
    async fn resolve(&self, _tenant: &str, image: &str) -> Result<ResolvedImage, ResolveError> {
        if image == "missing" {
            return Err(ResolveError::Refused("push it".into()));
        }
        Ok(ResolvedImage { digest: format!("sha256:{image}"), size_bytes: 1, architecture: "x86_64" })
    }
}

struct Opened {
    service: Arc<Service>,
    double: Arc<Double>,
    _directory: tempfile::TempDir,
}

impl Opened {
    async fn until(&self, done: impl Fn(&Double, &Service) -> bool) {
        let waiting = async {
            while !done(&self.double, &self.service) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it happens");
    }

    fn count(&self, name: &str) -> usize {
        self.double.invoked.lock().unwrap().iter().filter(|(other, ..)| other == name).count()
    }
}

async fn open() -> Opened {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = ServiceSettings::new(directory.path().join("functions.redb"));
    settings.events.retry_delays = [Duration::from_millis(1); 2];
    settings.events.throttle_delay = Duration::from_millis(1);
    settings.max_functions = 8;
    let double = Arc::new(Double::default());
    let invoker = Arc::clone(&double) as Arc<dyn Invoker>;
    let service = Service::open(settings, invoker, Arc::clone(&double) as _).await.unwrap();
    Opened { service, double, _directory: directory }
}

fn caller(tenant: &str) -> Caller {
    Caller { tenant: tenant.into(), account: "000000000000".into() }
}

fn input(name: &str, more: Value) -> CreateFunction {
    let mut body = json!({"FunctionName": name, "Code": {"ImageUri": "app"}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(body).unwrap()
}

fn arn(name: &str) -> String {
    format!("arn:aws:lambda:us-east-1:000000000000:function:{name}")
}

#[tokio::test]
async fn revisions_change_with_what_sandboxes_are_made_of() {
    let opened = open().await;
    let (service, local) = (&opened.service, caller("local"));
    let first = service.create(&local, input("f", json!({}))).await.unwrap();
    let taken = service.create(&local, input("f", json!({}))).await.unwrap_err();
    assert_eq!(taken.code, ErrorCode::ResourceConflict);
    let kept = service.set_concurrency(&local, "f", Some(3)).await.unwrap();
    assert_eq!(kept.function().unwrap().revision, first.function().unwrap().revision);
    assert_eq!(kept.function().unwrap().reserved_concurrency, Some(3));
    let code = |image: &str, revision: Option<String>| CodeInput {
        image_uri: Some(image.into()),
        revision_id: revision,
        ..CodeInput::default()
    };
    let stale = service.update_code(&local, "f", code("new", Some("stale".into()))).await.unwrap_err();
    assert_eq!(stale.code, ErrorCode::PreconditionFailed);
    let revision = Some(first.function().unwrap().revision.clone());
    let second = service.update_code(&local, "f", code("new", revision)).await.unwrap();
    assert_ne!(second.function().unwrap().revision, first.function().unwrap().revision);
    let now = second.function().unwrap();
    assert_eq!((&*now.image, now.reserved_concurrency), ("sha256:new", Some(3)));
    let missing = service.update_code(&local, "f", code("missing", None)).await.unwrap_err();
    assert_eq!(missing.code, ErrorCode::InvalidParameterValue);
    service.delete(&local, "f", None).await.unwrap();
    assert_eq!(service.get(&local, "f", None).unwrap_err().code, ErrorCode::ResourceNotFound);
    let retired = opened.double.retired.lock().unwrap().clone();
    assert_eq!(
        retired,
        [("f".into(), Some(second.function().unwrap().revision.clone())), ("f".into(), None)]
    );
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let opened = open().await;
    let (service, one, two) = (&opened.service, caller("one"), caller("two"));
    service.create(&one, input("f", json!({}))).await.unwrap();
    let missing = service.get(&two, "f", None).unwrap_err();
    assert_eq!(missing.code, ErrorCode::ResourceNotFound);
    assert_eq!(missing.message, format!("Function not found: {}", arn("f")));
    assert_eq!(service.delete(&two, "f", None).await.unwrap_err().code, ErrorCode::ResourceNotFound);
    assert!(service.list(&two, "", 10).0.is_empty());
    for number in 1..8 {
        service.create(&one, input(&format!("g{number}"), json!({}))).await.unwrap();
    }
    let full = service.create(&one, input("h", json!({}))).await.unwrap_err();
    assert_eq!(full.code, ErrorCode::CodeStorageExceeded);
    service.create(&two, input("f", json!({}))).await.unwrap();
    let (page, more) = service.list(&one, "g5", 1);
    assert_eq!((page[0].definition.name.as_str(), more), ("g6", true));
}

#[tokio::test]
async fn payloads_are_json_and_bounded() {
    let opened = open().await;
    let (service, local) = (&opened.service, caller("local"));
    let entry = service.create(&local, input("f", json!({}))).await.unwrap();
    let call = |payload: Vec<u8>| service.call(&entry, Invocation::new(payload));
    assert_eq!(call(Vec::new()).await.unwrap().payload, "{}");
    assert_eq!(call(b"nope".to_vec()).await.unwrap_err().code, ErrorCode::InvalidRequestContent);
    let mut deep = vec![b'['; 300_000];
    assert_eq!(call(deep.clone()).await.unwrap_err().code, ErrorCode::InvalidRequestContent);
    deep.extend(vec![b']'; 300_000]);
    assert!(call(deep).await.is_ok(), "deep, and no recursion");
    let long = service.send(&entry, Invocation::new(vec![b'1'; MAX_EVENT_BYTES + 1])).await;
    assert_eq!(long.unwrap_err().code, ErrorCode::RequestTooLarge);
    service.set_concurrency(&local, "f", Some(0)).await.unwrap();
    let entry = service.get(&local, "f", None).unwrap();
    let error = service.call(&entry, Invocation::new("1")).await.unwrap_err();
    assert_eq!(error.reason, Some("ReservedFunctionConcurrentInvocationLimitExceeded"));
}

#[tokio::test]
async fn failures_are_tried_three_times_and_told() {
    let opened = open().await;
    let (service, local) = (&opened.service, caller("local"));
    service.create(&local, input("told", json!({}))).await.unwrap();
    let dead = json!({"DeadLetterConfig": {"TargetArn": arn("told")}});
    let entry = service.create(&local, input("fails", dead)).await.unwrap();
    let sent = Invocation::new("{\"n\":1}");
    let id = sent.request_id.clone();
    service.send(&entry, sent).await.unwrap();
    opened.until(|double, _| double.invoked.lock().unwrap().iter().any(|(name, ..)| name == "told")).await;
    assert_eq!(opened.count("fails"), 3);
    let invoked = opened.double.invoked.lock().unwrap().clone();
    assert!(invoked[..3].iter().all(|(_, _, attempt)| *attempt == id), "an event keeps its id");
    let record: Value = serde_json::from_slice(&invoked[3].1).unwrap();
    assert_eq!(record["requestContext"]["condition"], "RetriesExhausted");
    assert_eq!(record["requestContext"]["requestId"], id.as_str());
    assert_eq!(record["requestPayload"], json!({"n": 1}));
    assert_eq!(record["responsePayload"], json!({"errorMessage": "no"}));
    opened.until(|_, service| service.queue_stats().events == 0).await;
    assert_eq!(service.queue_stats().dropped, 0);
}

#[tokio::test]
async fn dead_letters_are_kept_shown_and_drained() {
    let opened = open().await;
    let (service, local) = (&opened.service, caller("local"));
    let dead = json!({"DeadLetterConfig": {"TargetArn": "arn:aws:lantern:::dead-letters"}});
    let entry = service.create(&local, input("fails", dead)).await.unwrap();
    let gone = json!({"DeadLetterConfig": {"TargetArn": arn("gone")}});
    let other = service.create(&local, input("fails2", gone)).await.unwrap();
    service.send(&entry, Invocation::new("[1]")).await.unwrap();
    service.send(&other, Invocation::new("[2]")).await.unwrap();
    opened.until(|_, service| service.queue_stats().events == 0).await;
    let letters = service.dead_letters(&local, None, 10).await.unwrap();
    let mut shown: Vec<_> =
        letters.iter().map(|(letter, payload)| (&*letter.function, &payload[..])).collect();
    shown.sort();
    assert_eq!(shown, [("fails", &b"[1]"[..]), ("fails2", b"[2]")], "a target that is gone loses nothing");
    let (first, second) = (letters[0].0.id, letters[1].0.id);
    let next = service.dead_letters(&local, Some(first), 10).await.unwrap();
    assert_eq!(next.iter().map(|(letter, _)| letter.id).collect::<Vec<_>>(), [second]);
    assert_eq!((letters[0].0.condition, letters[0].0.failures), (Condition::RetriesExhausted, 3));
    let ids: Vec<u64> = letters.iter().map(|(letter, _)| letter.id).collect();
    assert_eq!(service.remove_dead_letters(&caller("other"), &ids).await.unwrap(), 0);
    assert_eq!(service.remove_dead_letters(&local, &ids).await.unwrap(), 2);
    assert!(service.dead_letters(&local, None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn throttles_are_waited_out_and_success_is_told() {
    let opened = open().await;
    let (service, local) = (&opened.service, caller("local"));
    service.create(&local, input("told", json!({}))).await.unwrap();
    let entry = service.create(&local, input("throttled", json!({}))).await.unwrap();
    let config = json!({
        "MaximumRetryAttempts": 0, "DestinationConfig": {"OnSuccess": {"Destination": arn("told")}}
    });
    let config = serde_json::from_value(config).unwrap();
    service.set_event_config(&local, ("throttled", None), config, false).await.unwrap();
    service.send(&entry, Invocation::new("7")).await.unwrap();
    opened.until(|double, _| double.invoked.lock().unwrap().iter().any(|(name, ..)| name == "told")).await;
    assert_eq!(opened.count("throttled"), 4, "throttles are no failures");
    let record = opened.double.invoked.lock().unwrap().last().unwrap().1.clone();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(
        (&record["requestContext"]["condition"], &record["responsePayload"]),
        (&json!("Success"), &json!(7))
    );
}

#[tokio::test]
async fn chains_of_destinations_end() {
    let opened = open().await;
    let (service, local) = (&opened.service, caller("local"));
    let target = |name: &str| json!({"DeadLetterConfig": {"TargetArn": arn(name)}});
    let entry = service.create(&local, input("fails1", target("fails2"))).await.unwrap();
    service.create(&local, input("fails2", target("fails1"))).await.unwrap();
    service.send(&entry, Invocation::new("1")).await.unwrap();
    opened.until(|_, service| service.queue_stats().events == 0).await;
    assert_eq!(service.dead_letters(&local, None, 10).await.unwrap().len(), 1);
    assert_eq!(opened.count("fails1") + opened.count("fails2"), 17 * 3);
}

#[tokio::test]
async fn everything_is_there_after_closing_and_opening() {
    let opened = open().await;
    let local = caller("local");
    let entry = opened.service.create(&local, input("f", json!({"Timeout": 7}))).await.unwrap();
    let revision = entry.function().unwrap().revision.clone();
    opened.service.close().await;
    opened.service.send(&entry, Invocation::new("5")).await.unwrap();
    let settings = opened.service.settings().clone();
    let Opened { service, double, _directory } = opened;
    assert_eq!(double.invoked.lock().unwrap().len(), 0, "a closed service runs nothing");
    drop(service);
    let invoker = Arc::clone(&double) as Arc<dyn Invoker>;
    let service = Service::open(settings, invoker, Arc::clone(&double) as _).await.unwrap();
    let again = service.get(&local, "f", None).unwrap();
    assert_eq!((again.definition.timeout_seconds, &again.definition.revision), (7, &revision));
    let opened = Opened { service, double, _directory };
    opened.until(|_, service| service.queue_stats().events == 0).await;
    assert_eq!(opened.count("f"), 1);
}

#[tokio::test]
async fn an_event_that_a_shutdown_cut_off_runs_again_and_lost_no_attempt() {
    let opened = open().await;
    let (service, local) = (&opened.service, caller("local"));
    let once = json!({"DeadLetterConfig": {"TargetArn": "arn:aws:lantern:::dead-letters"}});
    let entry = service.create(&local, input("f", once)).await.unwrap();
    let config = serde_json::from_value(json!({"MaximumRetryAttempts": 0})).unwrap();
    service.set_event_config(&local, ("f", None), config, false).await.unwrap();
    opened.double.is_shutting_down.store(true, Ordering::SeqCst);
    service.send(&entry, Invocation::new("5")).await.unwrap();
    opened.until(|double, _| double.invoked.lock().unwrap().len() > 1).await;
    service.close().await;
    assert_eq!(service.queue_stats().events, 1);
    assert!(service.dead_letters(&local, None, 1).await.unwrap().is_empty());
    let settings = service.settings().clone();
    let Opened { service, double, _directory } = opened;
    drop(service);
    double.invoked.lock().unwrap().clear();
    double.is_shutting_down.store(false, Ordering::SeqCst);
    let invoker = Arc::clone(&double) as Arc<dyn Invoker>;
    let service = Service::open(settings, invoker, Arc::clone(&double) as _).await.unwrap();
    let opened = Opened { service, double, _directory };
    opened.until(|_, service| service.queue_stats().events == 0).await;
    assert_eq!(
        (opened.count("f"), opened.service.dead_letters(&local, None, 1).await.unwrap().len()),
        (1, 0)
    );
}

#[tokio::test]
async fn a_function_that_can_no_longer_run_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let settings = ServiceSettings::new(directory.path().join("functions.redb"));
    let mut old = crate::functions::definition::tests::plain("local", "old");
    old.environment.insert("LANTERN_RUNTIME".into(), "cobol".into());
    let (store, _) = Store::open(&settings.file).unwrap();
    let record = serde_json::to_vec(&old).unwrap();
    let put = Change::PutFunction { tenant: "local".into(), name: "old".into(), record };
    store.commit(vec![put]).await.unwrap();
    drop(store);
    let double = Arc::new(Double::default());
    let service = Service::open(settings, Arc::clone(&double) as _, Arc::clone(&double) as _).await.unwrap();
    let local = caller("local");
    let entry = service.get(&local, "old", None).unwrap();
    for error in [
        service.call(&entry, Invocation::new("1")).await.unwrap_err(),
        service.send(&entry, Invocation::new("1")).await.unwrap_err(),
        service.set_concurrency(&local, "old", Some(1)).await.unwrap_err(),
    ] {
        assert_eq!(error.code, ErrorCode::InvalidParameterValue);
        assert!(error.message.contains("cobol"), "{error}");
    }
    let fixed = serde_json::from_value(json!({"Environment": {"Variables": {}}})).unwrap();
    let entry = service.update_configuration(&local, "old", fixed).await.unwrap();
    assert!(service.call(&entry, Invocation::new("1")).await.is_ok());
}
