//! The tests that our photon runtimes bring along, each in its own language against a mock of
//! the worker: protocol, leak suites, isolation tables.

use std::path::{Path, PathBuf};
use std::process::Command;
use tests::product::run;

fn runtimes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../blockd/photon/runtimes")
}

#[test]
fn the_java_runtime_keeps_its_table() {
    let ready = Command::new("javac").arg("-version").output().is_ok()
        && Path::new("/usr/share/java/asm.jar").exists();
    if !ready {
        eprintln!("SKIPPED: needs a JDK and libasm-java");
        return;
    }
    run(&mut Command::new(runtimes().join("java/test")));
}

#[test]
fn the_python_runtime_keeps_its_table() {
    let mut command = Command::new("/usr/bin/python3");
    run(command.args(["-m", "unittest", "discover", "-s"]).arg(runtimes().join("python/tests")));
}

/// Debian 12 has Python 3.11, where objects are not immortal and code is not moved.
#[test]
fn privileged_the_python_runtime_keeps_its_table_on_debian_13() {
    if std::env::var_os("LANTERN_DEBIAN_13").is_none() {
        eprintln!(
            "SKIPPED: LANTERN_DEBIAN_13 is not set; scripts/test makes a root of Debian 13 and sets it"
        );
        return;
    }
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("python-root"));
    run(command.args(["python3", "-m", "unittest", "discover", "-s", "/mnt/tests"]));
}
