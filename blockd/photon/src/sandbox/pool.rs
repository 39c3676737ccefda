//! Sandboxes' shells: what a sandbox needs and no image or function decides, made ahead.
//!
//! A shell is a directory with memory for an overlay, control groups without limits, a
//! network namespace (perhaps on the bridge), and in it the two listeners of the worker. Making
//! network namespaces and interfaces is serialised in the kernel, so that a burst of starts
//! would wait for it (Particle, SoCC'20); the pool takes it out of the start.
//!
//! Invariants: a shell is used for one sandbox and never again; one that is dropped unused is
//! cleared; an empty pool makes a start slower, never fail.

use super::cgroup::Cgroups;
use super::network::{Bridge, Claim, NetworkNamespace, Number, Numbers};
use super::place::Place;
use super::{SandboxError, Settings, worker};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Where the Runtime API is, as a sandbox sees it.
pub const RUNTIME_API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9001);
/// Where invocations' logs go, as a sandbox sees it.
pub const LOG_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9002);

/// Everything of a sandbox but its image and its process.
#[derive(Debug)]
pub struct Shell {
    pub(super) place: Place,
    pub(super) groups: Cgroups,
    pub(super) namespace: Arc<NetworkNamespace>,
    listeners: Option<(TcpListener, TcpListener)>,
    /// Its number on the bridge, given back when the namespace is gone.
    _number: Option<Number>,
    cleared: bool,
}

impl Shell {
    /// Makes one. Blocks for some milliseconds, more with a bridge.
    fn make(run_dir: &std::path::Path, bridge: Option<(&Bridge, Number)>) -> Result<Self, SandboxError> {
        let namespace = Arc::new(NetworkNamespace::make()?);
        if let Some((bridge, number)) = &bridge {
            namespace.plug_in(bridge, number.value())?;
        }
        let listen =
            |address| namespace.listen(address).map_err(SandboxError::io("listen in", namespace.path()));
        let listeners = (listen(RUNTIME_API)?, listen(LOG_ADDRESS)?);
        let place = Place::make(run_dir)?;
        let groups = Cgroups::make(&place.id);
        let number = bridge.map(|(_, number)| number);
        let shell =
            Self { place, groups, namespace, listeners: Some(listeners), _number: number, cleared: false };
        shell.place.make_scratch()?;
        Ok(shell)
    }

    /// The sandbox's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.place.id
    }

    /// The listeners of the Runtime API and of the logs; non-blocking. Once.
    pub fn take_listeners(&mut self) -> Option<(TcpListener, TcpListener)> {
        self.listeners.take()
    }

    pub(super) fn clear(&mut self) {
        if !std::mem::replace(&mut self.cleared, true) {
            self.groups.clear();
            self.place.clear();
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.clear();
    }
}

/// How many shells are kept ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// Without an interface.
    pub plain: usize,
    /// With one on the bridge.
    pub bridged: usize,
    /// The bridge, made when the first sandbox needs it.
    pub bridge: Bridge,
}

impl Default for PoolSettings {
    /// Enough for the starts that may be under way at once by default.
    fn default() -> Self {
        Self { plain: 16, bridged: 0, bridge: Bridge::default() }
    }
}

/// The pool is not filled while sandboxes start, which would take their processors from them:
/// only when none was taken for this long...
const QUIET: Duration = Duration::from_millis(100);
/// ...or after waiting for that for this long.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Ready {
    plain: VecDeque<Shell>,
    bridged: VecDeque<Shell>,
    /// When the last one was taken, or asked for in vain.
    taken: Option<Instant>,
}

#[derive(Debug)]
struct Shared {
    settings: PoolSettings,
    run_dir: PathBuf,
    ready: Mutex<Ready>,
    numbers: Numbers,
    /// The right to the bridge, once the first sandbox needed it.
    claim: Mutex<Option<Claim>>,
    wanted: Notify,
    closing: watch::Sender<bool>,
    from_pool: AtomicU64,
    made_inline: AtomicU64,
}

/// Shells made ahead. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
    filler: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Shared {
    fn ready(&self) -> std::sync::MutexGuard<'_, Ready> {
        // shells go in and out whole
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks.
    fn make(&self, bridged: bool) -> Result<Shell, SandboxError> {
        if !bridged {
            return Shell::make(&self.run_dir, None);
        }
        let bridge = &self.settings.bridge;
        self.claim(bridge)?;
        let number = self.numbers.take(bridge.hosts()).ok_or_else(|| {
            SandboxError::Request(format!(
                "all {} addresses of bridge {} are in use; give it a larger network with --bridge",
                bridge.hosts(),
                bridge.name
            ))
        })?;
        Shell::make(&self.run_dir, Some((bridge, number)))
    }

    /// Takes the right to the bridge and makes it, unless that was done. Blocks.
    fn claim(&self, bridge: &Bridge) -> Result<(), SandboxError> {
        // taken whole, after the bridge is there
        let mut claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        if claim.is_none() {
            let taken = bridge.claim()?;
            bridge.ensure()?;
            *claim = Some(taken);
        }
        Ok(())
    }

    /// Whether a shell of either kind is missing, and of which.
    fn missing(&self) -> Option<bool> {
        let ready = self.ready();
        if ready.plain.len() < self.settings.plain {
            return Some(false);
        }
        (ready.bridged.len() < self.settings.bridged).then_some(true)
    }

    /// Returns when starts leave room for other work, or after `patience`; with what is left of it.
    async fn quiet(&self, patience: Duration) -> Duration {
        let begun = Instant::now();
        loop {
            let taken = self.ready().taken;
            let left = patience.saturating_sub(begun.elapsed());
            match taken.and_then(|taken| QUIET.checked_sub(taken.elapsed())) {
                Some(rest) if !left.is_zero() => tokio::time::sleep(rest.min(left)).await,
                _ => return left,
            }
        }
    }
}

/// Keeps the pool full from the first time that it is wanted: a worker without functions prepares
/// nothing. Failures are logged and tried again: starts go on without the pool.
async fn fill(shared: Arc<Shared>) {
    let mut closing = shared.closing.subscribe();
    loop {
        tokio::select! {
            () = shared.wanted.notified() => {}
            _ = closing.wait_for(|closing| *closing) => return,
        }
        let mut patience = PATIENCE;
        while let Some(bridged) = shared.missing() {
            tokio::select! {
                left = shared.quiet(patience) => patience = left,
                _ = closing.wait_for(|closing| *closing) => return,
            }
            let maker = Arc::clone(&shared);
            match tokio::task::spawn_blocking(move || maker.make(bridged)).await {
                Ok(Ok(shell)) => {
                    let mut ready = shared.ready();
                    if bridged { ready.bridged.push_back(shell) } else { ready.plain.push_back(shell) }
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a sandbox could not be prepared ahead");
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "preparing sandboxes ahead failed");
                    return;
                }
            }
        }
    }
}

impl Pool {
    /// A pool that fills itself from the first [`Self::take`] or [`Self::prepare`] on.
    #[must_use]
    pub fn start(settings: PoolSettings, sandbox: &Settings) -> Self {
        let shared = Arc::new(Shared {
            settings,
            run_dir: sandbox.run_dir.clone(),
            ready: Mutex::default(),
            numbers: Numbers::default(),
            claim: Mutex::default(),
            wanted: Notify::new(),
            closing: watch::Sender::new(false),
            from_pool: AtomicU64::new(0),
            made_inline: AtomicU64::new(0),
        });
        let filler = tokio::spawn(fill(Arc::clone(&shared)));
        Self { shared, filler: Arc::new(Mutex::new(Some(filler))) }
    }

    /// Begins to fill the pool: sandboxes are expected.
    pub fn prepare(&self) {
        self.shared.wanted.notify_one();
    }

    /// A shell: a ready one, or one made now. Cancel-safe.
    ///
    /// # Errors
    /// [`SandboxError`] if there was none and none could be made.
    pub async fn take(&self, bridged: bool) -> Result<Shell, SandboxError> {
        let found = {
            let mut ready = self.shared.ready();
            ready.taken = Some(Instant::now());
            if bridged { ready.bridged.pop_front() } else { ready.plain.pop_front() }
        };
        if let Some(shell) = found {
            self.shared.from_pool.fetch_add(1, Ordering::Relaxed);
            self.prepare();
            return Ok(shell);
        }
        self.prepare();
        self.shared.made_inline.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        let made = tokio::task::spawn_blocking(move || shared.make(bridged)).await;
        made.unwrap_or_else(|error| {
            Err(SandboxError::Request(format!("preparing a sandbox failed: {error}")))
        })
    }

    /// Shells ready now, without and with an interface.
    #[must_use]
    pub fn ready(&self) -> (usize, usize) {
        let ready = self.shared.ready();
        (ready.plain.len(), ready.bridged.len())
    }

    /// Sandboxes that found a shell ready, and those that had to wait for theirs.
    #[must_use]
    pub fn taken(&self) -> (u64, u64) {
        (self.shared.from_pool.load(Ordering::Relaxed), self.shared.made_inline.load(Ordering::Relaxed))
    }

    /// Stops filling and clears what is ready: some milliseconds per shell. Not cancel-safe.
    pub async fn shutdown(&self) {
        self.shared.closing.send_replace(true);
        let filler = self.filler.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(filler) = filler {
            // a shell in the making is finished first, so that it is cleared with the others
            let _ = filler.await;
        }
        let ready = std::mem::take(&mut *self.shared.ready());
        // clearing shells blocks
        let cleared = tokio::task::spawn_blocking(move || {
            drop(ready);
            worker::remove_own();
        });
        let _ = cleared.await;
        // last of all: no address of ours is in use any more
        drop(self.shared.claim.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
