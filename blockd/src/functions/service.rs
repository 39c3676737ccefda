//! Everything that can be asked about functions, for both doors.
//!
//! Invariants: a change is stored before it is answered and seen by the next invocation; a
//! caller reaches the functions of its own tenant only.

use super::dead_letters::DeadLetter;
use super::definition::{Definition, EventConfig, ImageConfig, STORED_VERSION};
use super::error::{ErrorCode, ServiceError};
use super::images::{ImageResolver, ResolveError, ResolvedImage};
use super::input::{
    CodeInput, ConfigurationInput, CreateFunction, EventConfigInput, check_architecture, check_tags,
    no_versions,
};
use super::name::FunctionReference;
use super::queue::{Queue, QueueStats};
use super::registry::{Entry, Registry};
use super::runner::Runner;
use super::settings::ServiceSettings;
use super::store::{Change, Store, StoreError};
use super::time::now_ms;
use bytes::Bytes;
use photon::function::FunctionKey;
use photon::invocation::{FunctionStats, Invocation, InvokeError, Invoker, LogLine, Reply};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longest payload of an event, in bytes.
pub const MAX_EVENT_BYTES: usize = 1 << 20;
/// Longest payload of a call, in bytes.
pub const MAX_CALL_BYTES: usize = 6 << 20;
/// Payloads above this are looked at away from the async threads: 10 MB/ms is what the JSON
/// check does, and a reactor may be held up for some hundredths of a millisecond.
const INLINE_BYTES: usize = 256 << 10;
/// `Timeout` where nothing is said, in seconds.
const DEFAULT_TIMEOUT: u32 = 3;
/// `EphemeralStorage.Size` where nothing is said, in MiB.
const DEFAULT_TMP_MIB: u32 = 512;

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

    /// Makes a function.
    ///
    /// # Errors
    /// [`ServiceError`] if it exists, says something that cannot be honoured, or its image is
    /// not there.
    pub async fn create(
        self: &Arc<Self>,
        caller: &Caller,
        input: CreateFunction,
    ) -> Result<Arc<Entry>, ServiceError> {
        input.check()?;
        let key = self.key(caller, &input.function_name, None)?;
        let mut definition = self.blank(caller, &key);
        definition.tags = input.tags.unwrap_or_default();
        input.configuration.apply(&mut definition)?;
        if self.registry.get(&key).is_some() {
            return Err(taken(&key.name));
        }
        let uri = input.code.image()?;
        let image = self.resolver.resolve(&caller.tenant, uri).await?;
        check_architecture(input.architectures.as_deref(), image.architecture)?;
        set_image(&mut definition, uri, image);
        let service = Arc::clone(self);
        detached(async move {
            let _turn = service.changing.lock().await;
            if service.registry.get(&definition.key()).is_some() {
                return Err(taken(&definition.name));
            }
            let most = service.settings.max_functions;
            if service.registry.page(&definition.tenant, "", most).len() >= most {
                return Err(ServiceError::new(
                    ErrorCode::CodeStorageExceeded,
                    format!("there are {most} functions, as many as a tenant may have; delete some first"),
                ));
            }
            service.store_entry(definition, None).await
        })
        .await
    }

    fn blank(&self, caller: &Caller, key: &FunctionKey) -> Definition {
        Definition {
            version: STORED_VERSION,
            tenant: key.tenant.clone(),
            name: key.name.clone(),
            account: caller.account.to_string(),
            arn: self.arn(caller, &key.name),
            role: String::new(),
            description: String::new(),
            image_uri: String::new(),
            digest: String::new(),
            image_bytes: 0,
            architecture: String::new(),
            image_config: ImageConfig::default(),
            timeout_seconds: DEFAULT_TIMEOUT,
            memory_mib: None,
            tmp_mib: DEFAULT_TMP_MIB,
            environment: BTreeMap::new(),
            declared_concurrency: None,
            dead_letter: None,
            tags: BTreeMap::new(),
            reserved_concurrency: None,
            event_config: None,
            revision: uuid::Uuid::new_v4().to_string(),
            last_modified_ms: now_ms(),
        }
    }

    async fn store_entry(
        &self,
        definition: Definition,
        before: Option<&Entry>,
    ) -> Result<Arc<Entry>, ServiceError> {
        let entry = Entry::new(definition, before)?;
        let definition = &entry.definition;
        let record =
            serde_json::to_vec(definition).map_err(|error| ServiceError::service(error.to_string()))?;
        let (tenant, name) = (definition.tenant.clone(), definition.name.clone());
        self.store.commit(vec![Change::PutFunction { tenant, name, record }]).await?;
        Ok(self.registry.put(entry))
    }

    /// Changes a function: `change` is given a copy. Where it says so, sandboxes of earlier
    /// revisions end.
    async fn change(
        self: &Arc<Self>,
        key: FunctionKey,
        expected: Option<String>,
        change: impl FnOnce(&mut Definition) -> Result<Sandboxes, ServiceError> + Send + 'static,
    ) -> Result<Arc<Entry>, ServiceError> {
        let service = Arc::clone(self);
        detached(async move {
            let _turn = service.changing.lock().await;
            let before = service.registry.get(&key);
            let before = before.ok_or_else(|| ServiceError::not_found(&key.to_string()))?;
            let mut definition = before.definition.clone();
            if expected.is_some_and(|expected| expected != definition.revision) {
                return Err(ServiceError::new(
                    ErrorCode::PreconditionFailed,
                    "The RevisionId provided does not match the latest RevisionId. Call the GetFunction API to \
                     retrieve the latest RevisionId",
                ));
            }
            let sandboxes = change(&mut definition)?;
            if sandboxes == Sandboxes::New {
                definition.revision = uuid::Uuid::new_v4().to_string();
                definition.last_modified_ms = now_ms();
            }
            let entry = service.store_entry(definition, Some(&before)).await?;
            if sandboxes == Sandboxes::New {
                service.invoker.retire(&key, Some(&entry.definition.revision)).await;
            }
            Ok(entry)
        })
        .await
    }

    /// Gives a function another image.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn update_code(
        self: &Arc<Self>,
        caller: &Caller,
        reference: &str,
        input: CodeInput,
    ) -> Result<Arc<Entry>, ServiceError> {
        no_versions(input.publish)?;
        let entry = self.get(caller, reference, None)?;
        let uri = input.image()?.to_owned();
        let image = self.resolver.resolve(&caller.tenant, &uri).await?;
        check_architecture(input.architectures.as_deref(), image.architecture)?;
        if input.dry_run == Some(true) {
            return Ok(entry);
        }
        self.change(entry.definition.key(), input.revision_id, move |definition| {
            set_image(definition, &uri, image);
            Ok(Sandboxes::New)
        })
        .await
    }

    /// Changes what a function is run with.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn update_configuration(
        self: &Arc<Self>,
        caller: &Caller,
        reference: &str,
        mut input: ConfigurationInput,
    ) -> Result<Arc<Entry>, ServiceError> {
        let key = self.get(caller, reference, None)?.definition.key();
        let expected = input.revision_id.take();
        self.change(key, expected, |definition| input.apply(definition).map(|()| Sandboxes::New)).await
    }

    /// Removes a function. Its sandboxes end once their invocations have.
    ///
    /// # Errors
    /// [`ServiceError`] if the caller has none of that name.
    pub async fn delete(
        self: &Arc<Self>,
        caller: &Caller,
        reference: &str,
        qualifier: Option<&str>,
    ) -> Result<(), ServiceError> {
        let key = self.get(caller, reference, qualifier)?.definition.key();
        let service = Arc::clone(self);
        detached(async move {
            let _turn = service.changing.lock().await;
            let (tenant, name) = (key.tenant.clone(), key.name.clone());
            service.store.commit(vec![Change::RemoveFunction { tenant, name }]).await?;
            service.registry.remove(&key);
            service.invoker.retire(&key, None).await;
            Ok(())
        })
        .await
    }

    /// Sets or lifts the limit on a function's invocations.
    ///
    /// # Errors
    /// [`ServiceError`] if the caller has none of that name.
    pub async fn set_concurrency(
        self: &Arc<Self>,
        caller: &Caller,
        reference: &str,
        most: Option<u32>,
    ) -> Result<Arc<Entry>, ServiceError> {
        let key = self.get(caller, reference, None)?.definition.key();
        self.change(key, None, move |definition| {
            definition.reserved_concurrency = most;
            Ok(Sandboxes::Kept)
        })
        .await
    }

    /// Sets what happens to a function's events; with `update`, what is not said stays.
    ///
    /// # Errors
    /// [`ServiceError`] if the caller has none of that name, or the configuration is wrong.
    pub async fn set_event_config(
        self: &Arc<Self>,
        caller: &Caller,
        (reference, qualifier): (&str, Option<&str>),
        input: EventConfigInput,
        update: bool,
    ) -> Result<Arc<Entry>, ServiceError> {
        let key = self.get(caller, reference, qualifier)?.definition.key();
        self.change(key, None, move |definition| {
            let before = definition.event_config.clone().filter(|_| update);
            definition.event_config = Some(input.check(definition, before.as_ref(), now_ms())?);
            Ok(Sandboxes::Kept)
        })
        .await
    }

    /// What happens to a function's events.
    ///
    /// # Errors
    /// [`ServiceError`] if nothing was said.
    pub fn event_config(
        &self,
        caller: &Caller,
        reference: &str,
        qualifier: Option<&str>,
    ) -> Result<(Arc<Entry>, EventConfig), ServiceError> {
        let entry = self.get(caller, reference, qualifier)?;
        let missing = || {
            let arn = &entry.definition.arn;
            ServiceError::new(
                ErrorCode::ResourceNotFound,
                format!("The function {arn} doesn't have an EventInvokeConfig"),
            )
        };
        let config = entry.definition.event_config.clone().ok_or_else(missing)?;
        Ok((entry, config))
    }

    /// Takes back what was said about a function's events.
    ///
    /// # Errors
    /// As [`Self::event_config`].
    pub async fn remove_event_config(
        self: &Arc<Self>,
        caller: &Caller,
        reference: &str,
        qualifier: Option<&str>,
    ) -> Result<(), ServiceError> {
        let (entry, _) = self.event_config(caller, reference, qualifier)?;
        let changed = self.change(entry.definition.key(), None, |definition| {
            definition.event_config = None;
            Ok(Sandboxes::Kept)
        });
        changed.await.map(drop)
    }

    /// Adds and removes tags.
    ///
    /// # Errors
    /// [`ServiceError`] if the caller has none of that name, or there are too many.
    pub async fn change_tags(
        self: &Arc<Self>,
        caller: &Caller,
        reference: &str,
        add: BTreeMap<String, String>,
        remove: Vec<String>,
    ) -> Result<(), ServiceError> {
        let key = self.get(caller, reference, None)?.definition.key();
        let changed = self.change(key, None, move |definition| {
            definition.tags.retain(|name, _| !remove.contains(name));
            definition.tags.extend(add);
            check_tags(Some(&definition.tags)).map(|()| Sandboxes::Kept)
        });
        changed.await.map(drop)
    }

    async fn check_payload(payload: Bytes) -> Result<Bytes, ServiceError> {
        let check = |payload: Bytes| {
            if payload.is_empty() {
                return Ok(Bytes::from_static(b"{}"));
            }
            serde_json::from_slice::<serde::de::IgnoredAny>(&payload).map_err(|error| {
                ServiceError::new(
                    ErrorCode::InvalidRequestContent,
                    format!("Could not parse request body into json: {error}"),
                )
            })?;
            Ok(payload)
        };
        if payload.len() <= INLINE_BYTES {
            return check(payload);
        }
        let checked = tokio::task::spawn_blocking(move || check(payload)).await;
        checked.map_err(|error| ServiceError::service(error.to_string()))?
    }

    /// Calls a function and waits for its answer. Cancel-safe as [`Invoker::invoke`] is.
    ///
    /// # Errors
    /// [`ServiceError`] where it did not run; that it failed is part of the reply.
    pub async fn call(&self, entry: &Entry, invocation: Invocation) -> Result<Reply, ServiceError> {
        let _running = entry.begin()?;
        let payload = Self::check_payload(invocation.payload).await?;
        Ok(self.invoker.invoke(Arc::clone(&entry.function), Invocation { payload, ..invocation }).await?)
    }

    /// Accepts an event for a function: on disk when this returns, run some time later.
    ///
    /// # Errors
    /// [`ServiceError`] if it is too long, no JSON, or the queue is full.
    pub async fn send(&self, entry: &Entry, invocation: Invocation) -> Result<(), ServiceError> {
        let bytes = invocation.payload.len();
        if bytes > MAX_EVENT_BYTES {
            return Err(ServiceError::new(
                ErrorCode::RequestTooLarge,
                format!(
                    "{bytes} byte payload is too large for the Event invocation type (limit {MAX_EVENT_BYTES} bytes)"
                ),
            ));
        }
        let payload = Self::check_payload(invocation.payload).await?;
        self.queue.accept(entry.definition.key(), Invocation { payload, ..invocation }).await
    }

    /// What a function's sandboxes do.
    #[must_use]
    pub fn stats(&self, entry: &Entry) -> FunctionStats {
        self.invoker.stats(&entry.function.key)
    }

    /// The newest log lines of a function, oldest first, at most `most` bytes.
    #[must_use]
    pub fn logs(&self, entry: &Entry, most: usize) -> Vec<LogLine> {
        self.invoker.logs(&entry.function.key, most)
    }

    /// Figures of the queue of events.
    #[must_use]
    pub fn queue_stats(&self) -> QueueStats {
        self.queue.stats()
    }

    /// The caller's dead letters, the oldest first, at most `most`, with their payloads.
    ///
    /// # Errors
    /// [`ServiceError`] if the store cannot be read.
    pub async fn dead_letters(
        &self,
        caller: &Caller,
        most: usize,
    ) -> Result<Vec<(DeadLetter, Bytes)>, ServiceError> {
        let mut found = Vec::new();
        for letter in self.queue.dead_letters(&caller.tenant).into_iter().take(most) {
            if let Some(payload) = self.queue.payload(letter.id).await? {
                found.push((letter, payload));
            }
        }
        Ok(found)
    }

    /// Removes the caller's dead letters with these ids; others' and unknown ones stay as
    /// they are.
    ///
    /// # Errors
    /// [`ServiceError`] if the store cannot be written.
    pub async fn remove_dead_letters(&self, caller: &Caller, ids: &[u64]) -> Result<usize, ServiceError> {
        let own = self.queue.dead_letters(&caller.tenant);
        let own: Vec<u64> = own.iter().map(|letter| letter.id).filter(|id| ids.contains(id)).collect();
        self.queue.remove_dead_letters(&own).await?;
        Ok(own.len())
    }
}

/// What a change means for the sandboxes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sandboxes {
    /// They serve on.
    Kept,
    /// New ones take their place.
    New,
}

fn taken(name: &str) -> ServiceError {
    ServiceError::new(ErrorCode::ResourceConflict, format!("Function already exist: {name}"))
}

fn set_image(definition: &mut Definition, uri: &str, image: ResolvedImage) {
    definition.image_uri = uri.into();
    definition.digest = image.digest;
    definition.image_bytes = image.size_bytes;
    definition.architecture = image.architecture.into();
}

/// Runs a change to its end even if its caller goes away, so that memory and store agree.
async fn detached<T: Send + 'static>(
    change: impl Future<Output = Result<T, ServiceError>> + Send + 'static,
) -> Result<T, ServiceError> {
    tokio::spawn(change).await.map_err(|error| ServiceError::service(error.to_string()))?
}

#[cfg(test)]
mod tests;
