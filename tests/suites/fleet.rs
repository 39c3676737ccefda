//! Images through a fleet of cache nodes, each a process in a network namespace of its own,
//! over a real S3-protocol server: whatever happens to one node, no read fails, no byte is
//! wrong, and nothing more is fetched from the store.

use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tests::fleet::Fleet;
use tests::image::{self, Layer};
use tests::product::{World, run, text};
use tests::s3::Server;

/// Bytes of content: some fifty chunks.
const LENGTH: usize = 24 << 20;
const NODES: usize = 6;

/// Data that neither compresses nor repeats.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// A world, an S3 server with an image in it, and a fleet.
struct Site {
    fleet: Fleet,
    server: Server,
    world: World,
    sum: String,
}

impl Site {
    async fn new(prime: bool) -> Self {
        let (world, server) = (World::new(), Server::s3s().await);
        let content = noise(LENGTH);
        std::fs::write(world.path("content"), &content).unwrap();
        let summed = Command::new("sha256sum").arg(world.path("content")).output().unwrap();
        let sum = String::from_utf8_lossy(&summed.stdout)[..64].to_string();
        let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
        let layer = Layer::new().dir("./", 0o755).dir("bin", 0o755).program("bin/busybox", busybox);
        let layer = layer.symlink("bin/sha256sum", "busybox").file("content", content);
        image::layout(&world.path("image"), &[layer.finish()], &json!({"Env": ["PATH=/bin"]}));
        let fleet = Fleet::start(&world, NODES);
        let site = Self { fleet, server, world, sum };
        let source = format!("oci:{}:latest", site.world.path("image").display());
        let mut words = vec!["push", &source, "--name", "x", "--json"];
        words.extend(prime.then_some("--prime"));
        let pushed: Value = serde_json::from_slice(&site.ok("flattener", &words).stdout).unwrap();
        let (chunks, primed) =
            (pushed["chunks"].as_u64().unwrap(), pushed["primed_chunks"].as_u64().unwrap());
        assert!(chunks > 40 && primed == if prime { chunks } else { 0 }, "{pushed}");
        site
    }

    fn output(&self, program: &str, words: &[&str]) -> Output {
        let mut command = self.world.command(program);
        self.server.reach(&mut command, "prefix");
        self.fleet.reach(&mut command);
        command.args(words).output().unwrap()
    }

    fn ok(&self, program: &str, words: &[&str]) -> Output {
        let output = self.output(program, words);
        assert!(output.status.success(), "{program} {words:?}: {}", text(&output));
        output
    }

    fn ops(&self, words: &[&str]) -> Value {
        serde_json::from_slice(&self.ok("cache-ops", &[words, &["--json"]].concat()).stdout).unwrap()
    }

    /// Reads the whole image in a cold worker: right bytes, and chunks from L2 and store.
    fn read(&self) -> (u64, u64) {
        let words = ["run", "--ssd-cache", "0", "--stats", "--json", "x", "--", "/bin/sha256sum", "/content"];
        let output = self.ok("blockd", &words);
        assert!(String::from_utf8_lossy(&output.stdout).starts_with(&self.sum), "{}", text(&output));
        let said = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
        let report: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("no report: {said}"));
        let chunks = |source: &str| report[source]["chunks"].as_u64().unwrap();
        (chunks("from_l2"), chunks("from_origin"))
    }

    /// As [`Self::read`], with nothing from the store.
    fn read_from_fleet(&self, what: &str) {
        let (l2, origin) = self.read();
        assert!(l2 > 40 && origin == 0, "{what}: {l2} chunks from the fleet, {origin} from the store");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_the_fleet_is_filled_read_warmed_and_emptied() {
    if !tests::privileged() {
        return;
    }
    let site = Site::new(false).await;
    let (l2, origin) = site.read();
    assert!(l2 == 0 && origin > 40, "nothing is there at first: {l2}, {origin}");
    site.read_from_fleet("what a worker fetched is there for all");
    let dropped = site.ops(&["drop", "x"]);
    assert_eq!(dropped["dropped"], dropped["chunks"], "{dropped}");
    assert_eq!(site.read().0, 0, "dropped");
    site.ops(&["drop", "x"]);
    let warmed = site.ops(&["warm", "x"]);
    assert!(warmed["written"] == warmed["chunks"] && warmed["failed"] == 0, "{warmed}");
    assert_eq!(site.ops(&["warm", "x"])["present"], warmed["chunks"]);
    site.read_from_fleet("warmed");
    drop(site);
    Site::new(true).await.read_from_fleet("the first read of a primed image");
}

/// One node at a time is killed, cut off, stopped; the fleet answers as before.
#[tokio::test(flavor = "multi_thread")]
async fn privileged_any_one_node_may_go() {
    if !tests::privileged() {
        return;
    }
    let site = Site::new(true).await;
    site.fleet.end(0, Signal::KILL);
    site.read_from_fleet("node 0 is dead");
    site.fleet.begin(0);
    site.read_from_fleet("node 0 is back with its disk");
    site.fleet.cable(1, false);
    site.read_from_fleet("node 1 is cut off");
    site.fleet.cable(1, true);
    site.fleet.signal(2, Signal::STOP);
    site.read_from_fleet("node 2 is stopped");
    site.fleet.signal(2, Signal::CONT);
    site.fleet.end(3, Signal::TERM);
    std::fs::remove_dir_all(site.fleet.state_dir(3)).unwrap();
    site.fleet.begin(3);
    site.read_from_fleet("node 3 lost its disk");
    // what node 3 lacked was written again by the reader, so another may go
    site.fleet.end(4, Signal::KILL);
    site.read_from_fleet("node 3 was repaired, and node 4 is dead");
    let status = site.output("cache-ops", &["status", "--json"]);
    assert_eq!(status.status.code(), Some(5), "a node that is away is said by the exit code");
    let nodes: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(
        nodes[4]["status"].is_null() && nodes[3]["status"]["ssd"]["chunks"].as_u64() > Some(20),
        "{nodes}"
    );
}

/// Changes a byte of every shard in a node's directory: the files and what they hold now.
fn flip_bytes(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut flipped: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for fan in std::fs::read_dir(directory).unwrap().flatten() {
        if fan.file_name().len() != 2 {
            continue;
        }
        for file in std::fs::read_dir(fan.path()).unwrap().flatten() {
            let mut bytes = std::fs::read(file.path()).unwrap();
            let at = 16 + flipped.len() * 37 % (bytes.len() - 16);
            bytes[at] ^= 1;
            std::fs::write(file.path(), &bytes).unwrap();
            flipped.push((file.path(), bytes));
        }
    }
    flipped
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_corrupt_shards_are_found_and_repaired() {
    if !tests::privileged() {
        return;
    }
    let site = Site::new(true).await;
    // two nodes in turn: read around and repaired by readers, found and deleted by a scrub
    site.fleet.end(0, Signal::TERM);
    let flipped = flip_bytes(&site.fleet.state_dir(0));
    assert!(flipped.len() > 20);
    site.fleet.begin(0);
    // a reader that ends soon does not hear the shards that come last: read until all were met
    let is_bad = |(path, bad): &(PathBuf, Vec<u8>)| std::fs::read(path).is_ok_and(|now| now == *bad);
    let begun = Instant::now();
    while flipped.iter().any(is_bad) {
        assert!(begun.elapsed() < Duration::from_secs(120), "some are never repaired");
        site.read_from_fleet("shards of node 0 are corrupt");
    }
    let scrubbed = site.ops(&["scrub", "n0"]);
    assert_eq!(scrubbed[0]["scrub"]["bad"], 0, "readers repaired them: {scrubbed}");
    site.fleet.end(1, Signal::TERM);
    let flipped = flip_bytes(&site.fleet.state_dir(1));
    site.fleet.begin(1);
    let scrubbed = site.output("cache-ops", &["scrub", "--json"]);
    assert_eq!(scrubbed.status.code(), Some(4), "bad shards are said by the exit code");
    let scrubbed: Value = serde_json::from_slice(&scrubbed.stdout).unwrap();
    let bad: Vec<_> = scrubbed.as_array().unwrap().iter().map(|node| node["scrub"]["bad"].as_u64()).collect();
    assert_eq!(bad, [Some(0), Some(flipped.len() as u64), Some(0), Some(0), Some(0), Some(0)], "{scrubbed}");
    site.read_from_fleet("the bad shards of node 1 are deleted");
}

/// Every node restarts in turn while workers read without a pause.
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_rolling_restart_under_load_costs_nothing() {
    if !tests::privileged() {
        return;
    }
    let site = Site::new(true).await;
    let (done, finished) = (AtomicBool::new(false), AtomicUsize::new(0));
    let readings = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut readings = Vec::new();
            while !done.load(Ordering::Relaxed) {
                readings.push(site.read());
                finished.fetch_add(1, Ordering::Relaxed);
            }
            readings
        });
        for number in 0..NODES {
            site.fleet.end(number, Signal::TERM);
            site.fleet.begin(number);
            let before = finished.load(Ordering::Relaxed);
            // whoever saw this node go does not see the next one go: one at a time may
            while finished.load(Ordering::Relaxed) == before && !reader.is_finished() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(readings.iter().all(|&(l2, origin)| l2 > 40 && origin == 0), "{readings:?}");
}

/// A node whose disk is full, and one whose disk is slow, cost nothing but their shards.
#[tokio::test(flavor = "multi_thread")]
async fn privileged_full_and_slow_disks() {
    if !tests::privileged() {
        return;
    }
    let site = Site::new(false).await;
    let (full, slow) = (Disk::new(&site.world, "full", "2M"), Disk::new(&site.world, "slow", "64M"));
    for (number, disk) in [(0, &full), (1, &slow)] {
        site.fleet.end(number, Signal::TERM);
        let options = ["--ssd", "256M", "--ssd-headroom", "0", "--memory", "1M"];
        site.fleet.set_options(number, &options);
        disk.mount_at(&site.fleet.state_dir(number));
        site.fleet.begin(number);
    }
    let (_, origin) = site.read();
    assert!(origin > 40);
    let status = site.ops(&["status"]);
    let shards = |number: usize| status[number]["status"]["ssd"]["chunks"].as_u64().unwrap();
    assert!(shards(0) < shards(1), "the full disk takes fewer: {status}");
    site.read_from_fleet("node 0's disk is full");
    // nothing of the slow disk in the node's memory or the kernel's, and 20 reads a second
    site.fleet.end(1, Signal::TERM);
    slow.remount();
    site.fleet.begin(1);
    let throttle = Throttle::reads(&slow, site.fleet.pid(1), 20);
    site.read_from_fleet("node 1's disk is slow");
    drop(throttle);
    for number in 0..2 {
        site.fleet.end(number, Signal::TERM);
    }
}

/// A small ext4 file system on a loop device.
struct Disk {
    image: PathBuf,
    mounted: std::cell::RefCell<PathBuf>,
}

impl Disk {
    fn new(world: &World, name: &str, size: &str) -> Self {
        let image = world.path(name);
        run(Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-m", "0", "-O", "^has_journal"])
            .arg(&image)
            .arg(size));
        Self { image, mounted: std::cell::RefCell::default() }
    }

    fn mount_at(&self, at: &Path) {
        std::fs::remove_dir_all(at).unwrap();
        std::fs::create_dir(at).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(at));
        *self.mounted.borrow_mut() = at.to_path_buf();
    }

    fn remount(&self) {
        let at = self.mounted.borrow().clone();
        run(Command::new("umount").arg(&at));
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&at));
    }

    /// `major:minor` of the device.
    fn number(&self) -> String {
        use std::os::unix::fs::MetadataExt;
        let device = std::fs::metadata(&*self.mounted.borrow()).unwrap().dev();
        format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&*self.mounted.borrow()).status();
    }
}

/// A cgroup in which a process reads slowly.
struct Throttle(PathBuf);

impl Throttle {
    fn reads(disk: &Disk, pid: u32, per_second: u32) -> Self {
        let group = Path::new("/sys/fs/cgroup/blkio").join(format!("lantern-test-{pid}"));
        std::fs::create_dir(&group).unwrap();
        let limit = format!("{} {per_second}", disk.number());
        std::fs::write(group.join("blkio.throttle.read_iops_device"), limit).unwrap();
        std::fs::write(group.join("cgroup.procs"), pid.to_string()).unwrap();
        Self(group)
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        for pid in std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = std::fs::write("/sys/fs/cgroup/blkio/cgroup.procs", pid);
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Without its fleet a worker reads from the store, and an emptied fleet fills again.
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_lost_fleet_costs_the_store_and_nothing_else() {
    if !tests::privileged() {
        return;
    }
    let site = Site::new(true).await;
    for number in 0..NODES {
        site.fleet.end(number, Signal::KILL);
    }
    let (l2, origin) = site.read();
    assert!(l2 == 0 && origin > 40, "all nodes are dead: {l2}, {origin}");
    for number in 0..NODES {
        std::fs::remove_dir_all(site.fleet.state_dir(number)).unwrap();
        site.fleet.begin(number);
    }
    assert!(site.read().1 > 40, "an empty fleet");
    site.read_from_fleet("filled again");
}

/// The fleet grows, shrinks and drains while a worker holds on to it.
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_fleet_grows_and_a_node_is_drained() {
    if !tests::privileged() {
        return;
    }
    let mut site = Site::new(true).await;
    let moved = site.ops(&["ring", "--without", "n2"])["moved_percent"].as_f64().unwrap();
    assert!((10.0..25.0).contains(&moved), "a sixth moves: {moved}");
    let drained = site.ops(&["drain", "n2"]);
    assert!(drained["copied"].as_u64() > Some(0) && drained["failed"] == 0, "{drained}");
    assert_eq!(site.ops(&["status"])[2]["status"]["draining"], true);
    site.fleet.write_members(&[0, 1, 3, 4, 5]);
    site.fleet.end(2, Signal::TERM);
    site.read_from_fleet("node 2 left, drained");
    // all five hold a shard of everything now, so any one of them may go too
    site.fleet.end(4, Signal::KILL);
    site.read_from_fleet("and node 4 died");
    site.fleet.begin(4);
    site.fleet.begin(2);
    let new = site.fleet.add();
    site.fleet.write_members(&[0, 1, 2, 3, 4, 5, new]);
    site.read_from_fleet("two nodes joined");
    let chunk = site.ops(&["ring", "--chunk", &"ab".repeat(32)]);
    assert_eq!(chunk["chunk"].as_array().map(Vec::len), Some(5), "{chunk}");
}

/// Nodes that strangers can reach start only with a way to tell them from clients.
#[test]
fn privileged_strangers_are_kept_out() {
    if !tests::privileged() {
        return;
    }
    let world = World::new();
    let fleet = Fleet::start(&world, 5);
    let mut open = world.command("cache-node");
    let open = open
        .args(["serve", "--listen", "0.0.0.0:0", "--state-dir"])
        .arg(world.path("open"))
        .output()
        .unwrap();
    assert!(!open.status.success() && text(&open).contains("--secret-file"), "{}", text(&open));
    let mut stranger = world.command("cache-ops");
    fleet.reach(&mut stranger);
    std::fs::write(world.path("guess"), "a-wrong-guess-of-the-secret").unwrap();
    let refused =
        stranger.env("LANTERN_L2_SECRET_FILE", world.path("guess")).args(["status"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(5));
    assert!(text(&refused).contains("does not accept our secret"), "{}", text(&refused));
    let mut bench = world.command("cache-ops");
    fleet.reach(&mut bench);
    let bench = bench.args(["bench", "--chunks", "20", "--seconds", "1", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&bench.stdout).unwrap_or_else(|_| panic!("{}", text(&bench)));
    assert!(report["reads"].as_u64() > Some(0) && report["failed_reads"] == 0, "{report}");
}

/// All caches are emptied while more starts are asked for than allowed: the excess is refused
/// at once, the store is asked by a bounded number of requests, and the caches fill again.
#[tokio::test(flavor = "multi_thread")]
async fn privileged_emptied_caches_recover_under_starts() {
    if !tests::privileged() {
        return;
    }
    let site = Site::new(true).await;
    let mut serve = site.world.command("blockd");
    site.server.reach(&mut serve, "prefix");
    site.fleet.reach(&mut serve);
    // hardly any memory, no SSD: what is not in the fleet comes from the store
    let bounds =
        ["--memory-cache", "1M", "--ssd-cache", "0", "--max-starts", "3", "--origin-concurrency", "4"];
    serve.arg("serve").args(bounds);
    let daemon = site.world.daemon_of(serve);
    let done = AtomicBool::new(false);
    let (started, refused) = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8).map(|_| scope.spawn(|| starts(&site, &done))).collect();
        std::thread::sleep(Duration::from_secs(2));
        for number in 0..NODES {
            site.fleet.end(number, Signal::KILL);
            std::fs::remove_dir_all(site.fleet.state_dir(number)).unwrap();
        }
        std::thread::sleep(Duration::from_secs(1));
        (0..NODES).for_each(|number| site.fleet.begin(number));
        std::thread::sleep(Duration::from_secs(5));
        done.store(true, Ordering::Relaxed);
        let ended = callers.into_iter().map(|caller| caller.join().unwrap());
        ended.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    assert!(started > 3 && refused > 0, "{started} started, {refused} refused");
    let hits = || {
        let status: Value = serde_json::from_slice(&site.ok("blockd", &["status"]).stdout).unwrap();
        let sources = status["metrics"]["sources"].clone();
        let of = |source: usize| sources[source]["hits"].as_u64().unwrap() as f64;
        (of(2), of(3), status)
    };
    // the first pass may be the one that fills the fleet again; soon one finds everything there
    let (mut shares, mut status) = (Vec::new(), Value::Null);
    while shares.last().is_none_or(|&share| share < 0.99) {
        assert!(shares.len() < 4, "the fleet does not recover: {shares:?}, {status}");
        let (l2_before, origin_before, _) = hits();
        assert_eq!(starts_once(&site), Some(0));
        let (l2, origin, now) = hits();
        shares.push((l2 - l2_before) / (l2 - l2_before + origin - origin_before));
        status = now;
    }
    assert_eq!(status["starts_refused"].as_u64(), Some(refused));
    drop(daemon);
    assert!(site.world.residue().is_empty());
}

/// One start through the daemon: its exit code.
fn starts_once(site: &Site) -> Option<i32> {
    let output = site.output("blockd", &["run", "x", "--", "/bin/sha256sum", "/content"]);
    let right = String::from_utf8_lossy(&output.stdout).starts_with(&site.sum);
    assert!(right || output.status.code() == Some(7), "{}", text(&output));
    assert!(right || text(&output).contains("--max-starts"), "{}", text(&output));
    output.status.code()
}

/// Starts again and again: how many were started and how many refused.
fn starts(site: &Site, done: &AtomicBool) -> (u64, u64) {
    let (mut started, mut refused) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        match starts_once(site) {
            Some(0) => started += 1,
            _ => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
    (started, refused)
}
