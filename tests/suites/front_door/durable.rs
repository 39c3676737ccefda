//! What was answered with success survives SIGKILL.

use super::double::{Double, Images, settings};
use blockd::functions::input::CreateFunction;
use blockd::functions::{Caller, Service};
use photon::invocation::Invocation;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const DIRECTORY: &str = "LANTERN_TEST_DOOR_DIRECTORY";
const EVENTS: usize = 25;

async fn open(directory: &Path, double: &Arc<Double>) -> Arc<Service> {
    let mut settings = settings(directory);
    // what fails in the process that is killed waits until after it
    settings.events.throttle_delay = Duration::from_secs(1);
    Service::open(settings, Arc::clone(double) as _, Arc::new(Images)).await.unwrap()
}

fn caller() -> Caller {
    Caller { tenant: "local".into(), account: "000000000000".into() }
}

/// Runs in a process of its own, which is killed.
#[tokio::test]
#[ignore = "the other half of events_and_functions_survive_a_kill, which starts it"]
async fn process_that_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let double = Arc::new(Double::default());
    let service = open(Path::new(&directory), &double).await;
    let body = serde_json::json!({"FunctionName": "f", "Code": {"ImageUri": "app"}, "Timeout": 77});
    let input: CreateFunction = serde_json::from_value(body).unwrap();
    let entry = service.create(&caller(), input).await.unwrap();
    let sent = (0..EVENTS).map(|number| {
        let payload = format!(r#"{{"do":"throttle","number":{number}}}"#);
        service.send(&entry, Invocation::new(payload))
    });
    assert!(futures_util::future::join_all(sent).await.iter().all(Result::is_ok));
    eprintln!("KILL ME");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_functions_survive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "front_door::durable::process_that_is_killed", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let ready = lines.any(|line| line.contains("KILL ME"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ready, "the child did what it should");

    let double = Arc::new(Double::default());
    // now it says nothing but errors: each event is tried three times and then gone
    double.failing.lock().unwrap().push("f".into());
    let service = open(directory.path(), &double).await;
    let entry = service.get(&caller(), "f", None).unwrap();
    assert_eq!(entry.definition.timeout_seconds, 77);
    double.until("f", EVENTS * 3).await;
    let mut numbers: Vec<u64> = {
        let invoked = double.invoked.lock().unwrap();
        let payloads = invoked.iter().map(|(_, invocation)| invocation.payload.clone());
        payloads
            .map(|p| serde_json::from_slice::<serde_json::Value>(&p).unwrap()["number"].as_u64().unwrap())
            .collect()
    };
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), EVENTS, "every event that was accepted is run");
}
