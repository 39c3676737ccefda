//! Nodes of the bench's own: `cache-node` processes on loopback.

use cache::node::NodeStatus;
use fleet::members::{Members, Node};
use fleet::transport::{HttpTransport, TransportSettings};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Running nodes; ended when dropped.
pub(crate) struct Nodes {
    children: Vec<(Child, String)>,
    dir: tempfile::TempDir,
    /// What the nodes said of an earlier life.
    before: Vec<NodeStatus>,
}

impl Nodes {
    pub(crate) async fn start(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut nodes = Self { children: Vec::new(), dir, before: Vec::new() };
        for number in 0..count {
            let child = nodes.begin(number);
            nodes.children.push(child);
        }
        nodes
    }

    fn begin(&self, number: usize) -> (Child, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cache-node"))
            .args(["serve", "--listen", "127.0.0.1:0", "--memory", "256M", "--ssd", "1G"])
            .args(["--name", &format!("n{number}"), "--state-dir"])
            .arg(self.dir.path().join(number.to_string()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
        let address = said.trim().rsplit(' ').next().unwrap().to_string();
        (child, address)
    }

    /// Ends all nodes politely and starts them again on their disks.
    pub(crate) async fn restart(&mut self) {
        for number in 0..self.children.len() {
            end(&mut self.children[number].0);
            self.children[number] = self.begin(number);
        }
    }

    pub(crate) fn members(&self) -> Members {
        let node = |(number, (_, address)): (usize, &(Child, String))| Node {
            name: format!("n{number}"),
            ..Node::at(address)
        };
        Members::new(self.children.iter().enumerate().map(node).collect()).unwrap()
    }

    async fn ask(&self, path: &str) -> Vec<bytes::Bytes> {
        let transport = HttpTransport::new(TransportSettings::default());
        let mut answers = Vec::new();
        for node in self.members().nodes() {
            let (_, body) = transport.ask(node, "GET", path, 1 << 20, Duration::from_secs(5)).await.unwrap();
            answers.push(body);
        }
        answers
    }

    /// Keeps what the nodes said before they were restarted.
    pub(crate) fn keep(&mut self, before: Vec<NodeStatus>) {
        self.before = before;
    }

    /// What the nodes say of themselves, in this life and the one before.
    pub(crate) async fn statuses(&self) -> Vec<NodeStatus> {
        let now = self.ask("/v1/status").await;
        let now = now.iter().map(|body| serde_json::from_slice(body).unwrap());
        let mut all: Vec<NodeStatus> = now.collect();
        all.extend(self.before.iter().cloned());
        all
    }

    /// Waits until what was written is on disk.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// Processor time that a node used so far.
    pub(crate) fn cpu_seconds(&self, number: usize) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.children[number].0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / 100.0
    }
}

fn end(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    let _ = child.wait();
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for (child, _) in &mut self.children {
            end(child);
        }
    }
}
