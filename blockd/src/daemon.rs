//! `blockd serve`: the worker, its functions, and the doors to both, from start to end.
//!
//! Order matters at the end: doors close first, then invocations in flight finish, then
//! sandboxes go, then what they ran on.

use crate::api;
use crate::api::lambda;
use crate::config::{FunctionsSettings, SandboxSettings, WorkerSettings};
use crate::functions::Service;
use crate::functions::images::StoreImages;
use crate::image::FunctionImages;
use crate::run_dir::RunDir;
use crate::worker::{IfSsdInUse, Worker};
use anyhow::{Context, Result};
use photon::dispatch::Dispatcher;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How long invocations in flight may take to end when the daemon is told to.
const DRAIN_PATIENCE: Duration = Duration::from_secs(20);

/// What a daemon is made of.
#[derive(Debug)]
pub struct DaemonSettings {
    /// The worker's.
    pub worker: WorkerSettings,
    /// The front door's.
    pub functions: FunctionsSettings,
    /// The sandboxes'.
    pub sandboxes: SandboxSettings,
}

/// Descriptors of a sandbox, and of a shell made ahead for one.
const FILES_OF_SANDBOX: usize = 10;
/// Descriptors of everything else: the store, caches, FUSE, the remote cache.
const FILES_OF_WORKER: usize = 512;

impl DaemonSettings {
    /// How many files may be open at the same time with these limits, roughly.
    #[must_use]
    pub fn open_files(&self) -> u64 {
        let dispatcher = &self.sandboxes.dispatcher;
        let ahead = dispatcher.pool.plain.saturating_add(dispatcher.pool.bridged);
        let sandboxes = dispatcher.most_sandboxes.saturating_add(ahead);
        let connections = self.functions.door.as_ref().map_or(0, |(_, door)| door.max_connections);
        let all = sandboxes.saturating_mul(FILES_OF_SANDBOX).saturating_add(connections);
        u64::try_from(all.saturating_add(FILES_OF_WORKER)).unwrap_or(u64::MAX)
    }
}

/// Serves until `stop` ends, and leaves nothing behind.
///
/// # Errors
/// If something cannot be started.
pub async fn serve(
    settings: DaemonSettings,
    run_dir: &Arc<RunDir>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let (told, stopped) = watch::channel(false);
    let stopping = tokio::spawn({
        let told = told.clone();
        async move {
            stop.await;
            told.send_replace(true);
        }
    });
    let worker = Arc::new(Worker::start(&settings.worker, Arc::clone(run_dir), IfSsdInUse::Fail).await?);
    let served = functions(&settings, run_dir, &worker, (told, stopped)).await;
    stopping.abort();
    worker.shutdown().await;
    served
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // an error is the end of whoever could tell
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// The functions of a worker, and all doors.
async fn functions(
    settings: &DaemonSettings,
    run_dir: &Arc<RunDir>,
    worker: &Arc<Worker>,
    (told, stopped): (watch::Sender<bool>, watch::Receiver<bool>),
) -> Result<()> {
    let runtimes = run_dir.sub("runtimes")?;
    photon::runtimes::install(&runtimes, settings.sandboxes.jars.as_deref())
        .with_context(|| format!("cannot put the runtimes in {}", runtimes.display()))?;
    let door = match &settings.functions.door {
        Some((address, door)) => {
            let listener = TcpListener::bind(address).await;
            Some((listener.with_context(|| format!("cannot listen on {address}"))?, door.clone()))
        }
        None => None,
    };
    let images = Arc::new(FunctionImages::new(Arc::clone(worker)));
    let dispatcher = Dispatcher::start(settings.sandboxes.dispatcher.clone(), images);
    let resolver = Arc::new(StoreImages::new(worker.catalog().clone()));
    let service =
        Service::open(settings.functions.service.clone(), Arc::new(dispatcher.clone()), resolver).await;
    let outcome = match service {
        Ok(service) => {
            if service.has_functions() {
                dispatcher.pool().prepare();
            }
            // a door that cannot be opened, or fails, closes the other: half a worker helps nobody
            let socket = settings.worker.directories.socket();
            let control = async {
                let until = until(stopped.clone());
                let served = api::serve(Arc::clone(worker), Some(Arc::clone(&service)), &socket, until).await;
                told.send_replace(true);
                served
            };
            let lambda = async {
                let Some((listener, door)) = door else { return Ok(()) };
                if let Ok(address) = listener.local_addr() {
                    tracing::info!(%address, "serving the Lambda API");
                }
                let served =
                    lambda::serve(Arc::clone(&service), door, listener, until(stopped.clone())).await;
                told.send_replace(true);
                served.context("the Lambda API failed")
            };
            let (control, lambda) = tokio::join!(control, lambda);
            dispatcher.shutdown(DRAIN_PATIENCE).await;
            service.close().await;
            control.and(lambda)
        }
        Err(error) => {
            dispatcher.shutdown(Duration::ZERO).await;
            Err(error.into())
        }
    };
    if let Err(error) = std::fs::remove_dir_all(&runtimes) {
        tracing::warn!(%error, "the runtimes' files could not be removed");
    }
    outcome
}
