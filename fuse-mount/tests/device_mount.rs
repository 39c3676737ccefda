//! Real mounts: device in memory, FUSE, loop device, ext4, and back. Needs root, FUSE, loop
//! devices and e2fsprogs; every test says so when it skips.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuse_mount::{
    BlockDevice, DeviceMount, DeviceMountOptions, ErrorKind, Fault, FaultyDevice, FuseMount,
    FuseMountOptions, IfBusy, MountError, RamDevice, clear_stale,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// Whether this machine lets us mount; prints why not.
#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
fn privileged() -> bool {
    let able = rustix::process::geteuid().is_root()
        && Path::new("/dev/fuse").exists()
        && Path::new("/dev/loop-control").exists()
        && Command::new("mke2fs").arg("-V").stderr(Stdio::null()).status().is_ok();
    if !able {
        eprintln!("SKIPPED: needs root, /dev/fuse, /dev/loop-control and mke2fs");
    }
    able
}

/// Bytes that differ everywhere, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

/// A small tree and the ext4 image of it.
fn image(scratch: &Path) -> (BTreeMap<PathBuf, Vec<u8>>, Vec<u8>) {
    let tree = scratch.join("tree");
    let files: BTreeMap<PathBuf, Vec<u8>> =
        [("a", 1usize), ("dir/big", 3_000_000), ("dir/empty", 0), ("dir/deep/page", 4096), ("odd", 70_001)]
            .into_iter()
            .map(|(name, length)| (PathBuf::from(name), noise(length as u64, length)))
            .collect();
    for (name, content) in &files {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("mkdir");
        fs::write(path, content).expect("write");
    }
    let file = scratch.join("image");
    let done = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-b", "4096", "-d"])
        .args([&tree, &file])
        .arg("24M")
        .status()
        .expect("mke2fs runs");
    assert!(done.success());
    (files, fs::read(file).expect("image"))
}

struct Place {
    scratch: tempfile::TempDir,
    fuse: Arc<FuseMount>,
    target: PathBuf,
}

async fn place(options: FuseMountOptions) -> Place {
    let scratch = tempfile::tempdir().expect("scratch");
    let (shown, target) = (scratch.path().join("devices"), scratch.path().join("root"));
    fs::create_dir(&shown).expect("mkdir");
    fs::create_dir(&target).expect("mkdir");
    let fuse = Arc::new(FuseMount::mount(&shown, &options).await.expect("FUSE mount"));
    Place { scratch, fuse, target }
}

impl Place {
    async fn mount(&self, device: Arc<dyn BlockDevice>, writable: bool) -> Result<DeviceMount, MountError> {
        let mut options = DeviceMountOptions::default();
        options.read_only = !writable;
        options.deadline = Duration::from_secs(3);
        DeviceMount::mount(Arc::clone(&self.fuse), "image", device, &self.target, &options).await
    }

    /// Unmounts FUSE and asserts that nothing of ours is left: mount, loop device or file.
    async fn finish(self) {
        assert_eq!(fs::read_dir(self.fuse.directory()).expect("listing").count(), 0);
        self.fuse.unmount(DEADLINE).await.expect("unmount FUSE");
        self.fuse.unmount(DEADLINE).await.expect("twice is once");
        assert_nothing_left(self.scratch.path());
    }
}

fn assert_nothing_left(scratch: &Path) {
    let scratch = scratch.to_str().expect("plain name");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(scratch), "{mounts}");
    for entry in fs::read_dir("/sys/block").expect("sysfs").flatten() {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        assert!(!file.contains(scratch), "{} still has {file}", entry.path().display());
    }
}

/// Runs a blocking read on its own thread: the mount is served by this very process.
async fn off<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(call).await.expect("no panic")
}

async fn compare(root: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    for (name, content) in files {
        let (path, expected) = (root.join(name), content.clone());
        let same = off(move || fs::read(path).map(|got| got == expected)).await;
        assert!(same.expect("readable"), "{} differs", name.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_read_only_mount_has_the_right_bytes() {
    if !privileged() {
        return;
    }
    let place = place(FuseMountOptions::default()).await;
    let (files, image) = image(place.scratch.path());
    for direct in [Fault::None, Fault::Slow(Duration::from_millis(1))] {
        let device = FaultyDevice::new(RamDevice::read_only(&image));
        device.set(direct);
        let mounted = place.mount(device, false).await.expect("mount");
        compare(mounted.target(), &files).await;
        let denied = off({
            let path = mounted.target().join("new");
            move || fs::write(path, "x")
        });
        assert_eq!(denied.await.expect_err("read-only").raw_os_error(), Some(libc::EROFS));
        mounted.unmount(DEADLINE, IfBusy::Refuse).await.expect("unmount");
        mounted.unmount(DEADLINE, IfBusy::Refuse).await.expect("twice is once");
    }
    place.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_random_reads_and_writes_match_a_vector() {
    if !privileged() {
        return;
    }
    let place = place(FuseMountOptions::default()).await;
    let mut model = noise(7, 2 * 1024 * 1024);
    let device = FaultyDevice::new(RamDevice::writable(&model));
    let path = place.fuse.add("image", Arc::clone(&device) as Arc<dyn BlockDevice>).expect("shown");
    let random: Vec<usize> = noise(99, 8 * 3 * 400)
        .chunks_exact(8)
        .map(|chunk| usize::from_le_bytes(chunk.try_into().expect("eight")))
        .collect();
    off(move || {
        let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("open");
        assert_eq!(file.metadata().expect("stat").len(), model.len() as u64);
        for (step, numbers) in random.chunks_exact(3).enumerate() {
            device.set(if step % 3 == 0 { Fault::Slow(Duration::ZERO) } else { Fault::None });
            let at = numbers[0] % model.len();
            let length = (numbers[1] % 200_000 + 1).min(model.len() - at);
            if numbers[2] % 3 == 0 {
                let fresh = noise(step as u64, length);
                file.write_all_at(&fresh, at as u64).expect("write");
                model[at..at + length].copy_from_slice(&fresh);
            } else {
                let mut got = vec![0; length];
                file.read_exact_at(&mut got, at as u64).expect("read");
                assert_eq!(got, model[at..at + length], "step {step}");
            }
        }
        file.sync_all().expect("sync");
        assert!(file.set_len(1).is_err(), "the length is fixed");
        assert!(file.write_all_at(b"x", model.len() as u64).is_err(), "nothing beyond the end");
    })
    .await;
    place.fuse.remove("image", DEADLINE).await.expect("closed");
    place.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_writes_and_discards_survive_a_remount() {
    if !privileged() {
        return;
    }
    let place = place(FuseMountOptions::default()).await;
    let (mut files, image) = image(place.scratch.path());
    let device = Arc::new(RamDevice::writable(&image));
    let mounted = place.mount(Arc::clone(&device) as Arc<dyn BlockDevice>, true).await.expect("mount");
    let root = mounted.target().to_owned();
    let fresh = noise(5, 5_000_000);
    files.insert(PathBuf::from("written"), fresh.clone());
    files.remove(Path::new("dir/big"));
    off(move || {
        fs::write(root.join("written"), fresh).expect("write");
        fs::set_permissions(root.join("written"), fs::Permissions::from_mode(0o640)).expect("chmod");
        fs::remove_file(root.join("dir/big")).expect("remove");
        fs::File::open(&root).expect("open").sync_all().expect("sync");
        let trimmed = Command::new("fstrim").arg("-v").arg(&root).output().expect("fstrim runs");
        assert!(trimmed.status.success(), "{trimmed:?}");
        assert!(!String::from_utf8_lossy(&trimmed.stdout).contains(": 0 B"), "{trimmed:?}");
    })
    .await;
    mounted.unmount(DEADLINE, IfBusy::Refuse).await.expect("unmount");
    let zeros = |bytes: &[u8]| bytes.chunks(4096).filter(|page| page.iter().all(|byte| *byte == 0)).count();
    let lost = noise(3_000_000, 3_000_000);
    let content = device.content();
    assert!(zeros(&content) > 0);
    assert!(!content.windows(4096).step_by(4096).any(|page| page == &lost[..4096]), "discarded bytes stay");

    let again = place.mount(device, false).await.expect("mount again");
    compare(again.target(), &files).await;
    again.unmount(DEADLINE, IfBusy::Refuse).await.expect("unmount");
    let copy = place.scratch.path().join("copy");
    fs::write(&copy, content).expect("copy");
    let checked = Command::new("e2fsck").arg("-fn").arg(copy).output().expect("e2fsck runs");
    assert!(checked.status.success(), "{checked:?}");
    place.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_failures_reach_readers_and_unmount_still_works() {
    if !privileged() {
        return;
    }
    let place = place(FuseMountOptions::default()).await;
    let (files, image) = image(place.scratch.path());
    let faults =
        [Fault::Fail(ErrorKind::Corrupt), Fault::Fail(ErrorKind::Unavailable), Fault::Short, Fault::Panic];
    for fault in faults {
        let device = FaultyDevice::new(RamDevice::read_only(&image));
        let mounted = place.mount(Arc::clone(&device) as Arc<dyn BlockDevice>, false).await.expect("mount");
        let big = mounted.target().join("dir/big");
        let file = off(move || fs::File::open(big)).await.expect("open");
        device.set(fault);
        let error = off(move || file.read_at(&mut vec![0; 65536], 1_000_000)).await.expect_err("no bytes");
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{fault:?}");
        device.set(Fault::None);
        compare(mounted.target(), &files).await;
        device.set(fault);
        mounted.unmount(DEADLINE, IfBusy::Refuse).await.expect("unmount");
    }
    // A device that fails from the start: nothing is mounted and nothing stays.
    let device = FaultyDevice::new(RamDevice::read_only(&image));
    device.set(Fault::Fail(ErrorKind::Unavailable));
    place.mount(device, false).await.expect_err("cannot be mounted");
    place.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_hanging_device_is_given_up_at_the_deadline() {
    if !privileged() {
        return;
    }
    let place = place(FuseMountOptions::default()).await;
    let (_, image) = image(place.scratch.path());
    let never = FaultyDevice::new(RamDevice::read_only(&image));
    never.set(Fault::Hang);
    place.mount(never, false).await.expect_err("never answers");

    for with_reader in [false, true] {
        let device = FaultyDevice::new(RamDevice::writable(&image));
        let shown = Arc::clone(&device) as Arc<dyn BlockDevice>;
        let mounted = place.mount(shown, true).await.expect("mount");
        let root = mounted.target().to_owned();
        // Opened before the fault: the open file is what makes the mount busy, not a race.
        let open = off(move || {
            fs::write(root.join("dirty"), noise(1, 100_000)).expect("into the page cache");
            with_reader.then(|| fs::File::open(root.join("dir/big")).expect("open"))
        });
        let open = open.await;
        device.set(Fault::Hang);
        let reader = tokio::task::spawn_blocking(move || {
            open.map(|file| file.read_at(&mut vec![0; 65536], 1_000_000).expect_err("no bytes"))
        });
        let gone = mounted.unmount(Duration::from_secs(2), IfBusy::Detach).await;
        let error = reader.await.expect("no panic");
        assert_eq!(error.map(|error| error.raw_os_error()), with_reader.then_some(Some(libc::EIO)));
        assert!(with_reader || gone.is_ok(), "{gone:?}");
        // A reader that ends late keeps the loop device until then.
        wait_until(|| fs::metadata(loop_state(mounted.loop_path())).is_err());
    }
    place.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_open_files_refuse_or_are_detached() {
    if !privileged() {
        return;
    }
    let place = place(FuseMountOptions::default()).await;
    let (files, image) = image(place.scratch.path());
    let device: Arc<dyn BlockDevice> = Arc::new(RamDevice::read_only(&image));
    let mounted = place.mount(device, false).await.expect("mount");
    let big = mounted.target().join("dir/big");
    let file = off(move || fs::File::open(big)).await.expect("open");
    let short = Duration::from_millis(100);
    let refused = mounted.unmount(short, IfBusy::Refuse).await.expect_err("in use");
    assert!(matches!(refused, MountError::Busy { .. }), "{refused}");
    compare(mounted.target(), &files).await;
    let left = mounted.unmount(short, IfBusy::Detach).await.expect_err("the open file keeps the loop device");
    assert_eq!(left.kind(), ErrorKind::Busy);
    drop(file);
    wait_until(|| fs::metadata(loop_state(mounted.loop_path())).is_err());
    mounted.unmount(DEADLINE, IfBusy::Refuse).await.expect("nothing left to do");
    place.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_devices_come_and_go_while_mounted() {
    if !privileged() {
        return;
    }
    let place = place(FuseMountOptions::default()).await;
    for round in 0..20u64 {
        let content = noise(round, 8192);
        let path = place.fuse.add("same", Arc::new(RamDevice::read_only(&content))).expect("shown");
        let got = off(move || fs::read(path)).await.expect("read");
        assert_eq!(got, content, "round {round}");
        place.fuse.remove("same", DEADLINE).await.expect("removed");
    }
    let path = place.fuse.add("open", Arc::new(RamDevice::read_only(&noise(1, 8192)))).expect("shown");
    let file = off(move || fs::File::open(path)).await.expect("open");
    let refused = place.fuse.remove("open", Duration::from_millis(50)).await.expect_err("open");
    assert_eq!(refused.kind(), ErrorKind::Busy);
    place.fuse.remove_now("open").expect("by force");
    let read = off(move || file.read_at(&mut [0; 16], 4096)).await;
    assert_eq!(read.expect_err("gone").raw_os_error(), Some(libc::EIO));
    place.finish().await;
}

fn loop_state(device: &Path) -> PathBuf {
    Path::new("/sys/block").join(device.file_name().expect("a device")).join("loop/backing_file")
}

/// Waits for the kernel; a generous limit that only a failure reaches.
fn wait_until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < DEADLINE, "the kernel did not get there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const CHILD_DIR: &str = "FUSE_MOUNT_TEST_CHILD_DIR";

/// Not a test: the process that the next test kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by privileged_killed_daemon_leaves_nothing_that_clear_stale_does_not_find"]
async fn child_that_holds_a_mount() {
    let Some(dir) = std::env::var_os(CHILD_DIR).map(PathBuf::from) else {
        return;
    };
    let (_, image) = image(&dir);
    let fuse = FuseMount::mount(&dir.join("devices"), &FuseMountOptions::default()).await.expect("mount");
    let mut options = DeviceMountOptions::default();
    options.read_only = false;
    let device = Arc::new(RamDevice::writable(&image));
    let _mounted = DeviceMount::mount(Arc::new(fuse), "image", device, &dir.join("root"), &options)
        .await
        .expect("mount");
    fs::write(dir.join("ready"), "").expect("tell");
    std::future::pending::<()>().await;
}

fn spawn_child(dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "child_that_holds_a_mount", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::null())
        .spawn()
        .expect("child starts")
}

#[test]
fn privileged_killed_daemon_leaves_nothing_that_clear_stale_does_not_find() {
    if !privileged() {
        return;
    }
    let scratch = tempfile::tempdir().expect("scratch");
    for name in ["devices", "root"] {
        fs::create_dir(scratch.path().join(name)).expect("mkdir");
    }
    let mut child = spawn_child(scratch.path());
    wait_until(|| {
        assert!(child.try_wait().expect("child").is_none(), "the child ended by itself");
        scratch.path().join("ready").exists()
    });
    let alive = clear_stale(scratch.path()).expect("readable");
    assert_eq!((alive.alive.len(), alive.mounts.len(), alive.failures.len()), (1, 0, 0), "{alive:?}");
    child.kill().expect("kill -9");
    child.wait().expect("reaped");
    let report = clear_stale(scratch.path()).expect("readable");
    assert_eq!(
        (report.mounts.len(), report.loop_devices.len(), report.fuse_mounts.len()),
        (1, 1, 1),
        "{report:?}"
    );
    assert_eq!(report.failures, Vec::<String>::new());
    assert_nothing_left(scratch.path());
    assert!(clear_stale(scratch.path()).expect("readable").is_empty());
    assert!(clear_stale(&scratch.path().join("missing")).expect("nothing there").is_empty());
}
