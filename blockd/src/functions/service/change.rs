//! Making, changing and removing functions.
//!
//! Invariants: changes are made one after the other, stored first and then seen; one that has
//! begun is ended even if its caller goes away; images are resolved before, so that a slow
//! store holds up nobody else's change.

use super::super::definition::{Definition, EventConfig, ImageConfig, STORED_VERSION};
use super::super::error::{ErrorCode, ServiceError};
use super::super::images::ResolvedImage;
use super::super::input::{
    CodeInput, ConfigurationInput, CreateFunction, EventConfigInput, check_architecture, check_tags,
    no_versions,
};
use super::super::registry::Entry;
use super::super::store::Change;
use super::super::time::now_ms;
use super::{Caller, Service, detached};
use photon::function::FunctionKey;
use std::collections::BTreeMap;
use std::sync::Arc;

/// `Timeout` where nothing is said, in seconds.
const DEFAULT_TIMEOUT: u32 = 3;
/// `EphemeralStorage.Size` where nothing is said, in MiB.
const DEFAULT_TMP_MIB: u32 = 512;

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

impl Service {
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
        caller: Caller,
        key: FunctionKey,
        expected: Option<String>,
        change: impl FnOnce(&mut Definition) -> Result<Sandboxes, ServiceError> + Send + 'static,
    ) -> Result<Arc<Entry>, ServiceError> {
        let service = Arc::clone(self);
        detached(async move {
            let _turn = service.changing.lock().await;
            let before = service.registry.get(&key);
            let before = before.ok_or_else(|| ServiceError::not_found(&service.arn(&caller, &key.name)))?;
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
        self.change(caller.clone(), entry.definition.key(), input.revision_id, move |definition| {
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
        self.change(caller.clone(), key, expected, |definition| {
            input.apply(definition).map(|()| Sandboxes::New)
        })
        .await
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
        self.change(caller.clone(), key, None, move |definition| {
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
        self.change(caller.clone(), key, None, move |definition| {
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
        let changed = self.change(caller.clone(), entry.definition.key(), None, |definition| {
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
        let changed = self.change(caller.clone(), key, None, move |definition| {
            definition.tags.retain(|name, _| !remove.contains(name));
            definition.tags.extend(add);
            check_tags(Some(&definition.tags)).map(|()| Sandboxes::Kept)
        });
        changed.await.map(drop)
    }
}
