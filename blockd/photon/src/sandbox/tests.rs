//! Sandboxes for real: crun on a tiny root of busybox. Needs root, crun and busybox-static;
//! without them the tests say so and pass.

use super::*;
use crate::rootfs::DirectoryRootFs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Option<Self> {
        let ready = rustix::process::geteuid().is_root()
            && Path::new("/bin/busybox").exists()
            && Command::new("crun").arg("--version").output().is_ok();
        if !ready {
            eprintln!("SKIPPED: needs root, crun and busybox-static");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("image/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(dir.path().join("image/etc")).unwrap();
        std::fs::write(dir.path().join("image/etc/passwd"), "app:x:7:8::/home/app:/bin/sh\n").unwrap();
        std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        let links =
            ["sh", "cat", "id", "touch", "kill", "sleep", "ls", "grep", "pwd", "env", "mount", "true", "dd"];
        for name in links {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
        Some(Self { dir })
    }

    fn settings(&self) -> Settings {
        Settings {
            runtime: "crun".into(),
            run_dir: self.dir.path().join("run"),
            grace: Duration::from_secs(2),
            started: None,
        }
    }

    async fn sh(&self, script: &str, request: Request, writable: bool) -> Outcome {
        let config = br#"{"config":{"Env":["FROM_IMAGE=1"],"Entrypoint":["/bin/sh","-c"],"Cmd":["exit 9"],"User":"app","WorkingDir":"/etc"}}"#;
        let rootfs = DirectoryRootFs::new(self.dir.path().join("image"), writable, config.to_vec());
        let args = if script.is_empty() { vec![] } else { vec![script.to_string()] };
        let (_keep, signals) = tokio::sync::mpsc::channel(1);
        let outcome = run(&Request { args, ..request }, &rootfs, &self.settings(), signals).await.unwrap();
        let left = std::fs::read_dir(self.dir.path().join("run/sandboxes")).unwrap().count();
        assert_eq!(left, 0, "nothing stays behind");
        outcome
    }

    async fn check(&self, script: &str) {
        let code = self.sh(script, Request::default(), false).await.exit_code;
        assert_eq!(code, 0, "{script}");
    }
}

#[tokio::test]
async fn privileged_the_images_configuration_is_honoured() {
    let Some(fixture) = Fixture::new() else { return };
    assert_eq!(fixture.sh("", Request::default(), false).await.exit_code, 9, "the image's own command");
    fixture.check("[ $FROM_IMAGE = 1 ] && [ $(id -u) = 7 ] && [ $(id -g) = 8 ] && [ $(pwd) = /etc ]").await;
    fixture.check("[ $HOME = /home/app ]").await;
    let root = Request { user: Some("0".into()), env: vec!["FROM_IMAGE=2".into()], ..Request::default() };
    let code = fixture.sh("[ $(id -u) = 0 ] && [ $FROM_IMAGE = 2 ]", root, false).await.exit_code;
    assert_eq!(code, 0);
}

#[tokio::test]
async fn privileged_a_sandbox_is_closed_in() {
    let Some(fixture) = Fixture::new() else { return };
    fixture.check("! touch /x && ! touch /etc/x && touch /tmp/x").await;
    fixture.check("[ $(ls /proc | grep -c '^[0-9]') -le 4 ]").await;
    fixture
        .check("grep -q 'Seccomp:.2' /proc/self/status && grep -q 'NoNewPrivs:.1' /proc/self/status")
        .await;
    fixture.check("[ ! -e /root ] && [ ! -e /home ] && [ ! -e /var ]").await;
    fixture.check("[ $(ls /sys/class/net | grep -cv lo) = 0 ]").await;
    let root = || Request { user: Some("0".into()), ..Request::default() };
    assert_ne!(fixture.sh("mount -t tmpfs x /tmp", root(), false).await.exit_code, 0);
    assert_ne!(fixture.sh("touch /x", root(), false).await.exit_code, 0);
    assert!(!fixture.dir.path().join("image/proc").exists(), "mount points were made in the overlay");
}

#[tokio::test]
async fn privileged_a_writable_root_is_written_to() {
    let Some(fixture) = Fixture::new() else { return };
    let root = Request { user: Some("0".into()), ..Request::default() };
    assert_eq!(fixture.sh("touch /written", root, true).await.exit_code, 0);
    assert!(fixture.dir.path().join("image/written").exists());
}

#[tokio::test]
async fn privileged_mounts_and_limits() {
    let Some(fixture) = Fixture::new() else { return };
    let shared = fixture.dir.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("file"), "hello").unwrap();
    let mount = format!("type=bind,source={},target=/data,readonly", shared.display());
    let request =
        Request { mounts: vec![mount.parse().unwrap()], user: Some("0".into()), ..Request::default() };
    let code = fixture.sh("[ $(cat /data/file) = hello ] && ! touch /data/x", request, false).await.exit_code;
    assert_eq!(code, 0);
    let limited = Request { memory_bytes: Some(16 << 20), ..Request::default() };
    let code = fixture.sh("dd if=/dev/zero of=/tmp/x bs=1M count=64", limited, false).await.exit_code;
    assert_ne!(code, 0, "64 MiB do not fit 16");
    let limited = Request { pids: Some(4), ..Request::default() };
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done 2>/dev/null; wait";
    assert_ne!(fixture.sh(script, limited, false).await.exit_code, 0);
    // what the kernel counts for the user, whose sandboxes are many
    let limited = Request { pids: Some(64), ..Request::default() };
    let own = rustix::thread::capabilities(None).unwrap().effective;
    let may_raise = own.contains(rustix::thread::CapabilitySet::SYS_RESOURCE);
    let most = if may_raise { "unlimited *unlimited" } else { "[1-9u]" };
    let script =
        ["processes", "msgqueue size"].map(|what| format!("grep -q 'Max {what} *{most}' /proc/self/limits"));
    assert_eq!(fixture.sh(&script.join(" && "), limited, false).await.exit_code, 0);
}

#[tokio::test]
async fn privileged_signals_and_times() {
    let Some(fixture) = Fixture::new() else { return };
    let rootfs = DirectoryRootFs::new(fixture.dir.path().join("image"), false, b"{}".to_vec());
    let trap = "trap 'exit 5' TERM; echo ready; while true; do sleep 0.1; done";
    for (script, want) in [(trap, 5), ("sleep 100", 137)] {
        let args = ["/bin/sh", "-c", script].map(String::from).to_vec();
        let (sender, signals) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(700)).await;
            let _ = sender.send(15).await;
            tokio::time::sleep(Duration::from_secs(30)).await;
        });
        let request = Request { args, ..Request::default() };
        let outcome = run(&request, &rootfs, &fixture.settings(), signals).await.unwrap();
        assert_eq!(outcome.exit_code, want, "{script}");
        assert_eq!(outcome.first_output.is_some(), want == 5);
    }
}

#[tokio::test]
async fn privileged_orphans_of_a_dead_worker_are_cleared() {
    let Some(fixture) = Fixture::new() else { return };
    let sandboxes = fixture.dir.path().join("run/sandboxes");
    // an older version's name
    let dead = format!("lantern-{}-0", 0x3fff_fff0);
    std::fs::create_dir_all(sandboxes.join(&dead).join("root")).unwrap();
    let cleared = clear_orphans(&fixture.settings()).await.unwrap();
    assert_eq!(cleared, vec![dead.clone()]);
    assert!(!sandboxes.join(dead).exists());
}

#[tokio::test]
async fn privileged_one_worker_gives_out_a_bridges_addresses() {
    let Some(fixture) = Fixture::new() else { return };
    let name = format!("lt{}", std::process::id());
    let bridge = Bridge { name: name.clone(), address: [100, 127, 255, 1].into(), prefix: 24 };
    let start =
        || Pool::start(PoolSettings { plain: 0, bridged: 0, bridge: bridge.clone() }, &fixture.settings());
    let (first, second) = (start(), start());
    let shell = first.take(true).await.unwrap();
    let refused = second.take(true).await.unwrap_err().to_string();
    assert!(refused.contains("another worker") && refused.contains("--bridge"), "{refused}");
    assert!(second.take(false).await.is_ok(), "without an interface nothing is shared");
    drop(shell);
    first.shutdown().await;
    assert!(second.take(true).await.is_ok(), "the first has given it back");
    second.shutdown().await;
    assert!(Command::new("ip").args(["link", "delete", &name]).status().unwrap().success());
}
