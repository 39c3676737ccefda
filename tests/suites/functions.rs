//! Functions for real: an image of busybox in a store, a daemon, sandboxes, and what is left
//! when the daemon is killed. Below it, each of the other ways to run a function.

mod http;
mod java;
mod python;

use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tests::image::{self, Layer};
use tests::product::{World, text};

/// A runtime client of busybox: every event is a shell script.
const RUNTIME: &str = include_str!("../../blockd/photon/src/dispatch/tests/runtime.sh");

/// A world with an image `f` that runs events as scripts; `None` where no sandbox can run.
fn world() -> Option<World> {
    if !tests::sandboxes() {
        return None;
    }
    let world = World::new();
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut layer = Layer::new().dir("./", 0o755).dir("bin", 0o755).program("bin/busybox", busybox);
    for applet in ["sh", "cat", "echo", "wget", "sed", "seq", "sleep", "id"] {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer = layer.file("runtime.sh", RUNTIME);
    let config = json!({"Entrypoint": ["/bin/sh", "/runtime.sh"], "Env": ["PATH=/bin"]});
    image::layout(&world.path("image"), &[layer.finish()], &config);
    world.push(&world.path("image"), "f");
    Some(world)
}

/// A world with an image `f` of the Python that tests/clients/install made, with `app.py` in
/// it; `None`, said loudly, where there is none.
fn python_world(app: &str) -> Option<World> {
    let clients = std::env::var_os("LANTERN_CLIENTS").map(PathBuf::from);
    let Some(root) = clients.map(|clients| clients.join("python/root")).filter(|root| root.exists()) else {
        eprintln!("SKIPPED: needs what tests/clients/install makes, named by LANTERN_CLIENTS");
        return None;
    };
    if !tests::sandboxes() {
        return None;
    }
    let world = World::new();
    let layers = [Layer::new().tree(&root).finish(), Layer::new().file("var/task/app.py", app).finish()];
    let config = json!({"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["app.handler"], "WorkingDir": "/var/task"});
    image::layout(&world.path("image"), &layers, &config);
    world.push(&world.path("image"), "f");
    Some(world)
}

fn function(world: &World, words: &[&str]) -> std::process::Output {
    world.blockd(&[&["function"], words].concat())
}

fn create(world: &World, name: &str, options: &[&str]) {
    let made = function(world, &[&["create", name, "f"], options].concat());
    assert!(made.status.success(), "{}", text(&made));
}

/// The answer to one invocation, which may be an error of the function.
fn invoke(world: &World, name: &str, event: &Value) -> Value {
    let output = function(world, &["invoke", name, &event.to_string()]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{event}: {}", text(&output)))
}

/// The answers to many at once, in the order of the events.
fn invoke_all(world: &World, name: &str, events: &[Value]) -> Vec<Value> {
    std::thread::scope(|scope| {
        let calls: Vec<_> =
            events.iter().map(|event| scope.spawn(move || invoke(world, name, event))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

fn stats(world: &World, name: &str) -> Value {
    let output = function(world, &["stats", name, "--json"]);
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["function"].clone()
}

/// Makes the file `/tmp/go` in all sandboxes of a function.
fn let_go(stats: &Value) {
    for sandbox in stats["each"].as_array().unwrap() {
        // any process that is not just ending will do
        let pids = sandbox["pids"].as_array().unwrap();
        let made = |pid: &Value| std::fs::write(format!("/proc/{pid}/root/tmp/go"), "").is_ok();
        assert!(pids.iter().any(made), "{sandbox}");
    }
}

/// Control groups of sandboxes that this process made, and of the process itself.
fn groups_of(worker: u32) -> Vec<PathBuf> {
    let below = |directory: PathBuf| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    for controller in ["memory", "pids", "", "unified"] {
        let mut workers = below(PathBuf::from("/sys/fs/cgroup").join(controller).join("lantern"));
        // a word that tells it from others with the same process id follows
        let own = format!("lantern-{worker}-");
        workers.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with(&own));
        found.extend(workers.iter().cloned().flat_map(below));
        found.extend(workers);
    }
    found
}

/// Waits for something that must come to be.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn privileged_a_function_from_its_image_to_its_end() {
    let Some(world) = world() else { return };
    let _daemon = world.daemon();
    create(&world, "shell", &["--max-concurrency", "4", "--timeout", "120"]);
    let answer = function(&world, &["invoke", "shell", "\"echo hello from $(id -u)\""]);
    assert!(answer.status.success(), "{}", text(&answer));
    assert_eq!(text(&answer).trim(), "hello from 993");
    let failed = function(&world, &["invoke", "shell", "\"echo oh dear; exit 1\""]);
    assert!(!failed.status.success() && text(&failed).contains("oh dear"), "{}", text(&failed));
    // a burst: as many sandboxes as it needs, by the limit that the owner declared
    std::thread::scope(|scope| {
        let burst: Vec<_> = (0..10)
            .map(|n| {
                let script = format!("\"while [ ! -e /tmp/go ]; do sleep 0.1; done; echo {n}\"");
                let world = &world;
                scope.spawn(move || (n, function(world, &["invoke", "shell", &script])))
            })
            .collect();
        // none ends before all are in a sandbox, however slowly they come
        until("all ten", || stats(&world, "shell")["in_flight"] == 10);
        let_go(&stats(&world, "shell"));
        for one in burst {
            let (n, answer) = one.join().unwrap();
            assert_eq!(text(&answer).trim(), n.to_string());
        }
    });
    let seen = stats(&world, "shell");
    assert_eq!(seen["starts"], 3, "10 at once, 4 in each: {seen}");
    let logs = function(&world, &["logs", "shell"]);
    assert!(text(&logs).contains("REPORT RequestId: "), "{}", text(&logs));
    assert!(function(&world, &["delete", "shell"]).status.success());
    until("the end of its sandboxes", || !world.residue().iter().any(|line| line.contains("/images/")));
}

#[test]
fn privileged_a_hundred_sandboxes_of_a_killed_daemon_leave_nothing() {
    let Some(world) = world() else { return };
    let mut command = world.command("blockd");
    command.args(["serve", "--max-starts", "100", "--max-sandboxes", "120", "--pool", "4"]);
    // a hundred starts share what processors there are
    command.args(["--init-timeout", "120"]);
    let mut daemon = world.daemon_of(command);
    let worker = daemon.id();
    create(&world, "many", &["--max-concurrency", "1", "--timeout", "300"]);
    std::thread::scope(|scope| {
        for _ in 0..100 {
            let world = &world;
            scope.spawn(move || function(world, &["invoke", "many", "\"sleep 200\""]));
        }
        until("a hundred sandboxes", || stats(&world, "many")["in_flight"] == 100);
        assert!(groups_of(worker).len() >= 100 && world.residue().len() > 100);
        daemon.end(Signal::KILL);
    });
    // the next daemon finds what the last left, removes it, and goes on with what was stored
    let again = world.daemon();
    until("the end of the orphans", || groups_of(worker).is_empty());
    let answer = function(&world, &["invoke", "many", "\"echo again\""]);
    assert_eq!(text(&answer).trim(), "again", "functions work again");
    let serving = again.id();
    drop(again);
    assert!(groups_of(serving).is_empty());
    assert_eq!(world.residue(), Vec::<String>::new(), "nothing is left");
}
