//! A sandbox from its start to its removal, in one task.
//!
//! ```text
//! image, shell ─▶ launched ─first `next`─▶ serving ─drained, or told to end─▶ stopped ─▶ gone
//!       └──────────── failed: those who waited for it are told ───────────────────────▶ gone
//! ```
//!
//! Invariants: the group hears of every sandbox's end exactly once; its image is given back
//! after its last process; counts of starts and sandboxes come back to what they were.

use super::group::Group;
use super::handle::{Handle, Order};
use super::merging::Permit;
use super::room::{Held, Promise};
use super::{Shared, count};
use crate::function::{Function, FunctionNetwork, Runtime};
use crate::http_mode;
use crate::image_config::ImageConfig;
use crate::invocation::error_json;
use crate::launch;
use crate::logs::{Pace, read_lines};
use crate::rootfs::RootFs;
use crate::runtime_api::store::{SharedStore, StoreLimits, router};
use crate::runtime_api::{Api, ApiSettings, Initialisation, OnFree, Slots};
use crate::sandbox::{Output, Prepared, Request, Running, SandboxError};
use bytes::Bytes;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a runtime may take to end after SIGTERM.
const GRACE: Duration = Duration::from_millis(500);
/// Connections of a sandbox beyond two for each invocation.
const SPARE_CONNECTIONS: usize = 64;

/// Why a start came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The runtime said so, or ended: an error of the function, as JSON.
    Init(Bytes),
    /// The image cannot be had.
    Image(String),
    /// The host failed.
    Sandbox(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Init(payload) => f.write_str(&message_of(payload)),
            Self::Image(reason) | Self::Sandbox(reason) => f.write_str(reason),
        }
    }
}

/// `errorMessage` of an error's JSON, or all of it.
fn message_of(payload: &Bytes) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(payload).ok();
    let message = parsed.as_ref().and_then(|json| json["errorMessage"].as_str());
    message.map_or_else(|| String::from_utf8_lossy(payload).into_owned(), String::from)
}

fn init_failure(kind: &str, message: &str) -> Failure {
    Failure::Init(error_json(kind, message))
}

/// Counts a sandbox, and its start until [`Counted::started`].
struct Counted {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
    tenant: String,
    starting: bool,
    /// Whether memory of its processes may be merged.
    permit: Option<Permit>,
}

impl Counted {
    fn started(&mut self) {
        if std::mem::replace(&mut self.starting, false) {
            self.shared.shares.change(&self.tenant, |held| held.starts -= 1);
            self.shared.starts.fetch_sub(1, Ordering::AcqRel);
            self.shared.freed.notify_one();
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // before others are woken, whose turn it may be
        if let Some(permit) = self.permit.take() {
            permit.end(self.handle.observer());
        }
        self.started();
        self.shared.shares.change(&self.tenant, |held| held.sandboxes -= 1);
        self.handle.promise.end();
        self.shared.sandboxes.fetch_sub(1, Ordering::AcqRel);
        self.shared.freed.notify_one();
    }
}

/// A sandbox that is counted and has a name, but of which nothing runs yet.
pub(super) struct Planned {
    counted: Counted,
}

impl Planned {
    /// What the group knows it by.
    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.counted.handle
    }
}

/// What is known of a sandbox before it is started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Slots that its runtime is told of.
    pub(super) slots: usize,
    /// Whether it makes all its calls for invocations from the start on.
    pub(super) is_fixed: bool,
    /// Most invocations at once.
    pub(super) limit: usize,
    /// Memory that it is likely to need, in bytes.
    pub(super) bytes: u64,
}

/// Plans a sandbox of `group`.
pub(super) fn plan(shared: &Arc<Shared>, group: &Arc<Group>, plan: Plan) -> Planned {
    shared.starts.fetch_add(1, Ordering::AcqRel);
    shared.sandboxes.fetch_add(1, Ordering::AcqRel);
    count(&group.counters().starts);
    let tenant = group.function().key.tenant.clone();
    shared
        .shares
        .change(&tenant, |held| *held = Held { starts: held.starts + 1, sandboxes: held.sandboxes + 1 });
    let weak = Arc::downgrade(group);
    let free = OnFree(Box::new(move || {
        if let Some(group) = weak.upgrade() {
            group.pump();
        }
    }));
    let number = super::next_sandbox();
    let slots = Slots::new(format!("s{number}").into(), free);
    let promise = Promise::new(&shared.promised, plan.bytes);
    let handle = Handle::new(number, slots, plan, promise);
    Planned { counted: Counted { shared: Arc::clone(shared), handle, tenant, starting: true, permit: None } }
}

/// Begins to start a sandbox that the group knows of.
pub(super) fn start(planned: Planned, group: &Arc<Group>) {
    tokio::spawn(live(Arc::clone(group), planned.counted));
}

async fn live(group: Arc<Group>, mut counted: Counted) {
    let (shared, handle) = (Arc::clone(&counted.shared), Arc::clone(&counted.handle));
    let (rootfs, prepared) = match group.stock.take(&shared, handle.told) {
        Some(ready) => {
            counted.permit = ready.permit;
            (ready.rootfs, Some(ready.sandbox))
        }
        None => match shared.source.acquire(group.function()).await {
            Ok(rootfs) => {
                counted.permit = permit(&shared, group.function(), rootfs.as_ref());
                (rootfs, None)
            }
            Err(reason) => {
                drop(counted);
                group.failed(&handle, Failure::Image(reason));
                return;
            }
        },
    };
    let served = serve(&shared, &group, &handle, &rootfs, prepared, &mut counted).await;
    shared.source.release(rootfs).await;
    drop(counted);
    match served {
        Ok(()) => group.ended(&handle),
        Err(failure) => group.failed(&handle, failure),
    }
}

/// By which a function, or its image, says whether its memory may be merged.
const MERGE: &str = "LANTERN_PYTHON_MERGE";

/// For runtimes that make use of it, and functions that do not decline.
pub(super) fn permit(shared: &Shared, function: &Function, rootfs: &dyn RootFs) -> Option<Permit> {
    let of_image = || {
        let config = ImageConfig::parse(rootfs.config()).ok()?;
        config.env.iter().find_map(|pair| pair.strip_prefix(MERGE)?.strip_prefix('=').map(String::from))
    };
    let is_python = matches!(function.runtime, Runtime::Python { .. });
    let declines = || function.env.get(MERGE).cloned().or_else(of_image).is_some_and(|said| said != "1");
    (is_python && shared.settings.merge_memory && !declines())
        .then(|| shared.merging.permit(&function.key.tenant))
        .flatten()
}

/// What is asked of a sandbox of the function. `may_merge`: whether there is a permit for it.
pub(super) fn request(
    shared: &Shared,
    function: &Function,
    slots: usize,
    rootfs: &dyn RootFs,
    may_merge: bool,
) -> Result<Request, Failure> {
    let image = ImageConfig::parse(rootfs.config()).map_err(|error| Failure::Image(error.to_string()))?;
    let mut request = launch::request(function, slots, &image, &shared.settings.launch)
        .map_err(|error| init_failure("Runtime.InvalidConfiguration", &error.to_string()))?;
    request.seccomp_bpf = shared.seccomp_bpf[usize::from(may_merge)].get().cloned();
    request.may_merge = may_merge;
    if may_merge {
        request.env.push(format!("{MERGE}=1"));
    }
    Ok(request)
}

/// A sandbox that runs, and the API that it talks to.
type Launched = (Arc<Api>, Running, Output);

fn host(error: &dyn std::error::Error) -> Failure {
    Failure::Sandbox(chain(error))
}

/// Launches a sandbox.
async fn launch(
    shared: &Arc<Shared>,
    group: &Arc<Group>,
    handle: &Arc<Handle>,
    rootfs: &Arc<dyn RootFs>,
    may_merge: bool,
    tasks: &mut JoinSet<()>,
) -> Result<Launched, Failure> {
    let request = request(shared, group.function(), handle.told, rootfs.as_ref(), may_merge)?;
    let bridged = group.function().network == FunctionNetwork::Bridge;
    let mut shell = shared.pool.take(bridged).await.map_err(|error| host(&error))?;
    let api = listen(shared, group, handle, shell.take_listeners(), tasks).map_err(|error| host(&error))?;
    let launched = Running::launch(shell, Arc::clone(rootfs), request, &shared.settings.sandbox).await;
    let (running, output) = launched.map_err(|error| match error {
        SandboxError::Refused { said, .. } => init_failure("Runtime.InvalidEntrypoint", &said),
        error => host(&error),
    })?;
    Ok((api, running, output))
}

/// Starts a prepared sandbox; `None` if it cannot be any more.
async fn start_prepared(
    shared: &Arc<Shared>,
    group: &Arc<Group>,
    handle: &Arc<Handle>,
    mut prepared: Prepared,
    tasks: &mut JoinSet<()>,
) -> Option<Launched> {
    let started = match listen(shared, group, handle, prepared.take_listeners(), tasks) {
        Ok(api) => prepared.start().await.map(|(running, output)| (api, running, output)),
        Err(error) => {
            prepared.clear().await;
            Err(SandboxError::io("listen in", "a prepared sandbox")(error))
        }
    };
    started.inspect_err(|error| tracing::debug!(%error, "a prepared sandbox is of no use")).ok()
}

/// Serves all slots of a sandbox that serves HTTP, from when it is ready.
async fn serve_http(
    target: Arc<http_mode::Target>,
    api: Arc<Api>,
    handle: Arc<Handle>,
    path: Option<String>,
) {
    target.ready(path.as_deref()).await;
    let slot = |_| Arc::clone(&target).serve_slot(Arc::clone(&handle.slots));
    let mut calls: JoinSet<()> = (0..handle.told).map(slot).collect();
    // whoever hears that it is up counts on a call to wait at once
    while !handle.slots.listens(Duration::MAX) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    api.initialised();
    while calls.join_next().await.is_some() {}
}

/// Launches the sandbox and serves it to its end.
async fn serve(
    shared: &Arc<Shared>,
    group: &Arc<Group>,
    handle: &Arc<Handle>,
    rootfs: &Arc<dyn RootFs>,
    prepared: Option<Prepared>,
    counted: &mut Counted,
) -> Result<(), Failure> {
    let function = group.function();
    let may_merge = counted.permit.is_some();
    let mut tasks = JoinSet::new();
    let started = match prepared {
        Some(prepared) => start_prepared(shared, group, handle, prepared, &mut tasks).await,
        None => None,
    };
    let (api, running, output) = match started {
        Some(started) => started,
        None => launch(shared, group, handle, rootfs, may_merge, &mut tasks).await?,
    };
    handle.launched(running.observer());
    api.launched(running.observer());
    read_output(group, handle, api.log_pace(), output, &mut tasks);
    if let Runtime::Http { port, ready_path } = &function.runtime {
        let target = http_mode::Target::new(
            &running,
            *port,
            shared.settings.most_response_bytes,
            api.bodies().clone(),
        );
        let (api, handle) = (Arc::clone(&api), Arc::clone(handle));
        tasks.spawn(serve_http(target, api, handle, ready_path.clone()));
    }
    let came_up = initialised(&running, api.initialisation(), shared.settings.init_timeout, handle).await;
    let outcome = match came_up {
        Ok(()) => {
            let compiled = &shared.seccomp_bpf[usize::from(may_merge)];
            if compiled.get().is_none()
                && let Some(filter) = running.compiled_filter()
            {
                let _ = compiled.set(filter);
            }
            let usage = running.observer().usage();
            handle.serves(usage);
            // what it needs without invocations, while it has none
            if let Some(usage) = usage {
                group.observe_usage(handle, usage.memory_bytes);
            }
            group.serving();
            // last, or this group would take the place again before others that wait for it
            counted.started();
            let mut reason = until_end(&running, handle).await;
            let used = running.observer().usage().unwrap_or_else(|| handle.usage());
            if used.oom_kills > 0 {
                group.nearly_full(handle);
                let limit = launch::memory_limit(function, &shared.settings.launch) >> 20;
                let _ = write!(reason, "; processes were stopped at its memory limit of {limit} MiB");
            } else if used.oom_kills_above > 0 {
                reason.push_str("; processes were stopped because this worker ran out of memory");
            }
            handle.order.send_replace(Order::End);
            handle.slots.end(&reason);
            Ok(())
        }
        Err(failure) => {
            if running.observer().usage().unwrap_or_else(|| handle.usage()).oom_kills > 0 {
                group.nearly_full(handle);
            }
            Err(failure)
        }
    };
    handle.order.send_replace(Order::End);
    running.stop(if outcome.is_ok() { GRACE } else { Duration::ZERO }).await;
    // what it printed last is read before its readers end
    let drained = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_millis(50), drained).await;
    outcome
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Serves the Runtime API, the store and the logs inside the sandbox.
fn listen(
    shared: &Arc<Shared>,
    group: &Arc<Group>,
    handle: &Arc<Handle>,
    listeners: Option<(std::net::TcpListener, std::net::TcpListener)>,
    tasks: &mut JoinSet<()>,
) -> std::io::Result<Arc<Api>> {
    let function = group.function();
    let settings = ApiSettings {
        most_response_bytes: shared.settings.most_response_bytes,
        most_connections: 2 * function.max_concurrency + SPARE_CONNECTIONS,
        function_arn: function.arn.clone(),
        room: shared.room.clone(),
    };
    let api = Api::new(Arc::clone(handle.id()), Arc::clone(&handle.slots), settings);
    let Some((requests, logs)) = listeners else {
        return Err(std::io::Error::other("the shell was used before"));
    };
    let limits = StoreLimits { budget_bytes: shared.settings.store_bytes, ..StoreLimits::default() };
    let store = Arc::new(SharedStore::new(limits));
    handle.keeps(Arc::clone(&store));
    let store = router(store);
    tasks.spawn(Arc::clone(&api).serve(TcpListener::from_std(requests)?, store));
    tasks.spawn(Arc::clone(&api).serve_logs(TcpListener::from_std(logs)?));
    Ok(api)
}

/// Reads what the processes print outside of the log connections.
fn read_output(
    group: &Arc<Group>,
    handle: &Arc<Handle>,
    pace: &Arc<Pace>,
    output: Output,
    tasks: &mut JoinSet<()>,
) {
    let line = |group: Arc<Group>, handle: Arc<Handle>| {
        move |text: String| match handle.slots.log_for_line(&text) {
            Some(log) => log.add(handle.id(), text),
            None => group.entry().log.add(handle.id(), None, text),
        }
    };
    let (out, err) =
        (line(Arc::clone(group), Arc::clone(handle)), line(Arc::clone(group), Arc::clone(handle)));
    tasks.spawn(read_lines(output.stdout, Arc::clone(pace), out));
    tasks.spawn(read_lines(output.stderr, Arc::clone(pace), err));
}

/// Waits for the runtime's first `next`.
async fn initialised(
    running: &Running,
    mut state: watch::Receiver<Initialisation>,
    patience: Duration,
    handle: &Handle,
) -> Result<(), Failure> {
    let mut order = handle.order.subscribe();
    let ready = async {
        tokio::select! {
            heard = state.wait_for(|state| *state != Initialisation::Pending) => match heard.as_deref() {
                Ok(Initialisation::Failed(payload)) => Err(Failure::Init(payload.clone())),
                Ok(_) => Ok(()),
                Err(_) => Err(Failure::Sandbox("the Runtime API ended".into())),
            },
            how = running.wait() => Err(init_failure("Runtime.ExitError", &format!("Runtime exited: {how}"))),
            _ = order.wait_for(|order| *order == Order::End) => Err(Failure::Sandbox("told to end".into())),
        }
    };
    match tokio::time::timeout(patience, ready).await {
        Ok(Err(Failure::Init(payload))) if payload.is_empty() => {
            Err(init_failure("Runtime.InitError", "the runtime reported an error without saying which"))
        }
        Ok(outcome) => {
            // a runtime that ends right after its report said why
            let reported = state.borrow().clone();
            match (outcome, reported) {
                (Err(_), Initialisation::Failed(payload)) => Err(Failure::Init(payload)),
                (outcome, _) => outcome,
            }
        }
        Err(_) => {
            let message = format!("Init timed out after {:.1} seconds", patience.as_secs_f64());
            Err(init_failure("Sandbox.Timedout", &message))
        }
    }
}

/// Waits until the sandbox ends or is to end. Returns why, for invocations that are in flight.
async fn until_end(running: &Running, handle: &Handle) -> String {
    let mut order = handle.order.subscribe();
    loop {
        let now = *order.borrow_and_update();
        // from here on nothing can be handed over any more
        if now == Order::End || (now == Order::Drain && handle.slots.end_if_idle()) {
            return "the sandbox was ended".into();
        }
        tokio::select! {
            how = running.wait() => return format!("Runtime exited: {how}"),
            _ = order.changed() => {}
            // drained sandboxes are looked at until they are empty
            () = tokio::time::sleep(Duration::from_millis(20)), if now == Order::Drain => {}
        }
    }
}
