//! Memory merged by the kernel: between one tenant's photons only, and nobody else's can ask for it.
//!
//! One test for all that needs the right to it, which one worker of a host has at a time.

use super::python::{json, world};
use super::*;
use rustix::process::Pid;

/// Answers with errno of each way to ask for it, and whether this process and its child have it.
const HANDLER: &str = r#"
import ctypes, mmap, os, sys, subprocess, time
libc = ctypes.CDLL(None, use_errno=True)
prctl, madvise = {"x86_64": (157, 28), "aarch64": (167, 233)}[os.uname().machine]
page = mmap.mmap(-1, 4096)
held = []

def call(number, *arguments):
    ctypes.set_errno(0)
    return libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, arguments)), ctypes.get_errno()

ASK = "import ctypes; print(ctypes.CDLL(None).prctl(68, 0, 0, 0, 0))"

def handler(event, context):
    if "alike" in event:
        held.extend(number.to_bytes(8, "little") * 512 for number in range(event["alike"]))
        time.sleep(event["sleep"])
    if "forks" in event:
        held.append(os.urandom(event["bytes"]))
        for _ in range(event["forks"]):
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
        time.sleep(60)
    place = ctypes.addressof(ctypes.c_char.from_buffer(page))
    high = (1, 0x80000000, 0xFFFFFFFF)
    return {
        "merges": call(prctl, 68, 0, 0, 0, 0)[0],
        "child": int(subprocess.run([sys.executable, "-S", "-c", ASK], capture_output=True).stdout),
        "plainly": call(prctl, 67, 1, 0, 0, 0)[1],
        # the kernel cuts these to 32 bits
        "otherwise": [call(prctl, 67 | bits << 32, 1, 0, 0, 0)[1] for bits in high],
        "mergeable": [call(madvise, place, 4096, 12 | bits << 32)[1] for bits in (0, *high)],
        "x32": call(0x40000000 | prctl, 67, 1, 0, 0, 0)[0],
        "harmless": [call(madvise, place, 4096, advice)[1]
            for advice in (0, 3, 4, 4 | 1 << 32, 8, 11, 13, 14, 15, 16, 20, 25, 102, 103)]
            + [call(prctl, option, 0, 0, 0, 0)[1] for option in (3, 23, 39, 64, 66, 68, 68 | 1 << 32)]
            + [call(prctl, 15, place, 0, 0, 0)[1]],
    }
"#;

const EPERM: i64 = 1;
const KSM: &str = "/sys/kernel/mm/ksm/";

/// The kernel's merging, at full pace; as it was at the end.
struct Switched(Vec<(&'static str, String)>);

impl Switched {
    fn on() -> Option<Self> {
        let mut before = Self(Vec::new());
        for (name, value) in [("pages_to_scan", "20000"), ("run", "1")] {
            let path = format!("{KSM}{name}");
            let Ok(was) = std::fs::read_to_string(&path) else { break };
            if std::fs::write(&path, value).is_ok() {
                before.0.push((name, was));
            }
        }
        let is_on = before.0.iter().any(|(name, _)| *name == "run");
        if !is_on {
            eprintln!("SKIPPED in part: needs a kernel that merges memory (KSM), and to switch it on");
        }
        is_on.then_some(before)
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        for (name, was) in &self.0 {
            let _ = std::fs::write(format!("{KSM}{name}"), was.trim());
        }
    }
}

/// Pages that this process shares with others by merging.
fn merged_pages(pid: Pid) -> u64 {
    let path = format!("/proc/{}/ksm_merging_pages", pid.as_raw_nonzero());
    std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// All processes of this world's sandboxes.
fn processes(world: &World) -> Vec<Pid> {
    let groups = world.dispatcher.shared.all().into_iter().flat_map(|entry| entry.groups().clone());
    let sandboxes = groups.flat_map(|group| group.sandboxes());
    sandboxes.filter_map(|sandbox| sandbox.observer()).flat_map(|one| one.processes()).collect()
}

fn assert_closed(answer: &serde_json::Value, may: bool) {
    let errors = |field: &str| answer[field].as_array().unwrap().clone();
    // with a permit, more bits change nothing about what is allowed
    let otherwise = if may { 0 } else { EPERM };
    assert!(errors("otherwise").iter().all(|error| *error == otherwise), "{answer}");
    assert!(errors("mergeable").iter().all(|error| *error == EPERM), "{answer}");
    assert!(errors("harmless").iter().all(|error| *error != EPERM), "{answer}");
    assert_eq!(answer["x32"], -1, "{answer}");
    assert_eq!(answer["plainly"], otherwise, "{answer}");
    let merges = i64::from(may);
    assert_eq!((&answer["merges"], &answer["child"]), (&merges.into(), &merges.into()), "{answer}");
}

/// Whether this kernel knows of merging by process (Linux 6.4).
fn is_known() -> bool {
    let known = std::path::Path::new("/proc/self/ksm_merging_pages").exists()
        && std::fs::read_to_string("/proc/self/ksm_stat")
            .is_ok_and(|text| text.contains("ksm_process_profit"));
    if !known {
        eprintln!("SKIPPED: this kernel merges no memory by process (KSM, Linux 6.4)");
    }
    known
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_nobodys_memory_is_merged_unless_the_worker_allows_it() {
    if !is_known() {
        return;
    }
    let Some(world) = world(HANDLER, false, |_| {}).await else { return };
    assert_closed(&json(&world.invoke("{}").await), false);
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_one_tenants_memory_is_merged_and_bounded() {
    if !is_known() {
        return;
    }
    let Some(world) = world(HANDLER, false, |settings| settings.merge_memory = true).await else { return };
    one_tenant_at_a_time(&world).await;
    if let Some(_switched) = Switched::on() {
        alike_is_merged(&world).await;
        what_the_kernel_keeps_counts(&world).await;
    }
    world.shutdown().await;
}

async fn gone(world: &World, key: &FunctionKey) {
    let before = world.dispatcher.sandboxes();
    world.dispatcher.retire(key, None).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.dispatcher.sandboxes() >= before {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn one_tenant_at_a_time(world: &World) {
    let mut other = world.function.clone();
    other.key.tenant = "other".into();
    assert_closed(&json(&world.invoke("{}").await), true);
    assert_closed(&json(&world.try_invoke(&other, "{}").await.unwrap()), false);
    // the other's turn comes when nothing is left of the first's
    gone(world, &world.function.key).await;
    other.key.name = "later".into();
    assert_closed(&json(&world.try_invoke(&other, "{}").await.unwrap()), true);
    other.key.name = "declines".into();
    other.env.insert("LANTERN_PYTHON_MERGE".into(), "0".into());
    assert_closed(&json(&world.try_invoke(&other, "{}").await.unwrap()), false);
    other.key.name = "later".into();
    gone(world, &other.key).await;
}

async fn alike_is_merged(world: &World) {
    let events = vec![r#"{"alike":300,"sleep":18}"#.to_string(); 4];
    let alike = async {
        // pages of one photon are all unlike: what is merged is merged with others'
        while processes(world).into_iter().filter(|pid| merged_pages(*pid) >= 300).count() < 4 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        replies = world.many(&world.function, &events) => panic!("little was merged: {replies:?}"),
        () = alike => {}
    }
    gone(world, &world.function.key).await;
}

/// Of many processes with many pages, which control groups hardly see.
async fn what_the_kernel_keeps_counts(world: &World) {
    let mut greedy = world.function.clone();
    greedy.key.name = "greedy".into();
    greedy.memory_bytes = Some(192 << 20);
    let reply = world.try_invoke(&greedy, r#"{"forks":100,"bytes":60000000}"#).await.unwrap();
    assert!(text(&reply).contains("with what the kernel keeps to merge it"), "{}", text(&reply));
    gone(world, &greedy.key).await;
}
