//! The functions that exist, in memory: what the way of an invocation reads.
//!
//! Invariant: an entry is what the store has; it is replaced after the store was written.

use super::definition::{Definition, STORED_VERSION};
use super::error::ServiceError;
use super::store::{Contents, StoreError, check_version};
use photon::function::{Function, FunctionKey};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// A function that exists.
#[derive(Debug)]
pub struct Entry {
    /// As its owner defined it.
    pub definition: Definition,
    function: Result<Arc<Function>, ServiceError>,
    in_flight: Arc<AtomicUsize>,
}

/// An invocation under way, for the limit of its function; ends when dropped.
#[derive(Debug)]
pub struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Entry {
    /// The entry of a definition; invocations under way are counted on from `before`.
    ///
    /// # Errors
    /// [`ServiceError`] if the definition says nonsense.
    pub fn new(definition: Definition, before: Option<&Self>) -> Result<Self, ServiceError> {
        let function = Ok(Arc::new(definition.function()?));
        let in_flight = before.map(|before| Arc::clone(&before.in_flight)).unwrap_or_default();
        Ok(Self { definition, function, in_flight })
    }

    /// The entry of a definition that was stored. One that an earlier version accepted and this
    /// one does not is there to be seen, changed and removed, but not to be run.
    fn stored(definition: Definition) -> Self {
        let function = definition.function().map(Arc::new).map_err(|error| {
            let name = &definition.name;
            tracing::error!(function = %definition.key(), %error, "a stored function cannot be run");
            ServiceError::invalid(format!(
                "{name} cannot be run by this version of Lantern as it is defined: {error}; change its \
                 configuration, or make it anew"
            ))
        });
        Self { definition, function, in_flight: Arc::default() }
    }

    /// As sandboxes need it.
    ///
    /// # Errors
    /// [`ServiceError`] if an earlier version stored what this one cannot run.
    pub fn function(&self) -> Result<Arc<Function>, ServiceError> {
        self.function.clone()
    }

    /// Begins an invocation.
    ///
    /// # Errors
    /// [`ServiceError`] at once if the function's reserved concurrency is used up.
    pub fn begin(&self) -> Result<Running, ServiceError> {
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        let running = Running(Arc::clone(&self.in_flight));
        match self.definition.reserved_concurrency {
            Some(most) if u32::try_from(before).is_ok_and(|before| before >= most) => {
                Err(ServiceError::throttled(
                    "ReservedFunctionConcurrentInvocationLimitExceeded",
                    format!("Rate Exceeded: {} has a reserved concurrency of {most}", self.definition.name),
                ))
            }
            _ => Ok(running),
        }
    }
}

/// All functions.
#[derive(Debug, Default)]
pub struct Registry {
    entries: RwLock<BTreeMap<FunctionKey, Arc<Entry>>>,
}

impl Registry {
    /// The functions of a store.
    ///
    /// # Errors
    /// [`StoreError`] names the first that cannot be read.
    pub fn load(contents: &Contents, path: &Path) -> Result<Self, StoreError> {
        let mut entries = BTreeMap::new();
        for ((tenant, name), record) in &contents.functions {
            let damaged = |reason: String| StoreError::Damaged {
                path: path.to_path_buf(),
                table: "functions",
                key: format!("{tenant}/{name}"),
                reason,
            };
            check_version(record, STORED_VERSION, (path, "functions", &format!("{tenant}/{name}")))?;
            let definition: Definition =
                serde_json::from_slice(record).map_err(|error| damaged(error.to_string()))?;
            if (&definition.tenant, &definition.name) != (tenant, name) {
                return Err(damaged("it is another function's".into()));
            }
            let entry = Entry::stored(definition);
            entries.insert(entry.definition.key(), Arc::new(entry));
        }
        Ok(Self { entries: RwLock::new(entries) })
    }

    /// The function, if there is one.
    #[must_use]
    pub fn get(&self, key: &FunctionKey) -> Option<Arc<Entry>> {
        // entries are replaced whole, so a panic elsewhere leaves the map sound
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// All functions of all tenants.
    #[must_use]
    pub fn all(&self) -> Vec<FunctionKey> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Makes or replaces one.
    pub fn put(&self, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(entry.definition.key(), Arc::clone(&entry));
        entry
    }

    /// Removes one.
    pub fn remove(&self, key: &FunctionKey) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// A tenant's functions in the order of their names: at most `most`, from the first name
    /// after `after`.
    #[must_use]
    pub fn page(&self, tenant: &str, after: &str, most: usize) -> Vec<Arc<Entry>> {
        let start = FunctionKey { tenant: tenant.into(), name: after.into() };
        let from = (std::ops::Bound::Excluded(start), std::ops::Bound::Unbounded);
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let of_tenant = entries.range(from).take_while(|(key, _)| key.tenant == tenant);
        of_tenant.take(most).map(|(_, entry)| Arc::clone(entry)).collect()
    }

    /// How many functions a tenant has, and the bytes of their images.
    #[must_use]
    pub fn usage(&self, tenant: &str) -> (usize, u64) {
        let all = self.page(tenant, "", usize::MAX);
        (all.len(), all.iter().map(|entry| entry.definition.image_bytes).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::definition::tests::plain;

    #[test]
    fn pages_are_of_one_tenant_and_in_order() {
        let registry = Registry::default();
        for (tenant, name) in [("b", "1"), ("a", "2"), ("a", "1"), ("a", "3"), ("c", "9")] {
            registry.put(Entry::new(plain(tenant, name), None).unwrap());
        }
        let names = |after: &str, most| {
            let page = registry.page("a", after, most);
            page.iter().map(|entry| entry.definition.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names("", 2), ["1", "2"]);
        assert_eq!(names("2", 2), ["3"]);
        assert_eq!(names("3", 2), Vec::<String>::new());
        assert_eq!(registry.usage("a"), (3, 21));
    }

    #[test]
    fn reserved_concurrency_counts_over_replacements() {
        let mut definition = plain("a", "f");
        definition.reserved_concurrency = Some(2);
        let first = Entry::new(definition.clone(), None).unwrap();
        let (one, _two) = (first.begin().unwrap(), first.begin().unwrap());
        let second = Entry::new(definition, Some(&first)).unwrap();
        assert!(second.begin().is_err());
        assert!(second.begin().is_err(), "a refusal leaves nothing behind");
        drop(one);
        assert!(second.begin().is_ok());
    }

    fn load(definitions: &[serde_json::Value]) -> Result<Registry, StoreError> {
        let key = |definition: &serde_json::Value| {
            let text = |field: &str| definition[field].as_str().unwrap().to_owned();
            (text("tenant"), text("name"))
        };
        let functions = definitions.iter().map(|definition| (key(definition), definition.to_string().into()));
        let contents = Contents { functions: functions.collect(), ..Contents::default() };
        Registry::load(&contents, Path::new("/state/functions.redb"))
    }

    #[test]
    fn what_is_no_longer_accepted_harms_nobody_else() {
        let mut old = plain("a", "old");
        old.environment.insert("LANTERN_RUNTIME".into(), "cobol".into());
        let (old, fine) =
            (serde_json::to_value(&old).unwrap(), serde_json::to_value(plain("a", "f")).unwrap());
        let registry = load(&[old, fine]).unwrap();
        let get = |name: &str| registry.get(&FunctionKey { tenant: "a".into(), name: name.into() }).unwrap();
        assert!(get("f").function().is_ok());
        let error = get("old").function().unwrap_err();
        assert!(error.message.contains("old cannot") && error.message.contains("cobol"), "{error}");
        let mut definition = get("old").definition.clone();
        assert!(Entry::new(definition.clone(), None).is_err());
        definition.environment.clear();
        registry.put(Entry::new(definition, Some(&get("old"))).unwrap());
        assert!(get("old").function().is_ok(), "its owner can put it right");
    }

    #[test]
    fn later_versions_are_refused_by_name() {
        let mut later = serde_json::to_value(plain("a", "later")).unwrap();
        later["version"] = (STORED_VERSION + 1).into();
        later["timeout_seconds"] = "another type".into();
        let error = load(&[later]).unwrap_err().to_string();
        assert!(
            error.contains("a/later") && error.contains("format 2") && error.contains("use that"),
            "{error}"
        );
    }
}
