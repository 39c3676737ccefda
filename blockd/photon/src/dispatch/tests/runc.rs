//! The same with another OCI runtime: runc, which moves a sandbox's processes to groups of its
//! own below those that are made for it.

use super::*;
use crate::sandbox::Observer;

fn world(max_concurrency: usize) -> Option<World> {
    if std::process::Command::new("runc").arg("--version").output().is_err() {
        eprintln!("SKIPPED: needs runc");
        return None;
    }
    World::with(max_concurrency, |settings| settings.sandbox.runtime = "runc".into())
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_runc_serves_prepares_and_leaves_nothing() {
    let Some(world) = world(4) else { return };
    let scripts: Vec<String> = (0..8).map(|n| format!("sleep 0.5; echo {n}")).collect();
    for (n, reply) in world.many(&world.function, &scripts).await.iter().enumerate() {
        assert_eq!(text(reply.as_ref().unwrap()), n.to_string());
    }
    let stats = world.stats();
    assert_eq!(stats.starts, 2, "8 at once, 4 in each");
    let pids: Vec<i32> = stats.each.iter().flat_map(|sandbox| sandbox.pids.clone()).collect();
    assert!(pids.len() >= 10, "a shell for each slot, and one for all: {stats:?}");
    assert!(Observer::pss_bytes(rustix::process::Pid::from_raw(pids[0]).unwrap()).is_some());
    world.shutdown().await;
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
    let name = format!("lantern-{}-", std::process::id());
    let workers = std::fs::read_dir("/sys/fs/cgroup/memory/lantern").into_iter().flatten().flatten();
    assert!(!workers.into_iter().any(|worker| worker.file_name().to_string_lossy().starts_with(&name)));
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_limits_hold_with_runc_and_a_crash_is_told() {
    let Some(mut world) = world(1) else { return };
    world.function.memory_bytes = Some(32 << 20);
    world.function.timeout = Duration::from_secs(3);
    let greedy = world.invoke("x=x; while true; do x=$x$x; done").await;
    assert!(greedy.function_error.is_some(), "{}", text(&greedy));
    let late = world.invoke("sleep 100").await;
    assert!(text(&late).contains("timed out"), "{}", text(&late));
    assert_eq!(text(&world.invoke("echo again").await), "again");
    world.shutdown().await;
}
