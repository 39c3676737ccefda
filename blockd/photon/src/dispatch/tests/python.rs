//! The Python runtime in real sandboxes, on this host's own Python.

use super::*;

/// A world whose root file system is this host's, with `handler` as `/var/task/app.py`.
pub(super) async fn world(
    handler: &str,
    fork_per_invocation: bool,
    change: impl FnOnce(&mut DispatcherSettings),
) -> Option<World> {
    if !Path::new("/usr/bin/python3").exists() {
        eprintln!("SKIPPED: needs python3");
        return None;
    }
    let mut world = World::with(8, change)?;
    let image = world.dir.path().join("host");
    host_image(&image, handler);
    let config =
        br#"{"config":{"Env":["PATH=/usr/bin:/bin"],"Cmd":["app.handler"],"WorkingDir":"/var/task"}}"#;
    let rootfs = DirectoryRootFs::new(&image, false, config.to_vec());
    let settings = world.dispatcher.shared.settings.clone();
    crate::runtimes::install(&settings.launch.runtimes, None).unwrap();
    // sandboxes run as nobody in particular
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(world.dir.path(), open).unwrap();
    world.dispatcher.shutdown(Duration::ZERO).await;
    world.dispatcher = Dispatcher::start(settings, Arc::new(rootfs));
    world.function.runtime = Runtime::Python { fork_per_invocation };
    Some(world)
}

/// A root file system of this host's Python: what `ldd` and the interpreter name, copied.
fn host_image(image: &Path, handler: &str) {
    let script = r#"
set -e
mkdir -p "$1/usr/bin" "$1/var/task" "$1/usr/lib" "$1/etc"
cp -a --parents /usr/lib/python3* "$1"
cp -L --parents /usr/bin/python3 "$1"
for library in $(ldd /usr/bin/python3 | grep -o '/[^ ]*'); do cp -L --parents "$library" "$1"; done
for library in libffi libssl libcrypto libbz2 liblzma libuuid libsqlite3 libreadline libtinfo libncursesw; do
    for file in /usr/lib/*-linux-gnu/$library.so* /lib/*-linux-gnu/$library.so*; do [ -e "$file" ] && cp -L --parents "$file" "$1" || true; done
done
cp /bin/busybox "$1/usr/bin/busybox"
ln -s usr/bin "$1/bin"
ln -s busybox "$1/usr/bin/sh"
"#;
    let made = std::process::Command::new("sh").args(["-c", script, "sh"]).arg(image).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::write(image.join("var/task/app.py"), handler).unwrap();
}

const HANDLER: &str = r#"
import os, time, random, subprocess
counter = 0

def handler(event, context):
    global counter
    counter += 1
    if "sleep" in event:
        time.sleep(event["sleep"])
    if event.get("do") == "spin":
        while True:
            pass
    if event.get("do") == "crash":
        os.kill(os.getpid(), 11)
    if event.get("do") == "eat":
        eaten = bytearray(os.urandom(1 << 20) * 400)
        time.sleep(1)
    if event.get("do") == "tmp":
        before = sorted(os.listdir("/tmp"))
        with open("/tmp/file", "w") as file:
            file.write(context.aws_request_id)
        time.sleep(0.3)
        seen = subprocess.run(["/bin/sh", "-c", "busybox cat /tmp/file"], capture_output=True, text=True).stdout
        return {"before": before, "own": seen == context.aws_request_id}
    print("handled", event.get("n"))
    return {"n": event.get("n"), "counter": counter, "pid": os.getpid(), "random": random.random()}
"#;

pub(super) fn json(reply: &Reply) -> serde_json::Value {
    serde_json::from_slice(&reply.payload).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_python_photons_share_a_sandbox() {
    let Some(world) = world(HANDLER, true, |_| {}).await else { return };
    let events: Vec<String> = (0..8).map(|n| format!(r#"{{"n":{n},"sleep":0.5}}"#)).collect();
    let replies = world.many(&world.function, &events).await;
    let mut pids = std::collections::BTreeSet::new();
    let mut randoms = std::collections::BTreeSet::new();
    for (n, reply) in replies.iter().enumerate() {
        let reply = reply.as_ref().unwrap();
        let answer = json(reply);
        assert_eq!(
            (answer["n"].as_u64(), answer["counter"].as_u64()),
            (u64::try_from(n).ok(), Some(1)),
            "{answer}"
        );
        pids.insert(answer["pid"].to_string());
        randoms.insert(answer["random"].to_string());
        let tail = String::from_utf8_lossy(&reply.log_tail).into_owned();
        assert!(tail.contains(&format!("handled {n}\n")) && tail.matches("handled").count() == 1, "{tail}");
    }
    assert_eq!((pids.len(), randoms.len()), (8, 8));
    assert_eq!(world.stats().starts, 1);
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_tmp_is_private_to_a_photon_and_its_children() {
    for fork_per_invocation in [false, true] {
        let Some(world) = world(HANDLER, fork_per_invocation, |_| {}).await else { return };
        let events = vec![r#"{"do":"tmp"}"#.to_string(); 4];
        for _ in 0..2 {
            for reply in world.many(&world.function, &events).await {
                let answer = json(&reply.unwrap());
                assert_eq!(answer, serde_json::json!({"before": [], "own": true}));
            }
        }
        world.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_one_photon_is_stopped_and_its_neighbours_finish() {
    let Some(mut world) = world(HANDLER, false, |_| {}).await else { return };
    world.function.timeout = Duration::from_secs(3);
    let events = [
        r#"{"do":"spin"}"#.to_string(),
        r#"{"do":"crash"}"#.to_string(),
        r#"{"n":1,"sleep":1}"#.to_string(),
        r#"{"n":2,"sleep":2}"#.to_string(),
    ];
    let replies = world.many(&world.function, &events).await;
    let replies: Vec<&Reply> = replies.iter().map(|reply| reply.as_ref().unwrap()).collect();
    assert!(text(replies[0]).contains("timed out"), "{}", text(replies[0]));
    assert!(text(replies[1]).contains("Runtime.ExitError"), "{}", text(replies[1]));
    assert_eq!((json(replies[2])["n"].as_u64(), json(replies[3])["n"].as_u64()), (Some(1), Some(2)));
    assert!(!world.invoke("{}").await.cold, "the sandbox goes on");
    let stats = world.stats();
    assert_eq!((stats.starts, stats.quarantined, stats.timeouts), (1, 0, 1));
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_too_much_memory_ends_one_photon_only() {
    let Some(mut world) = world(HANDLER, false, |_| {}).await else { return };
    world.function.memory_bytes = Some(200 << 20);
    let events = [r#"{"do":"eat"}"#.to_string(), r#"{"n":1,"sleep":2}"#.to_string()];
    let replies = world.many(&world.function, &events).await;
    assert!(replies[0].as_ref().unwrap().function_error.is_some());
    assert_eq!(json(replies[1].as_ref().unwrap())["n"].as_u64(), Some(1));
    assert_eq!(world.stats().quarantined, 0, "one photon was ended, not its sandbox");
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_an_import_that_fails_is_told() {
    let Some(world) = world("import nonexistent\n", false, |_| {}).await else { return };
    let reply = world.invoke("{}").await;
    assert_eq!(json(&reply)["errorType"], "Runtime.ImportModuleError", "{}", text(&reply));
    world.shutdown().await;
}
