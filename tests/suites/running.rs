//! Images run and mounted by `blockd` from a store: what the process sees, what is fetched,
//! and what is left when anything ends, politely or not.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tests::image::{self, Layer};
use tests::product::{World, run, text};

/// Data that neither compresses nor repeats.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1 << 40;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

const COLD: usize = 8 << 20;

/// A world with an image of busybox and some data, pushed as `box`.
fn world(config: &Value) -> World {
    let world = World::new();
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut layer = Layer::new().dir("./", 0o755).dir("bin", 0o755).program("bin/busybox", busybox);
    for applet in ["sh", "cat", "echo", "env", "id", "pwd", "sleep", "touch", "sha256sum", "ls", "kill", "dd"]
    {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer = layer
        .dir("etc", 0o755)
        .file("etc/passwd", "root:x:0:0::/root:/bin/sh\nworker:x:1234:77::/data:/bin/sh\n")
        .file("etc/group", "root:x:0:\ncrew:x:77:\nextra:x:88:worker\n")
        .dir("data", 0o777)
        .file("data/read", noise(1, 700_000))
        .file("data/unread", noise(2, COLD));
    image::layout(&world.path("image"), &[layer.finish()], config);
    world.push(&world.path("image"), "box");
    world
}

/// Runs with `--stats --json`: the output and the report.
fn reported(world: &World, options: &[&str], command: &[&str]) -> (Output, Value) {
    let words: Vec<&str> = [&["run", "--stats", "--json"], options, &["box", "--"], command].concat();
    let output = world.blockd(&words);
    let last = String::from_utf8_lossy(&output.stderr).lines().last().map(str::to_owned);
    let report = last.and_then(|line| serde_json::from_str(&line).ok());
    let report = report.unwrap_or_else(|| panic!("no report: {}", text(&output)));
    (output, report)
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn clean(world: &World) {
    let residue = world.residue();
    assert!(residue.is_empty(), "left behind: {residue:#?}");
}

#[test]
fn privileged_the_process_sees_what_the_image_says() {
    if !tests::privileged() {
        return;
    }
    let world = world(&json!({
        "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo from cmd; exit 7"],
        "Env": ["PATH=/bin", "COLOUR=blue", "KEPT=yes"], "User": "worker", "WorkingDir": "/data",
    }));
    let output = world.blockd(&["run", "box"]);
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(7), &b"from cmd\n"[..]),
        "{}",
        text(&output)
    );
    let said = stdout(&world.blockd(&["run", "-e", "COLOUR=red", "box", "--", "pwd; id; env"]));
    for wanted in ["/data\n", "uid=1234(worker) gid=77(crew)", "88(extra)", "COLOUR=red\n", "KEPT=yes\n"] {
        assert!(said.contains(wanted), "{wanted:?} is missing in {said}");
    }
    let said = stdout(&world.blockd(&[
        "run",
        "-u",
        "0",
        "-w",
        "/etc",
        "--entrypoint",
        "/bin/sh",
        "box",
        "--",
        "-c",
        "pwd; id -u",
    ]));
    assert_eq!(said, "/etc\n0\n");
    std::fs::write(world.path("given"), "from the host").unwrap();
    let bind = format!("type=bind,source={},target=/data/given,readonly", world.path("given").display());
    let said = stdout(&world.blockd(&["run", "--mount", &bind, "box", "--", "cat given"]));
    assert_eq!(said, "from the host");
    clean(&world);
}

#[test]
fn privileged_a_terminal_is_given_if_there_is_one() {
    if !tests::privileged() {
        return;
    }
    let world = world(&json!({"Env": ["PATH=/bin"]}));
    let ask = ["run", "box", "--", "/bin/sh", "-c", "test -t 0 && echo a terminal || echo none"];
    assert_eq!(stdout(&world.blockd(&ask)), "none\n");
    let blockd = world.command("blockd");
    let line =
        format!("{} run box -- /bin/sh -c 'test -t 0 && echo a terminal'", blockd.get_program().display());
    let mut script = Command::new("script");
    script.envs(blockd.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = script.args(["-q", "-e", "-c", &line, "/dev/null"]).output().unwrap();
    assert!(stdout(&output).contains("a terminal"), "{}", text(&output));
    clean(&world);
}

/// What the groups of a sandbox, of either version, say of processor time.
fn quotas(below: &Path, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(below).into_iter().flatten().flatten() {
        if !entry.file_type().unwrap().is_dir() {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let files = ["cpu.cfs_quota_us", "cpu.max"];
            found.extend(files.iter().flat_map(|file| std::fs::read_to_string(entry.path().join(file))));
        }
        found.extend(quotas(&entry.path(), prefix));
    }
    found
}

#[test]
fn privileged_limits_hold() {
    if !tests::privileged() {
        return;
    }
    let world = world(&json!({"Env": ["PATH=/bin"]}));
    let hoard = ["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"];
    stdout(&world.blockd(&[&["run", "--memory", "256M", "box", "--"], &hoard[..]].concat()));
    let output = world.blockd(&[&["run", "--memory", "16M", "box", "--"], &hoard[..]].concat());
    assert_eq!(output.status.code(), Some(137), "killed for its memory: {}", text(&output));
    let fork = ["/bin/sh", "-c", "for n in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait"];
    let output = world.blockd(&[&["run", "--pids", "4", "box", "--"], &fork[..]].concat());
    assert!(text(&output).contains("fork"), "{}", text(&output));
    let mut command = world.command("blockd");
    command.args(["run", "--cpus", "0.5", "box", "--", "/bin/sh", "-c", "echo ready; sleep 1000"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    let quotas = quotas(Path::new("/sys/fs/cgroup"), &format!("lantern-{}-", child.id()));
    signal(&child, Signal::TERM);
    child.wait().unwrap();
    assert!(quotas.iter().any(|quota| quota.starts_with("50000")), "half a processor: {quotas:?}");
    clean(&world);
}

#[test]
fn privileged_a_root_is_read_only_unless_asked() {
    if !tests::privileged() {
        return;
    }
    let world = world(&json!({"Env": ["PATH=/bin"]}));
    let write = ["/bin/sh", "-c", "echo changed >/data/read && cat /data/read"];
    let refused = world.blockd(&[&["run", "box", "--"], &write[..]].concat());
    assert!(!refused.status.success() && text(&refused).contains("Read-only"), "{}", text(&refused));
    assert_eq!(stdout(&world.blockd(&[&["run", "--rw", "box", "--"], &write[..]].concat())), "changed\n");
    let again = stdout(&world.blockd(&["run", "--rw", "box", "--", "/bin/sha256sum", "/data/read"]));
    let output = Command::new("sha256sum").arg(bytes_of(&world, &noise(1, 700_000))).output().unwrap();
    assert_eq!(again[..64], stdout(&output)[..64], "what one run wrote the next does not see");
    clean(&world);
}

fn bytes_of(world: &World, data: &[u8]) -> PathBuf {
    let path = world.path("reference");
    std::fs::write(&path, data).unwrap();
    path
}

#[test]
fn privileged_only_what_is_touched_is_fetched() {
    if !tests::privileged() {
        return;
    }
    let world = world(&json!({"Env": ["PATH=/bin"]}));
    let read = ["/bin/sha256sum", "/data/read"];
    let (_, cold) = reported(&world, &["--no-prefetch"], &read);
    let of = |report: &Value, tier: &str| report[tier]["chunks"].as_u64().unwrap();
    let all = cold["image_chunks"].as_u64().unwrap();
    assert_eq!(of(&cold, "prefetched"), 0);
    assert_eq!(of(&cold, "from_origin"), of(&cold, "demanded"));
    assert!(of(&cold, "demanded") < all - 14, "the large file was not touched: {cold}");
    let (_, warm) = reported(&world, &["--no-prefetch"], &read);
    assert_eq!((of(&warm, "from_origin"), of(&warm, "from_ssd")), (0, of(&cold, "demanded")), "{warm}");
    assert!(warm["first_output_seconds"].as_f64().unwrap() <= warm["total_seconds"].as_f64().unwrap());
    clean(&world);
}

#[test]
fn privileged_the_daemon_mounts_lists_and_unmounts() {
    if !tests::privileged() {
        return;
    }
    let world = world(&json!({"Env": ["PATH=/bin"]}));
    let at = world.path("at");
    std::fs::create_dir(&at).unwrap();
    for end in [Signal::TERM, Signal::INT] {
        let mut daemon = world.daemon();
        stdout(&world.blockd(&["mount", "box", at.to_str().unwrap()]));
        assert!(std::fs::read(at.join("data/read")).unwrap() == noise(1, 700_000));
        let listed: Value = serde_json::from_str(&stdout(&world.blockd(&["ps", "--json"]))).unwrap();
        assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
        assert_eq!(
            stdout(&world.blockd(&["run", "box", "--", "/bin/echo", "through the daemon"])),
            "through the daemon\n"
        );
        stdout(&world.blockd(&["umount", at.to_str().unwrap()]));
        assert!(std::fs::read_dir(&at).unwrap().next().is_none());
        let missing = world.blockd(&["mount", "nothing", at.to_str().unwrap()]);
        assert_eq!(missing.status.code(), Some(3), "{}", text(&missing));
        stdout(&world.blockd(&["mount", "--rw", "box", at.to_str().unwrap()]));
        std::fs::write(at.join("data/new"), "written").unwrap();
        daemon.end(end);
        clean(&world);
    }
}

#[test]
fn privileged_a_killed_daemon_is_cleaned_up_after() {
    if !tests::privileged() {
        return;
    }
    let world = world(&json!({"Env": ["PATH=/bin"]}));
    let at = world.path("at");
    std::fs::create_dir(&at).unwrap();
    let (_, cold) = reported(&world, &["--no-prefetch"], &["/bin/sha256sum", "/data/read"]);
    let mut daemon = world.daemon();
    stdout(&world.blockd(&["mount", "box", at.to_str().unwrap()]));
    daemon.end(Signal::KILL);
    assert!(!world.residue().is_empty(), "a kill leaves mounts behind");
    stdout(&world.blockd(&["cleanup"]));
    clean(&world);

    let mut daemon = world.daemon();
    stdout(&world.blockd(&["mount", "box", at.to_str().unwrap()]));
    daemon.end(Signal::KILL);
    let mut daemon = world.daemon();
    assert_eq!(world.residue().len(), 1, "only the new daemon's own devices: {:#?}", world.residue());
    stdout(&world.blockd(&["mount", "box", at.to_str().unwrap()]));
    assert!(std::fs::read(at.join("data/read")).unwrap() == noise(1, 700_000));
    daemon.end(Signal::TERM);
    clean(&world);
    let (_, warm) = reported(&world, &["--no-prefetch"], &["/bin/sha256sum", "/data/read"]);
    assert_eq!(warm["from_ssd"], cold["from_origin"], "the SSD tier is intact: {warm}");
    assert_eq!(warm["from_origin"]["chunks"], 0, "{warm}");
}

#[test]
fn privileged_a_killed_run_is_cleaned_up_after() {
    if !tests::privileged() {
        return;
    }
    let world = world(&json!({"Env": ["PATH=/bin"]}));
    let mut child = ready(&world, "", "sleep 1000");
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    assert!(!world.residue().is_empty());
    stdout(&world.blockd(&["cleanup"]));
    clean(&world);
}

/// A run that prepares, says `ready` and goes on.
fn ready(world: &World, first: &str, then: &str) -> Child {
    let mut command = world.command("blockd");
    let script = format!("{first} echo ready; {then}");
    command.args(["run", "box", "--", "/bin/sh", "-c", &script]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"), "the output ended too early");
    child
}

#[test]
fn privileged_signals_reach_the_process_and_nothing_is_left() {
    if !tests::privileged() {
        return;
    }
    let world = world(&json!({"Env": ["PATH=/bin"]}));
    for (number, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP")] {
        let trap = format!("trap 'exit 42' {name};");
        let mut child = ready(&world, &trap, "while true; do sleep 0.05; done");
        signal(&child, number);
        assert_eq!(child.wait().unwrap().code(), Some(42), "{name}");
        clean(&world);
    }
    // one that does not listen: as PID 1 it would ignore the signal for ever
    let mut child = ready(&world, "trap '' TERM;", "sleep 1000");
    signal(&child, Signal::TERM);
    let code = child.wait().unwrap().code();
    assert!(code.is_some_and(|code| code >= 128), "ended by force: {code:?}");
    clean(&world);
}

fn chunks_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(next).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            } else if entry.file_name().len() >= 64 {
                found.push(entry.path());
            }
        }
    }
    found
}

fn flip(path: &Path) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let at = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

#[test]
fn privileged_damage_on_the_ssd_is_repaired() {
    if !tests::privileged() {
        return;
    }
    let world = world(&json!({"Env": ["PATH=/bin"]}));
    let read = ["/bin/sha256sum", "/data/read"];
    let (first, cold) = reported(&world, &["--no-prefetch"], &read);
    let entries = chunks_below(&world.path("state"));
    assert_eq!(entries.len() as u64, cold["from_origin"]["chunks"].as_u64().unwrap());
    for path in &entries {
        flip(path);
    }
    let (second, repaired) = reported(&world, &["--no-prefetch"], &read);
    assert_eq!(stdout(&first), stdout(&second), "not one wrong byte");
    assert_eq!(repaired["from_origin"], cold["from_origin"], "every damaged entry was fetched again");
    assert!(
        text(&second).contains(entries[0].file_name().unwrap().to_str().unwrap())
            || text(&second).contains("corrupt"),
        "{}",
        text(&second)
    );
    let (_, warm) = reported(&world, &["--no-prefetch"], &read);
    assert_eq!(warm["from_origin"]["chunks"], 0, "and is right since");
}

#[test]
fn privileged_damage_in_the_store_is_an_error_until_repaired() {
    if !tests::privileged() {
        return;
    }
    let world = world(&json!({"Env": ["PATH=/bin"]}));
    let at = world.path("at");
    std::fs::create_dir(&at).unwrap();
    let _daemon = world.daemon();
    stdout(&world.blockd(&["mount", "box", at.to_str().unwrap()]));
    let chunks = chunks_below(&world.path("store/roots/r1/chunks"));
    for path in &chunks {
        flip(path);
    }
    let error = std::fs::read(at.join("data/unread")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
    for path in &chunks {
        flip(path);
    }
    assert!(
        std::fs::read(at.join("data/unread")).unwrap() == noise(2, COLD),
        "right as soon as the store is"
    );
}

#[test]
fn privileged_a_full_disk_below_the_ssd_tier_stops_nothing() {
    if !tests::privileged() {
        return;
    }
    let world = world(&json!({"Env": ["PATH=/bin"]}));
    let state = world.path("state");
    std::fs::create_dir(&state).unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&state));
    let output = world.blockd(&["run", "--ssd-headroom", "0", "box", "--", "/bin/sha256sum", "/data/unread"]);
    run(Command::new("umount").arg(&state));
    let wanted = Command::new("sha256sum").arg(bytes_of(&world, &noise(2, COLD))).output().unwrap();
    assert_eq!(stdout(&output)[..64], stdout(&wanted)[..64]);
    clean(&world);
}
