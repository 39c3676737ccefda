//! Sandboxes that wait at their first instruction: used first, as good as others, never left behind.

use super::*;
use rustix::process::{Pid, Signal, kill_process};

async fn until(what: &str, world: &World, is_so: impl Fn(&World) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so(world) {
        assert!(Instant::now() < deadline, "{what}: {:?}", world.stats());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Processes of this world's prepared sandboxes.
fn waiting(world: &World) -> Vec<Pid> {
    let run = world.dir.path().join("run");
    let all = std::fs::read_dir(run.join("runtime")).unwrap().flatten();
    let waiting = all.filter(|state| state.path().join("exec.fifo").exists());
    let pid = |id: std::ffi::OsString| {
        let text = std::fs::read_to_string(run.join("sandboxes").join(id).join("pid")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    };
    waiting.filter_map(|state| pid(state.file_name())).collect()
}

async fn busy(world: &World, count: usize) -> Vec<String> {
    let script = "sleep 0.5; id -u; hostname; ls /tmp; grep CapEff /proc/self/status";
    let scripts: Vec<String> = (0..count).map(|_| script.to_string()).collect();
    let replies = world.many(&world.function, &scripts).await;
    replies.into_iter().map(|reply| text(&reply.unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_burst_takes_what_was_prepared_and_more_is_made() {
    let Some(mut world) = World::with(1, |settings| settings.prepared = 3) else { return };
    world.invoke("true").await;
    until("three are prepared", &world, |world| world.stats().prepared == 3).await;
    let before = waiting(&world);
    assert_eq!(before.len(), 3);
    assert_eq!(world.dispatcher.sandboxes(), 1, "they are not sandboxes that serve");
    let seen = busy(&world, 6).await;
    assert!(
        seen.iter().all(|seen| seen.starts_with("993\n") && seen.ends_with("0000000000000000")),
        "{seen:?}"
    );
    let mut unlike = seen.clone();
    unlike.sort_unstable();
    unlike.dedup();
    assert_eq!(unlike.len(), 6, "six sandboxes, each with a name of its own: {seen:?}");
    assert_eq!(world.stats().starts, 6);
    until("three more are prepared", &world, |world| world.stats().prepared == 3).await;
    assert!(waiting(&world).iter().all(|pid| !before.contains(pid)));
    // another revision has nothing of the old one's
    let old = world.function.key.clone();
    world.function.revision = "2".into();
    world.function.env.insert("OWN".into(), "new".into());
    world.dispatcher.retire(&old, Some("2")).await;
    let first = world.invoke("echo $OWN").await;
    assert_eq!(text(&first), "new");
    until("three of it are prepared", &world, |world| world.stats().prepared == 3).await;
    let scripts: Vec<String> = (0..4).map(|_| "sleep 0.3; echo $OWN".to_string()).collect();
    let replies = world.many(&world.function, &scripts).await;
    assert!(
        replies.iter().all(|reply| reply.as_ref().is_ok_and(|reply| text(reply) == "new")),
        "{replies:?}"
    );
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_one_that_died_while_it_waited_is_replaced() {
    let Some(world) = World::with(1, |settings| settings.prepared = 2) else { return };
    world.invoke("true").await;
    until("two are prepared", &world, |world| world.stats().prepared == 2).await;
    for pid in waiting(&world) {
        kill_process(pid, Signal::KILL).unwrap();
    }
    assert_eq!(busy(&world, 3).await.len(), 3);
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_nothing_is_prepared_for_functions_out_of_use() {
    let change = |settings: &mut DispatcherSettings| {
        settings.prepared = 2;
        settings.keep_alive = Duration::from_millis(500);
    };
    let Some(world) = World::with(1, change) else { return };
    world.invoke("true").await;
    until("two are prepared", &world, |world| world.stats().prepared == 2).await;
    until("they go with the last sandbox", &world, |world| {
        world.dispatcher.sandboxes() == 0 && waiting(world).is_empty()
    })
    .await;
    assert_eq!(world.stats().prepared, 0);
    assert_eq!(text(&world.invoke("echo again").await), "again");
    world.shutdown().await;
}
