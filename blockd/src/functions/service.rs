//! Everything that can be asked about functions, for both doors.
//!
//! Invariants: a change is stored before it is answered and seen by the next invocation; a
//! caller reaches the functions of its own tenant only.

mod change;
mod invoke;

use super::error::{ErrorCode, ServiceError};
use super::images::{ImageResolver, ResolveError};
use super::name::FunctionReference;
use super::queue::Queue;
use super::registry::{Entry, Registry};
use super::runner::Runner;
use super::settings::ServiceSettings;
use super::store::{Store, StoreError};
use photon::function::FunctionKey;
use photon::invocation::{InvokeError, Invoker};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longest payload of an event, in bytes.
pub const MAX_EVENT_BYTES: usize = 1 << 20;
/// Longest payload of a call, in bytes.
pub const MAX_CALL_BYTES: usize = 6 << 20;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whose functions.
    pub tenant: Arc<str>,
    /// The account in its ARNs.
    pub account: Arc<str>,
}

/// The functions of a worker.
pub struct Service {
    settings: ServiceSettings,
    store: Arc<Store>,
    registry: Arc<Registry>,
    queue: Arc<Queue>,
    invoker: Arc<dyn Invoker>,
    resolver: Arc<dyn ImageResolver>,
    /// Changes one after the other: each reads, stores and replaces an entry.
    changing: tokio::sync::Mutex<()>,
    stop: watch::Sender<bool>,
    runner: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Service({})", self.settings.file.display())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let runner = self.runner.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runner) = runner {
            runner.abort();
        }
    }
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        Self::service(error.to_string())
    }
}

impl From<InvokeError> for ServiceError {
    fn from(error: InvokeError) -> Self {
        let code = match &error {
            InvokeError::Throttled { reason } => {
                return Self::throttled(
                    "ConcurrentInvocationLimitExceeded",
                    format!("Rate Exceeded: {reason}"),
                );
            }
            InvokeError::Image { .. } => ErrorCode::InvalidImage,
            InvokeError::Sandbox { .. } => ErrorCode::Service,
            InvokeError::ShuttingDown => ErrorCode::ServiceUnavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ResolveError> for ServiceError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Refused(why) => Self::invalid(why),
            ResolveError::Unavailable(why) => {
                Self::service(format!("the image store does not answer: {why}"))
            }
        }
    }
}

impl Service {
    /// Opens the store, and goes on with the events that were in it.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be used.
    pub async fn open(
        settings: ServiceSettings,
        invoker: Arc<dyn Invoker>,
        resolver: Arc<dyn ImageResolver>,
    ) -> Result<Arc<Self>, StoreError> {
        let file = settings.file.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&file)).await;
        let (store, contents) = opened.map_err(|error| StoreError::Failed(error.to_string()))??;
        let store = Arc::new(store);
        let registry = Arc::new(Registry::load(&contents, &settings.file)?);
        let events = settings.events.clone();
        let queue = Queue::load(Arc::clone(&store), &contents, &settings.file, events.clone())?;
        let queue = Arc::new(queue);
        let runner = Arc::new(Runner {
            queue: Arc::clone(&queue),
            registry: Arc::clone(&registry),
            invoker: Arc::clone(&invoker),
            settings: events,
        });
        let (stop, stopped) = watch::channel(false);
        let runner = Mutex::new(Some(tokio::spawn(runner.run(stopped))));
        let changing = tokio::sync::Mutex::default();
        Ok(Arc::new(Self { settings, store, registry, queue, invoker, resolver, changing, stop, runner }))
    }

    /// Stops running events and waits for those under way: shut the invoker down first, or
    /// wait as long as functions may take.
    pub async fn close(&self) {
        self.stop.send_replace(true);
        let runner = self.runner.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runner) = runner {
            let _ = runner.await;
        }
    }

    /// The limits in force.
    #[must_use]
    pub const fn settings(&self) -> &ServiceSettings {
        &self.settings
    }

    /// The ARN of a name of the caller's.
    #[must_use]
    pub fn arn(&self, caller: &Caller, name: &str) -> String {
        format!("arn:aws:lambda:{}:{}:function:{name}", self.settings.region, caller.account)
    }

    fn key(
        &self,
        caller: &Caller,
        reference: &str,
        qualifier: Option<&str>,
    ) -> Result<FunctionKey, ServiceError> {
        let reference: FunctionReference = reference.parse()?;
        reference.check(qualifier, &caller.account, Some(&self.settings.region))?;
        Ok(FunctionKey { tenant: caller.tenant.to_string(), name: reference.name })
    }

    /// The function that a request means.
    ///
    /// # Errors
    /// [`ServiceError`] if the caller has none of that name.
    pub fn get(
        &self,
        caller: &Caller,
        reference: &str,
        qualifier: Option<&str>,
    ) -> Result<Arc<Entry>, ServiceError> {
        let key = self.key(caller, reference, qualifier)?;
        self.registry.get(&key).ok_or_else(|| ServiceError::not_found(&self.arn(caller, &key.name)))
    }

    /// At most `most` of the caller's functions, in the order of their names, after `after`;
    /// and whether there are more.
    #[must_use]
    pub fn list(&self, caller: &Caller, after: &str, most: usize) -> (Vec<Arc<Entry>>, bool) {
        let mut page = self.registry.page(&caller.tenant, after, most.saturating_add(1));
        let more = page.len() > most;
        page.truncate(most);
        (page, more)
    }

    /// Functions of the caller, and the bytes of their images.
    #[must_use]
    pub fn usage(&self, caller: &Caller) -> (usize, u64) {
        self.registry.usage(&caller.tenant)
    }
}

/// Runs a change to its end even if its caller goes away, so that memory and store agree.
async fn detached<T: Send + 'static>(
    change: impl Future<Output = Result<T, ServiceError>> + Send + 'static,
) -> Result<T, ServiceError> {
    tokio::spawn(change).await.map_err(|error| ServiceError::service(error.to_string()))?
}

#[cfg(test)]
mod tests;
