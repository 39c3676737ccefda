//! The product's commands with a store, a keyring and state of their own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A temporary world: store, keyring, worker directories.
#[derive(Debug)]
pub struct World {
    dir: TempDir,
}

/// A built binary of the workspace, next to the running test's own.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    let exe = std::env::current_exe().unwrap();
    // target/PROFILE/deps/suites-…
    let profile = exe.parent().and_then(Path::parent).unwrap().to_path_buf();
    BUILT.call_once(|| {
        let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
        // the very targets of scripts/test: another choice has other features, and all is built twice
        command.args(["build", "--quiet", "--locked", "--workspace", "--bins", "--tests"]);
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        // what cargo tells tests of their package; build scripts that look at it would run again
        let ours = |name: &OsString| {
            let name = name.to_string_lossy();
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"]
                .iter()
                .any(|of| name.starts_with(of))
        };
        for (name, _) in std::env::vars_os() {
            if ours(&name) {
                command.env_remove(name);
            }
        }
        command.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            command.arg("--release");
        }
        assert!(command.status().unwrap().success(), "the product does not build");
    });
    profile.join(name)
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A fresh one.
    #[must_use]
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A path inside it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command of the product with this world's store and directories in its environment.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(binary(name));
        command
            .env("LANTERN_STORE", format!("file://{}", self.path("store").display()))
            .env("LANTERN_KEYRING", self.path("keyring.toml"))
            .env("LANTERN_STATE_DIR", self.path("state"))
            .env("LANTERN_RUN_DIR", self.path("run"))
            .env_remove("LANTERN_LOG")
            .stdin(Stdio::null());
        command
    }

    /// Runs `flattener` with these words.
    #[must_use]
    pub fn flattener(&self, words: &[&str]) -> Output {
        self.command("flattener").args(words).output().unwrap()
    }

    /// Runs `blockd` with these words.
    #[must_use]
    pub fn blockd(&self, words: &[&str]) -> Output {
        self.command("blockd").args(words).output().unwrap()
    }

    /// Pushes the layout in `directory` under `name`; panics if that fails.
    pub fn push(&self, directory: &Path, name: &str) -> serde_json::Value {
        let image = format!("oci:{}:latest", directory.display());
        let output = self.flattener(&["push", &image, "--name", name, "--json"]);
        assert!(output.status.success(), "push failed: {}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Exports an image to a file; panics if that fails.
    #[must_use]
    pub fn export(&self, name: &str) -> PathBuf {
        let file = self.path(&format!("{name}.ext4"));
        let output = self.flattener(&["export", name, "--quiet", "-o", file.to_str().unwrap()]);
        assert!(output.status.success(), "export failed: {}", text(&output));
        file
    }

    /// All objects of the store with their contents, sorted; temporary files left out.
    #[must_use]
    pub fn objects(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let root = self.path("store");
        let mut found = Vec::new();
        walk(&root, &mut |path| {
            let name = path.strip_prefix(&root).unwrap().to_path_buf();
            if !name.starts_with(".tmp") && !name.starts_with(".lock") {
                found.push((name, std::fs::read(path).unwrap()));
            }
        });
        found.sort();
        found
    }

    /// The daemon of this world, serving; ended when dropped.
    #[must_use]
    pub fn daemon(&self) -> Daemon {
        let mut command = self.command("blockd");
        command.arg("serve");
        self.daemon_of(command)
    }

    /// A daemon that this command starts in this world.
    #[must_use]
    pub fn daemon_of(&self, mut command: Command) -> Daemon {
        let mut daemon = Daemon(command.spawn().unwrap());
        let socket = self.path("run/blockd.sock");
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert_eq!(daemon.0.try_wait().unwrap(), None, "the daemon has ended");
            assert!(begun.elapsed() < Duration::from_secs(60), "the daemon does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    /// What is mounted or attached below this world: must be nothing at the end.
    #[must_use]
    pub fn residue(&self) -> Vec<String> {
        let here = self.dir.path().to_str().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut left: Vec<String> =
            mounts.lines().filter(|line| line.contains(here)).map(String::from).collect();
        for entry in std::fs::read_dir("/sys/block").unwrap().flatten() {
            let backing = std::fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            if backing.contains(here) {
                left.push(backing);
            }
        }
        left
    }
}

fn walk(directory: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), visit);
        } else {
            visit(&entry.path());
        }
    }
}

/// Runs a command of somebody else's; panics with what it said if it fails.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
}

/// Both streams of a finished command.
#[must_use]
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.end(rustix::process::Signal::TERM);
        }
    }
}
