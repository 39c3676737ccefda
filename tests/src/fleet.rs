//! A fleet of `cache-node` processes, each in a network namespace of its own with an address
//! of its own, joined by a bridge. Needs root and iproute2.

use crate::product::{World, binary, run};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The secret of all test fleets.
const SECRET: &str = "a-secret-of-the-test-fleet";

/// One node: its namespace stays while its process comes and goes.
#[derive(Debug)]
struct Node {
    namespace: String,
    cable: String,
    address: String,
    state_dir: PathBuf,
    options: Mutex<Vec<String>>,
    process: Mutex<Option<Child>>,
}

/// A running fleet. Everything it made is gone when it is dropped.
#[derive(Debug)]
pub struct Fleet {
    bridge: String,
    subnet: String,
    nodes: Vec<Node>,
    directory: PathBuf,
}

fn ip(words: &str) {
    run(Command::new("ip").args(words.split(' ')));
}

impl Fleet {
    /// Starts `count` nodes and writes their members file.
    #[must_use]
    pub fn start(world: &World, count: usize) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        // a number of its own for each, in this process and among those that run beside it
        let id = std::process::id().wrapping_add(STARTED.fetch_add(1, Ordering::Relaxed) * 4099) % 32768;
        let directory = world.path("fleet");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("secret"), SECRET).unwrap();
        let subnet = format!("10.{}.{}", 64 + id / 256, id % 256);
        let bridge = format!("lt{id}");
        ip(&format!("link add {bridge} type bridge"));
        let mut fleet = Self { bridge, subnet, nodes: Vec::new(), directory };
        ip(&format!("addr add {}.254/24 dev {}", fleet.subnet, fleet.bridge));
        ip(&format!("link set {} up", fleet.bridge));
        for _ in 0..count {
            fleet.add();
        }
        fleet.write_members(&(0..count).collect::<Vec<_>>());
        fleet
    }

    /// Starts one more node, which is not in the members file yet. Returns its number.
    pub fn add(&mut self) -> usize {
        let number = self.nodes.len();
        let namespace = format!("{}n{number}", self.bridge);
        let cable = format!("{}v{number}", self.bridge);
        let address = format!("{}.{}", self.subnet, number + 1);
        ip(&format!("netns add {namespace}"));
        ip(&format!("link add {cable} type veth peer name eth0 netns {namespace}"));
        ip(&format!("link set {cable} master {} up", self.bridge));
        ip(&format!("-n {namespace} addr add {address}/24 dev eth0"));
        ip(&format!("-n {namespace} link set eth0 up"));
        ip(&format!("-n {namespace} link set lo up"));
        let state_dir = self.directory.join(format!("node{number}"));
        let options = ["--ssd", "256M", "--ssd-headroom", "0", "--memory", "16M"].map(String::from);
        let (options, process) = (Mutex::new(options.into()), Mutex::default());
        self.nodes.push(Node { namespace, cable, address, state_dir, options, process });
        self.begin(number);
        number
    }

    /// The members file of these nodes, each in a zone of its own.
    pub fn write_members(&self, numbers: &[usize]) {
        let mut text = String::new();
        for &number in numbers {
            let address = &self.nodes[number].address;
            let _ = writeln!(
                text,
                "[[node]]\nname = 'n{number}'\naddress = '{address}:7400'\nzone = 'z{number}'"
            );
        }
        let (file, new) = (self.members(), self.directory.join("members.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// The members file.
    #[must_use]
    pub fn members(&self) -> PathBuf {
        self.directory.join("members.toml")
    }

    /// Where a node keeps its shards.
    #[must_use]
    pub fn state_dir(&self, number: usize) -> PathBuf {
        self.nodes[number].state_dir.clone()
    }

    /// The process of a node that runs.
    #[must_use]
    pub fn pid(&self, number: usize) -> u32 {
        self.nodes[number].process.lock().unwrap().as_ref().unwrap().id()
    }

    /// Other options for a node, from its next start.
    pub fn set_options(&self, number: usize, options: &[&str]) {
        *self.nodes[number].options.lock().unwrap() = options.iter().map(ToString::to_string).collect();
    }

    /// Starts a node's process and waits until it answers.
    pub fn begin(&self, number: usize) {
        let node = &self.nodes[number];
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", node.namespace))
            .arg(binary("cache-node"))
            .args(["serve", "--listen", &format!("{}:7400", node.address)])
            .args(["--name", &format!("n{number}"), "--zone", &format!("z{number}")])
            .arg("--state-dir")
            .arg(&node.state_dir)
            .arg("--secret-file")
            .arg(self.directory.join("secret"))
            .args(&*node.options.lock().unwrap())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        *node.process.lock().unwrap() = Some(child);
        let begun = Instant::now();
        let address = format!("{}:7400", node.address).parse().unwrap();
        while std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "node {number} does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal to a node.
    pub fn signal(&self, number: usize, signal: Signal) {
        let process = self.nodes[number].process.lock().unwrap();
        kill_process(Pid::from_child(process.as_ref().unwrap()), signal).unwrap();
    }

    /// Ends a node's process with a signal.
    pub fn end(&self, number: usize, signal: Signal) {
        self.signal(number, signal);
        let status = self.nodes[number].process.lock().unwrap().take().unwrap().wait().unwrap();
        assert!(signal != Signal::TERM || status.success(), "a node ends politely with success: {status}");
    }

    /// Pulls a node's cable out, or puts it back.
    pub fn cable(&self, number: usize, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        ip(&format!("link set {} {state}", self.nodes[number].cable));
    }

    /// Gives a command of the product this fleet.
    pub fn reach(&self, command: &mut Command) {
        command
            .env("LANTERN_L2", format!("file:{}", self.members().display()))
            .env("LANTERN_L2_SECRET_FILE", self.directory.join("secret"))
            // a busy machine must not look like a slow fleet
            .env("LANTERN_L2_DEADLINE_MS", "5000");
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for node in &self.nodes {
            if let Some(mut child) = node.process.lock().ok().and_then(|mut process| process.take()) {
                let _ = child.kill();
                let _ = child.wait();
            }
            let _ = Command::new("ip").args(["netns", "del", &node.namespace]).status();
            let _ = Command::new("ip").args(["link", "del", &node.cable]).stderr(Stdio::null()).status();
        }
        let _ = Command::new("ip").args(["link", "del", &self.bridge]).status();
    }
}
