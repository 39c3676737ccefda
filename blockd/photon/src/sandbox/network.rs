//! Network namespaces of sandboxes, made by this process and held by a descriptor.
//!
//! What listens on a sandbox's loopback for the worker is bound inside the namespace and
//! served by this process: nothing outside the sandbox can reach it, and the sandbox reaches
//! nothing else of the worker.
//!
//! Invariants: a namespace has no name anywhere, so it is gone with its last descriptor and
//! process, however they end, and with it every interface in it; the caller's own thread
//! never changes its namespace.

use super::{SandboxError, sys, worker};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpSocket;

/// The interface of a sandbox that has one.
const INTERFACE: &str = "eth0";

/// A bridge of this host that sandboxes may have an interface on. They reach the host and
/// what it routes to; they do not reach each other (isolated ports).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its name; made if it does not exist.
    pub name: String,
    /// Its address, the first of its network.
    pub address: Ipv4Addr,
    /// Length of the network's prefix, 8 to 30.
    pub prefix: u8,
}

impl Default for Bridge {
    fn default() -> Self {
        // carrier-grade NAT space (RFC 6598): unlikely to be anybody's own network
        Self { name: "lantern0".into(), address: Ipv4Addr::new(100, 100, 0, 1), prefix: 16 }
    }
}

/// `ip -batch` with these lines; in a namespace if one is given.
fn ip(lines: &str, inside: Option<&NetworkNamespace>) -> Result<(), SandboxError> {
    let failed = |source| SandboxError::Io { action: "configure a network with", path: "ip".into(), source };
    let start = || {
        let mut command = Command::new("ip");
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
        command.stderr(Stdio::piped()).spawn()
    };
    // it runs where the thread is that starts it
    let mut child = match inside {
        Some(namespace) => namespace.inside(start),
        None => start(),
    }
    .map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(failed(io::Error::other(said)))
}

impl Bridge {
    /// How many sandboxes fit: addresses without network, bridge and broadcast.
    pub(super) fn hosts(&self) -> u32 {
        (1_u32 << (32 - u32::from(self.prefix.clamp(8, 30)))) - 3
    }

    /// The address of the sandbox with this number, below [`Self::hosts`].
    fn address_of(&self, number: u32) -> Ipv4Addr {
        let host_bits = !(u32::MAX << (32 - u32::from(self.prefix.clamp(8, 30))));
        let own = u32::from(self.address) & host_bits;
        // the bridge's own address is left out wherever it lies
        let host = if number + 1 < own { number + 1 } else { number + 2 };
        Ipv4Addr::from(u32::from(self.address) & !host_bits | host)
    }

    /// The right to give out the bridge's addresses, which one worker has at a time: each counts
    /// its own, and two would give the same.
    ///
    /// # Errors
    /// [`SandboxError`] if another worker has it.
    pub(super) fn claim(&self) -> Result<Claim, SandboxError> {
        // A socket's name without a file belongs to the network namespace, as the bridge does,
        // whatever files, ids and directories workers in containers have apart; and the kernel
        // takes it back however its owner ends.
        let name = format!("lantern/bridge/{}", self.name);
        let bound = UnixAddress::from_abstract_name(name).and_then(|name| UnixDatagram::bind_addr(&name));
        match bound {
            Ok(socket) => Ok(Claim { _name: socket }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(SandboxError::Request(format!(
                "another worker of this host has sandboxes on bridge {}, and would give them the same addresses; \
                 give this one a bridge and a network of its own with --bridge NAME=ADDRESS/PREFIX",
                self.name
            ))),
            Err(error) => Err(SandboxError::io("claim the bridge", &self.name)(error)),
        }
    }

    /// Makes the bridge unless it is there. Blocks.
    ///
    /// # Errors
    /// [`SandboxError::Io`] with what `ip` (iproute2) said.
    pub fn ensure(&self) -> Result<(), SandboxError> {
        if !std::path::Path::new("/sys/class/net").join(&self.name).exists() {
            let made = ip(
                &format!(
                    "link add {0} type bridge\naddr add {1}/{2} dev {0}\n",
                    self.name, self.address, self.prefix
                ),
                None,
            );
            // two workers may have started at the same time
            if let Err(error) = made
                && !std::path::Path::new("/sys/class/net").join(&self.name).exists()
            {
                return Err(error);
            }
        }
        // Left to itself, a bridge has the least of its ports' addresses: it would change as
        // sandboxes come and go, and others would send to one that is gone until they ask again.
        ip(
            &format!("link set dev {0} address {1}\nlink set {0} up\n", self.name, self.hardware_address()),
            None,
        )
    }

    /// One of its own, locally administered.
    fn hardware_address(&self) -> String {
        let [a, b, c, d] = self.address.octets();
        format!("02:1a:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }
}

/// See [`Bridge::claim`]; given back when this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    _name: UnixDatagram,
}

/// Numbers of sandboxes on a bridge, by which they have their addresses. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers(Arc<Mutex<Used>>);

#[derive(Debug, Default)]
struct Used {
    numbers: BTreeSet<u32>,
    /// Where the search begins: the kernel takes a moment to forget the last owner of a number.
    next: u32,
}

/// A number that no other sandbox has until this is dropped.
#[derive(Debug)]
pub(super) struct Number {
    value: u32,
    of: Numbers,
}

impl Numbers {
    fn used(&self) -> MutexGuard<'_, Used> {
        // numbers go in and out one by one
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A free number below `end`: the next after the one that was given last.
    pub(super) fn take(&self, end: u32) -> Option<Number> {
        let mut used = self.used();
        let (below, above) = (0..used.next.min(end), used.next.min(end)..end);
        let value = above.chain(below).find(|number| !used.numbers.contains(number))?;
        used.numbers.insert(value);
        used.next = value + 1;
        Some(Number { value, of: self.clone() })
    }
}

impl Number {
    pub(super) fn value(&self) -> u32 {
        self.value
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        self.of.used().numbers.remove(&self.value);
    }
}

/// A network namespace with loopback up. See the module's invariants.
#[derive(Debug)]
pub(super) struct NetworkNamespace {
    descriptor: OwnedFd,
}

/// Runs `work` on a thread of its own, which may change its namespaces as it likes.
fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("the thread in the namespace panicked"))?
    })
}

impl NetworkNamespace {
    /// A new one. Blocks for some milliseconds.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn make() -> Result<Self, SandboxError> {
        let made = on_own_thread(|| {
            sys::unshare_network()?;
            sys::bring_loopback_up()?;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            Ok(openat(CWD, "/proc/thread-self/ns/net", flags, Mode::empty())?)
        });
        let descriptor = made.map_err(SandboxError::io("make a network namespace in", "/proc/self/ns"))?;
        Ok(Self { descriptor })
    }

    /// A path by which another process of this host can open the namespace while this one
    /// lives.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.descriptor.as_raw_fd()).into()
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_own_thread(|| {
            move_into_link_name_space(self.descriptor.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        })
    }

    /// Listens inside.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.inside(|| {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
    }

    /// A socket that reaches what listens inside: sockets stay in the namespace in which they were
    /// made. Blocks for a moment, but not for what listens: connecting is the caller's.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn socket(&self) -> io::Result<TcpSocket> {
        self.inside(TcpSocket::new_v4)
    }

    /// Gives the namespace an interface on `bridge`, with the address of `number`. Blocks.
    ///
    /// # Errors
    /// [`SandboxError::Io`] with what `ip` said.
    pub(super) fn plug_in(&self, bridge: &Bridge, number: u32) -> Result<(), SandboxError> {
        // names of interfaces have at most 15 bytes; one that is going may still have its name
        static NAMES: AtomicU32 = AtomicU32::new(0);
        let name = NAMES.fetch_add(1, Ordering::Relaxed) & 0xff_ffff;
        let (worker, host_side) = (std::process::id(), format!("ln{}-{name:x}", worker::word()));
        let inside = format!(
            "link add {INTERFACE} type veth peer name {host_side} netns {worker}\n\
             addr add {}/{} dev {INTERFACE}\nlink set {INTERFACE} up\nroute add default via {}\n",
            bridge.address_of(number),
            bridge.prefix,
            bridge.address,
        );
        ip(&inside, Some(self))?;
        let outside = format!(
            "link set {host_side} master {}\nlink set dev {host_side} type bridge_slave isolated on\nlink set {host_side} up\n",
            bridge.name
        );
        ip(&outside, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[test]
    fn addresses_stay_in_the_network_and_spare_the_bridge() {
        for (own, others) in [(1, [2, 3, 4, 5, 6]), (3, [1, 2, 4, 5, 6]), (6, [1, 2, 3, 4, 5])] {
            let bridge = Bridge { name: "x".into(), address: Ipv4Addr::new(10, 0, 0, 8 + own), prefix: 29 };
            assert_eq!(bridge.hosts(), 5);
            let all: Vec<u8> = (0..5).map(|n| bridge.address_of(n).octets()[3] - 8).collect();
            assert_eq!(all, others);
        }
    }

    #[test]
    fn an_address_in_use_is_not_given_twice() {
        let numbers = Numbers::default();
        let first = numbers.take(3).unwrap();
        let second = numbers.take(3).unwrap();
        let third = numbers.take(3).unwrap();
        assert!(numbers.take(3).is_none());
        drop(second);
        assert_eq!(numbers.take(3).map(|number| number.value()), Some(1));
        assert_eq!((first.value(), third.value()), (0, 2));
    }

    #[test]
    fn privileged_a_bridge_keeps_its_hardware_address() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let name = format!("lt{}", std::process::id());
        let bridge = Bridge { name: name.clone(), address: [100, 101, 7, 1].into(), prefix: 24 };
        bridge.ensure().unwrap();
        let read = |file: &str| std::fs::read_to_string(format!("/sys/class/net/{name}/{file}")).unwrap();
        let (address, assigned) = (read("address"), read("addr_assign_type"));
        bridge.ensure().unwrap();
        let again = read("address");
        ip(&format!("link del {name}\n"), None).unwrap();
        assert_eq!((address.trim(), again.trim()), ("02:1a:64:65:07:01", "02:1a:64:65:07:01"));
        // NET_ADDR_SET: it does not follow the ports
        assert_eq!(assigned.trim(), "3");
    }

    #[test]
    fn a_bridge_has_one_worker() {
        let bridge =
            |name: &str| Bridge { name: format!("{name}{}", std::process::id()), ..Bridge::default() };
        let first = bridge("a").claim().unwrap();
        let _another_bridge = bridge("b").claim().unwrap();
        let refused = bridge("a").claim().unwrap_err().to_string();
        assert!(refused.contains("--bridge NAME=ADDRESS/PREFIX"), "{refused}");
        drop(first);
        assert!(bridge("a").claim().is_ok());
    }

    #[tokio::test]
    async fn privileged_what_listens_inside_is_reached_from_inside_only() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let namespace = NetworkNamespace::make().unwrap();
        let address: SocketAddr = "127.0.0.1:9001".parse().unwrap();
        let listener = namespace.listen(address).unwrap();
        listener.set_nonblocking(false).unwrap();
        let other = NetworkNamespace::make().unwrap();
        assert!(other.socket().unwrap().connect(address).await.is_err());
        let mut client = namespace.socket().unwrap().connect(address).await.unwrap();
        let (mut served, from) = listener.accept().unwrap();
        assert!(from.ip().is_loopback());
        served.write_all(b"x").unwrap();
        drop(served);
        let mut got = String::new();
        client.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "x");
        assert!(namespace.path().exists());
    }
}
