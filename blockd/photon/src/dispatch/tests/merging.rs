//! Memory merged by the kernel: between one tenant's photons only, and nobody else's can ask for it.

use super::python::{json, world};
use super::*;

/// Answers with errno of each way to ask for it, and whether this process has it.
const HANDLER: &str = r#"
import ctypes, mmap, os, time
libc = ctypes.CDLL(None, use_errno=True)
prctl, madvise = {"x86_64": (157, 28), "aarch64": (167, 233)}[os.uname().machine]
page = mmap.mmap(-1, 4096)
held = []

def call(number, *arguments):
    ctypes.set_errno(0)
    return libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, arguments)), ctypes.get_errno()

def handler(event, context):
    if "hold" in event:
        held.append(b"equal in all" * event["hold"])
        time.sleep(event["sleep"])
        return os.getpid()
    place = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return {
        "merges": call(prctl, 68, 0, 0, 0, 0)[0],
        "plainly": call(prctl, 67, 1, 0, 0, 0)[1],
        # the kernel cuts these to 32 bits
        "otherwise": [call(prctl, 67 | high << 32, 1, 0, 0, 0)[1] for high in (1, 0x80000000, 0xFFFFFFFF)]
            + [call(madvise, place, 4096, 12 | high << 32)[1] for high in (0, 1, 0xFFFFFFFF)],
        "harmless": [call(madvise, place, 4096, advice)[1] for advice in (3, 4, 8, 13, 14, 15, 16, 20)]
            + [call(prctl, 23, 0, 0, 0, 0)[1], call(prctl, 15, place, 0, 0, 0)[1]],
    }
"#;

const EPERM: i64 = 1;
const SWITCH: &str = "/sys/kernel/mm/ksm/run";

/// The kernel's switch, put back at the end.
struct Switch(String);

impl Switch {
    fn on() -> Option<Self> {
        let before = std::fs::read_to_string(SWITCH).ok();
        let on = before.filter(|_| std::fs::write(SWITCH, "1").is_ok());
        if on.is_none() {
            eprintln!("SKIPPED: needs a kernel that merges memory (KSM), and to switch it on");
        }
        on.map(Self)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = std::fs::write(SWITCH, self.0.trim());
    }
}

/// Pages of all processes of this world's sandboxes that are merged with others.
fn merged_pages(world: &World) -> u64 {
    let groups = world.dispatcher.shared.all().into_iter().flat_map(|entry| entry.groups().clone());
    let sandboxes = groups.flat_map(|group| group.sandboxes());
    let processes = sandboxes.filter_map(|sandbox| sandbox.observer()).flat_map(|one| one.processes());
    let pages = |pid: rustix::process::Pid| {
        let text =
            std::fs::read_to_string(format!("/proc/{}/ksm_merging_pages", pid.as_raw_nonzero())).ok()?;
        text.trim().parse::<u64>().ok()
    };
    processes.filter_map(pages).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_only_one_tenants_memory_can_be_merged() {
    let Some(world) = world(HANDLER, false, |settings| settings.merge_memory = true).await else { return };
    let mut other = world.function.clone();
    other.key.tenant = "other".into();
    let first = json(&world.invoke("{}").await);
    let second = json(&world.try_invoke(&other, "{}").await.unwrap());
    for (answer, who) in [(&first, "first"), (&second, "other")] {
        let errors = |field: &str| answer[field].as_array().unwrap().clone();
        assert!(errors("otherwise").iter().all(|error| *error == EPERM), "{who}: {answer}");
        assert!(errors("harmless").iter().all(|error| *error != EPERM), "{who}: {answer}");
    }
    assert_eq!((&second["merges"], &second["plainly"]), (&0.into(), &EPERM.into()), "{second}");
    if first["merges"] != 1 {
        eprintln!("SKIPPED in part: this kernel has no PR_SET_MEMORY_MERGE (Linux 6.4)");
    } else {
        assert_eq!(first["plainly"], 0, "{first}");
    }
    // the other's turn comes when nothing is left of the first's
    world.dispatcher.retire(&world.function.key, None).await;
    other.revision = "2".into();
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.dispatcher.sandboxes() > 1 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let later = json(&world.try_invoke(&other, "{}").await.unwrap());
    assert_eq!((&later["merges"], &later["plainly"]), (&first["merges"], &first["plainly"]), "{later}");
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_nobodys_memory_is_merged_unless_the_worker_allows_it() {
    let Some(world) = world(HANDLER, false, |_| {}).await else { return };
    let answer = json(&world.invoke("{}").await);
    assert_eq!((&answer["merges"], &answer["plainly"]), (&0.into(), &EPERM.into()), "{answer}");
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_what_photons_have_alike_is_merged() {
    let Some(world) = world(HANDLER, false, |settings| settings.merge_memory = true).await else { return };
    let Some(_switch) = Switch::on() else { return world.shutdown().await };
    let probe = json(&world.invoke("{}").await);
    if probe["merges"] != 1 {
        eprintln!("SKIPPED: this kernel has no PR_SET_MEMORY_MERGE (Linux 6.4)");
        return world.shutdown().await;
    }
    // each makes its own 1.2 MB
    let events = vec![r#"{"hold":100000,"sleep":18}"#.to_string(); 4];
    let alike = async {
        while merged_pages(&world) < 4 * 250 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        replies = world.many(&world.function, &events) => panic!("little was merged: {replies:?}"),
        () = alike => {}
    }
    world.dispatcher.shutdown(Duration::ZERO).await;
    world.shutdown().await;
}
