//! Unmodified Lambda runtime clients in real sandboxes: PyPI's awslambdaric, npm's
//! aws-lambda-ric, crates.io's lambda_runtime, installed by tests/clients/install.
//!
//! All three run the same handler (clients/app.py, clients/app.mjs, tests/clients/rust). That
//! several invocations are in one sandbox at once is shown by their meeting there, never by
//! how long something takes.

mod node;
mod python;
mod rust;

use photon::dispatch::{Dispatcher, DispatcherSettings};
use photon::function::{Function, FunctionKey, FunctionNetwork, Runtime};
use photon::invocation::{FunctionStats, Invocation, InvokeError, Invoker, Reply};
use photon::launch::LaunchSettings;
use photon::rootfs::DirectoryRootFs;
use photon::sandbox::{PoolSettings, Settings};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a test waits for what must come, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(60);
const ARN: &str = "arn:aws:lambda:us-east-1:000000000000:function:f";

/// A client, as it is installed below `LANTERN_CLIENTS`.
struct Client {
    /// Its directory there.
    name: &'static str,
    /// The handler's file, by name and contents.
    handler: Option<(&'static str, &'static str)>,
    entrypoint: &'static [&'static str],
    /// Type of the handler's own error.
    error_type: &'static str,
    /// Type and message of an error while it starts.
    init_error: (&'static str, &'static str),
}

/// A dispatcher over a client's root file system with the handler in it.
struct World {
    dir: tempfile::TempDir,
    dispatcher: Dispatcher,
    function: Function,
}

impl Client {
    /// A world with a function of so many invocations at once per sandbox; `None`, said
    /// loudly, where the client is not installed.
    fn world(&self, max_concurrency: usize) -> Option<World> {
        self.world_with(max_concurrency, 64)
    }

    fn world_with(&self, max_concurrency: usize, most_sandboxes: usize) -> Option<World> {
        let installed =
            std::env::var_os("LANTERN_CLIENTS").map(|clients| Path::new(&clients).join(self.name));
        let root = installed.map(|client| client.join("root")).filter(|root| root.exists());
        let Some(root) = root else {
            let name = self.name;
            eprintln!("SKIPPED: needs tests/clients/install ({name}), named by LANTERN_CLIENTS");
            return None;
        };
        if !tests::sandboxes() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        // links where that can be: nothing writes to them
        let script = r#"cp -al "$1" "$2" 2>/dev/null || { rm -rf "$2"; cp -a "$1" "$2"; }"#;
        let made = Command::new("sh").args(["-c", script, "sh"]).args([&root, &image]).status().unwrap();
        assert!(made.success());
        if let Some((name, contents)) = self.handler {
            std::fs::write(image.join("var/task").join(name), contents).unwrap();
        }
        // sandboxes run as nobody in particular
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = json!({"config": {
            "Env": ["PATH=/usr/bin:/bin"],
            "Entrypoint": self.entrypoint,
            "Cmd": ["app.handler"],
            "WorkingDir": "/var/task",
        }});
        let rootfs = DirectoryRootFs::new(image, false, config.to_string());
        let dispatcher = Dispatcher::start(settings(dir.path(), most_sandboxes), Arc::new(rootfs));
        Some(World { dispatcher, function: function(max_concurrency), dir })
    }
}

fn settings(dir: &Path, most_sandboxes: usize) -> DispatcherSettings {
    DispatcherSettings {
        sandbox: Settings {
            runtime: "crun".into(),
            run_dir: dir.join("run"),
            grace: Duration::from_secs(1),
            started: None,
        },
        pool: PoolSettings { plain: 1, ..PoolSettings::default() },
        prepared: 2,
        merge_memory: false,
        launch: LaunchSettings {
            runtimes: dir.join("runtimes"),
            region: "us-east-1".into(),
            default_memory_bytes: 512 << 20,
        },
        most_starts: 8,
        most_sandboxes,
        memory_bytes: 4 << 30,
        most_waiting: 1000,
        longest_wait: Duration::from_secs(60),
        init_timeout: Duration::from_secs(60),
        keep_alive: Duration::from_secs(600),
        most_response_bytes: 6 << 20,
        store_bytes: 16 << 20,
        watch_interval: Duration::from_millis(100),
    }
}

fn function(max_concurrency: usize) -> Function {
    Function {
        key: FunctionKey { tenant: "local".into(), name: "f".into() },
        revision: "1".into(),
        image: "test".into(),
        runtime: Runtime::Image,
        entrypoint: None,
        command: None,
        working_dir: None,
        env: BTreeMap::new(),
        timeout: Duration::from_secs(60),
        memory_bytes: None,
        cpu_millis: None,
        tmp_bytes: 16 << 20,
        max_concurrency,
        concurrency_declared: true,
        reserved_concurrency: None,
        network: FunctionNetwork::None,
        arn: ARN.into(),
    }
}

fn answer(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.payload).unwrap()
}

impl World {
    async fn try_invoke(&self, invocation: Invocation) -> Result<Reply, InvokeError> {
        self.dispatcher.invoke(Arc::new(self.function.clone()), invocation).await
    }

    async fn invoke(&self, event: Value) -> Reply {
        self.try_invoke(Invocation::new(event.to_string())).await.unwrap()
    }

    async fn many(&self, events: Vec<Value>) -> Vec<Reply> {
        futures_util::future::join_all(events.into_iter().map(|event| self.invoke(event))).await
    }

    fn stats(&self) -> FunctionStats {
        self.dispatcher.stats(&self.function.key)
    }

    /// Makes a file in the `/tmp` of a sandbox.
    fn let_go(&self, sandbox: &str, name: &str) {
        let stats = self.stats();
        let pids = stats.each.iter().filter(|each| each.id == sandbox).flat_map(|each| &each.pids);
        // any process that is not just ending will do
        let made = |pid| std::fs::write(format!("/proc/{pid}/root/tmp/{name}"), "").is_ok();
        assert!(pids.into_iter().any(made), "{name}: {stats:?}\n{}", self.said());
    }

    /// Everything that was logged, for messages.
    fn said(&self) -> String {
        let lines = self.dispatcher.logs(&self.function.key, 1 << 20);
        lines.into_iter().map(|line| line.text + "\n").collect()
    }

    /// Waits for something that must come to be.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "{what} does not come; it said:\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn shutdown(self) {
        self.dispatcher.shutdown(Duration::from_secs(1)).await;
        let left = std::fs::read_dir(self.dir.path().join("run/sandboxes")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "nothing stays behind");
    }

    fn is_ok(&self, reply: &Reply) {
        assert_eq!(reply.function_error, None, "{}\n{}", answer(reply), self.said());
    }
}

/// It answers, cold and warm, and its handler's errors arrive as on AWS.
async fn answers_and_fails(client: &Client, max_concurrency: usize) {
    let Some(world) = client.world(max_concurrency) else { return };
    let first = world.invoke(json!({"n": 1})).await;
    world.is_ok(&first);
    assert_eq!(answer(&first)["echo"], json!({"n": 1}));
    assert!(first.cold && !world.invoke(json!({"n": 2})).await.cold);
    let failed = world.invoke(json!({"do": "fail"})).await;
    assert_eq!(failed.function_error.as_deref(), Some("Unhandled"));
    let error = answer(&failed);
    assert_eq!(
        (error["errorType"].as_str(), error["errorMessage"].as_str()),
        (Some(client.error_type), Some("sorry"))
    );
    let after = world.invoke(json!({"n": 3})).await;
    assert!(!after.cold && after.function_error.is_none(), "an error of the handler is no end of the client");
    assert_eq!(world.stats().starts, 1);
    world.shutdown().await;
}

/// Request id, deadline, ARN, client context and trace id reach the handler.
async fn tells_what_it_was_told(client: &Client, max_concurrency: usize) {
    let Some(world) = client.world(max_concurrency) else { return };
    let trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
    let mut invocation = Invocation::new(json!({"do": "told"}).to_string());
    // one of these clients wants all that AWS's mobile kits send
    let mobile = json!({
        "installation_id": "i", "app_title": "t", "app_version_name": "n",
        "app_version_code": "1", "app_package_name": "p",
    });
    let context = json!({"client": mobile, "custom": {"colour": "blue"}, "env": {"locale": "de"}});
    invocation.client_context = Some(context.to_string());
    invocation.trace_id = Some(trace.into());
    let id = invocation.request_id.to_string();
    let reply = world.try_invoke(invocation).await.unwrap();
    world.is_ok(&reply);
    let told = answer(&reply);
    let remaining = told["remaining_ms"].as_u64().unwrap();
    assert!((1..=60_000).contains(&remaining), "{told}");
    assert_eq!(
        (&told["request_id"], &told["arn"], &told["client"], &told["trace"]),
        (&json!(id), &json!(ARN), &json!({"colour": "blue"}), &json!(trace))
    );
    // nothing of it stays for the next
    let plain = answer(&world.invoke(json!({"do": "told"})).await);
    assert!(plain["client"].is_null() && plain["trace"].as_str().unwrap_or("").is_empty(), "{plain}");
    world.shutdown().await;
}

/// What goes wrong while it starts is told to the caller.
async fn says_why_it_cannot_start(client: &Client, max_concurrency: usize) {
    let Some(mut world) = client.world(max_concurrency) else { return };
    world.function.env.insert("FAIL_INIT".into(), "1".into());
    let reply = world.invoke(json!({})).await;
    assert_eq!(reply.function_error.as_deref(), Some("Unhandled"));
    let error = answer(&reply);
    let (kind, message) = client.init_error;
    assert_eq!(error["errorType"], kind, "{error}");
    assert!(error["errorMessage"].as_str().unwrap().contains(message), "{error}");
    world.shutdown().await;
}

/// As many invocations as allowed meet in one sandbox, and never more, though the client is
/// told `told`. Returns how many processes ran them; `None` where the client is not installed.
async fn meets_in_one_sandbox(client: &Client, count: usize, told: usize) -> Option<usize> {
    let mut world = client.world_with(count, 1)?;
    world.function.env.insert("AWS_LAMBDA_MAX_CONCURRENCY".into(), told.to_string());
    world.is_ok(&world.invoke(json!({})).await);
    let events = (0..4 * count).map(|_| json!({"do": "meet", "count": count, "total": 4 * count}));
    let replies = world.many(events.collect()).await;
    let mut pids = BTreeSet::new();
    for reply in &replies {
        world.is_ok(reply);
        let met = answer(reply);
        assert!(met["most"].as_u64().unwrap() <= u64::try_from(count).unwrap(), "{met}");
        pids.insert(met["pid"].as_u64().unwrap());
    }
    assert!(replies.iter().any(|reply| answer(reply)["most"] == count), "they met");
    assert_eq!(world.stats().starts, 1);
    world.shutdown().await;
    Some(pids.len())
}

/// An answer of more than 6 MiB is an error of the invocation, and the function goes on; in
/// the same sandbox if the client `survives` the refusal.
async fn too_large_an_answer_is_an_error(client: &Client, max_concurrency: usize, survives: bool) {
    let Some(world) = client.world(max_concurrency) else { return };
    let reply = world.invoke(json!({"do": "large"})).await;
    assert_eq!(reply.function_error.as_deref(), Some("Unhandled"));
    assert_eq!(answer(&reply)["errorType"], "Function.ResponseSizeTooLarge", "{}", world.said());
    for _ in 0..2 * max_concurrency {
        world.is_ok(&world.invoke(json!({})).await);
    }
    assert_eq!(world.stats().starts, if survives { 1 } else { 2 }, "{}", world.said());
    world.shutdown().await;
}

/// The handler's process ends: its invocation fails with `error`, at once or at its deadline,
/// and the next is answered in another sandbox.
async fn that_ends_is_replaced(client: &Client, max_concurrency: usize, error: &str) {
    let Some(mut world) = client.world(max_concurrency) else { return };
    world.is_ok(&world.invoke(json!({})).await);
    let whole = world.function.timeout;
    // short only where it must pass: else the end is to come before it, on a busy machine too
    if error == "Sandbox.Timedout" {
        world.function.timeout = Duration::from_secs(2);
    }
    let ended = world.invoke(json!({"do": "exit"})).await;
    assert_eq!(answer(&ended)["errorType"], error, "{}\n{}", answer(&ended), world.said());
    world.function.timeout = whole;
    let after = world.invoke(json!({})).await;
    world.is_ok(&after);
    assert!(after.cold);
    world.shutdown().await;
}

/// The handler of a sandbox alone is over its deadline: its sandbox ends, the next answers.
async fn is_replaced_after_a_timeout(client: &Client) {
    let Some(mut world) = client.world(1) else { return };
    world.is_ok(&world.invoke(json!({})).await);
    let whole = std::mem::replace(&mut world.function.timeout, Duration::from_secs(1));
    let late = world.invoke(json!({"do": "await", "file": "/tmp/never"})).await;
    assert_eq!(answer(&late)["errorType"], "Sandbox.Timedout");
    world.function.timeout = whole;
    let after = world.invoke(json!({})).await;
    world.is_ok(&after);
    let stats = world.stats();
    assert!(after.cold && (stats.timeouts, stats.quarantined, stats.starts) == (1, 1, 2), "{stats:?}");
    world.shutdown().await;
}

/// One invocation is answered after its deadline while another is in its sandbox: the answer
/// is refused (the client says so with the words `refusal`), the other finishes, and then the
/// sandbox is replaced.
async fn survives_the_refusal_of_a_late_answer(client: &Client, refusal: &str) {
    let Some(mut world) = client.world(2) else { return };
    world.is_ok(&world.invoke(json!({})).await);
    let neighbour = {
        let (dispatcher, function) = (world.dispatcher.clone(), Arc::new(world.function.clone()));
        let invocation = Invocation::new(json!({"do": "await", "file": "/tmp/end"}).to_string());
        tokio::spawn(async move { dispatcher.invoke(function, invocation).await })
    };
    world.until("the neighbour", |world| world.stats().in_flight > 0).await;
    let sandbox = world.stats().each[0].id.clone();
    let whole = std::mem::replace(&mut world.function.timeout, Duration::from_secs(1));
    let late = world.invoke(json!({"do": "await", "file": "/tmp/late"})).await;
    assert_eq!(answer(&late)["errorType"], "Sandbox.Timedout");
    world.function.timeout = whole;
    world.let_go(&sandbox, "late");
    world.until("the refusal", |world| world.said().contains(refusal)).await;
    world.let_go(&sandbox, "end");
    let finished = neighbour.await.unwrap().unwrap();
    world.is_ok(&finished);
    assert_eq!(answer(&finished), "late");
    let after = world.invoke(json!({})).await;
    world.is_ok(&after);
    assert!(after.cold, "in another sandbox");
    let stats = world.stats();
    assert_eq!((stats.timeouts, stats.quarantined, stats.starts), (1, 1, 2));
    world.shutdown().await;
}
