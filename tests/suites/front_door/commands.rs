//! `blockd function`, through a control socket that this process serves.

use super::double::DoorUnderTest;
use blockd::api::function_routes;
use blockd::functions::Caller;
use photon::invocation::Invocation;
use serde_json::{Value, json};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tests::product::binary;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

struct Daemon {
    door: DoorUnderTest,
}

impl Daemon {
    async fn open() -> Self {
        let door = DoorUnderTest::open().await;
        let listener = UnixListener::bind(door.directory.path().join("blockd.sock")).unwrap();
        let routes = function_routes(Some(Arc::clone(&door.service)));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { door }
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Output {
        let program = tokio::task::spawn_blocking(|| binary("blockd")).await.unwrap();
        let mut child = tokio::process::Command::new(program)
            .arg("function")
            .args(arguments)
            .env("LANTERN_RUN_DIR", self.door.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // a command that reads nothing may be gone already
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await.unwrap()
    }

    async fn out(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, "").await;
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out
    }

    async fn all_events_ended(&self) {
        let waiting = async {
            while self.door.service.queue_stats().events > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.out(arguments).await).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_as_on_the_network() {
    let daemon = Daemon::open().await;
    let flags = ["--runtime", "python", "--timeout", "9", "-e", "AB=c", "--", "app.handler"];
    let made = daemon.out(&[&["create", "f", "app"][..], &flags].concat()).await;
    assert_eq!(made, "made f of sha256:111111111111…\n");
    let shown = daemon.json(&["get", "f"]).await;
    let variables = json!({"AB": "c", "LANTERN_RUNTIME": "python"});
    assert_eq!(shown["Configuration"]["Environment"]["Variables"], variables);
    let changed = daemon.json(&["update", "f", "--image", "app2", "-e", "CD=e", "--json"]).await;
    assert_eq!(changed["Environment"]["Variables"]["LANTERN_RUNTIME"], "python");
    assert_eq!((&changed["Timeout"], &changed["CodeSha256"]), (&json!(9), &json!("2".repeat(64))));
    assert_eq!(daemon.json(&["list", "--json"]).await.as_array().unwrap().len(), 1);
    assert!(daemon.out(&["list"]).await.contains("sha256:222222222222…"));
    assert_eq!(daemon.json(&["list", "--json", "--tenant", "other"]).await, json!([]));

    assert_eq!(daemon.out(&["invoke", "f", "[1]"]).await, "[1]\n");
    assert_eq!(daemon.out(&["invoke", "f"]).await, "{}\n");
    let piped = daemon.run(&["invoke", "f", "-", "--log"], "{\"a\":2}").await;
    assert_eq!((&piped.stdout[..], &piped.stderr[..]), (&b"{\"a\":2}\n"[..], &b"START\nhello\nEND\n"[..]));
    let failed = daemon.run(&["invoke", "f", r#"{"do":"fail"}"#], "").await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stdout).contains("errorMessage"));
    assert!(daemon.out(&["logs", "f"]).await.ends_with(" - hello\n"));
    assert_eq!(daemon.json(&["stats", "f", "--json"]).await["function"]["sandboxes"], 2);
    assert!(daemon.out(&["stats", "f"]).await.contains("queue events"));
    daemon.out(&["delete", "f"]).await;

    for (arguments, code, named) in [
        (&["get", "f"][..], 3, "not found"),
        (&["create", "f", "nothing"], 4, "flattener push"),
        (&["create", "f", "app", "--timeout", "901"], 4, "timeout"),
        (&["create", "f", "app", "--tenant", "A B"], 4, "not a tenant: \"A B\" is not a label: 1 to 63"),
        (&["create", "f", "app", "-e", "AB"], 2, "NAME=VALUE"),
        (&["update", "f"], 3, "not found"),
    ] {
        let output = daemon.run(arguments, "").await;
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {err}");
        assert!(err.contains(named), "{arguments:?}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_printed_and_drained() {
    let daemon = Daemon::open().await;
    daemon.out(&["create", "f", "app", "--dead-letter", "arn:aws:lantern:::dead-letters"]).await;
    let id = daemon.out(&["invoke", "f", r#"{"do":"fail","n":1}"#, "--async"]).await;
    daemon.door.double.until("f", 3).await;
    daemon.all_events_ended().await;
    assert!(daemon.out(&["dead-letters"]).await.contains("RetriesExhausted after 3 failures"));
    let letter = daemon.json(&["dead-letters", "--json", "--drain"]).await;
    assert_eq!(
        (&letter["payload"], letter["request_id"].as_str()),
        (&json!("{\"do\":\"fail\",\"n\":1}"), Some(id.trim()))
    );
    assert_eq!(daemon.out(&["dead-letters"]).await, "");

    // more than the socket gives at a time
    let caller = Caller { tenant: "local".into(), account: "000000000000".into() };
    let entry = daemon.door.service.get(&caller, "f", None).unwrap();
    for _ in 0..40 {
        daemon.door.service.send(&entry, Invocation::new(r#"{"do":"fail"}"#)).await.unwrap();
    }
    daemon.all_events_ended().await;
    let count = |printed: String| printed.matches("RetriesExhausted").count();
    assert_eq!(count(daemon.out(&["dead-letters"]).await), 40);
    assert_eq!(count(daemon.out(&["dead-letters", "--drain"]).await), 40);
    assert_eq!(count(daemon.out(&["dead-letters"]).await), 0);
}
