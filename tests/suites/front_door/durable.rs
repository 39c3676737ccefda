//! What was answered with success survives SIGKILL, and a full disk.

use super::double::{Double, Images, settings};
use blockd::functions::input::CreateFunction;
use blockd::functions::{Caller, Service};
use photon::invocation::Invocation;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tests::product::run;

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

/// A small disk of its own, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        run(mount.args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(directory.path()));
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(self.0.path()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_needs_no_restart() {
    if !tests::privileged() {
        return;
    }
    let disk = SmallDisk::mount();
    let directory = disk.0.path();
    let double = Arc::new(Double::default());
    let service = open(directory, &double).await;
    let input = |name: &str| -> CreateFunction {
        let body = serde_json::json!({"FunctionName": name, "Code": {"ImageUri": "app"}});
        serde_json::from_value(body).unwrap()
    };
    let entry = service.create(&caller(), input("f")).await.unwrap();
    let filler = directory.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let event = || Invocation::new(format!("\"{}\"", "x".repeat(1 << 19)));
    // what it had room for before
    let mut refused = None;
    for _ in 0..32 {
        refused = service.send(&entry, event()).await.err();
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("the disk is full").to_string();
    assert!(refused.contains("need not be restarted"), "{refused}");
    assert_eq!(service.call(&entry, Invocation::new("1")).await.unwrap().payload, "1", "calls need no disk");
    std::fs::remove_file(&filler).unwrap();
    drop(file);
    service.create(&caller(), input("g")).await.unwrap();
    service.send(&entry, event()).await.unwrap();
    let ended = async {
        while service.queue_stats().events > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("what ended meanwhile is settled");
    service.close().await;
    drop((entry, service));
    let service = open(directory, &double).await;
    assert_eq!(service.list(&caller(), "", 9).0.len(), 2);
    assert_eq!(service.queue_stats().events, 0);
}
