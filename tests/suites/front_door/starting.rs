//! A daemon that cannot open all its doors.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tests::product::World;

#[test]
fn a_daemon_without_its_control_socket_ends_and_says_so() {
    let world = World::new();
    // a directory that is not empty cannot be replaced by a socket
    std::fs::create_dir_all(world.path("run/blockd.sock/in-the-way")).unwrap();
    let keys = world.path("keys.toml");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&keys).unwrap();
    file.write_all(b"[keys.LANTERNTESTKEY]\nsecret = '0123456789abcdef'\ntenant = 'local'\n").unwrap();
    let mut daemon = world
        .command("blockd")
        .args(["serve", "--functions-listen", "127.0.0.1:0", "--access-keys", keys.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while daemon.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(30) {
            daemon.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = daemon.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("blockd.sock"), "{said}");
    assert!(output.status.code().is_some_and(|code| code != 0), "{:?}: {said}", output.status);
    assert_eq!(world.residue(), Vec::<String>::new());
}
