//! The functions that exist, in memory: what the way of an invocation reads.
//!
//! Invariant: an entry is what the store has; it is replaced after the store was written.

use super::definition::Definition;
use super::error::ServiceError;
use super::store::{Contents, StoreError};
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
    /// As sandboxes need it.
    pub function: Arc<Function>,
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
        let function = Arc::new(definition.function()?);
        let in_flight = before.map(|before| Arc::clone(&before.in_flight)).unwrap_or_default();
        Ok(Self { definition, function, in_flight })
    }

    /// Begins an invocation.
    ///
    /// # Errors
    /// [`ServiceError`] at once if the function's reserved concurrency is used up.
    pub fn begin(&self) -> Result<Running, ServiceError> {
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        let running = Running(Arc::clone(&self.in_flight));
        match self.function.reserved_concurrency {
            Some(most) if before >= most => Err(ServiceError::throttled(
                "ReservedFunctionConcurrentInvocationLimitExceeded",
                format!("Rate Exceeded: {} has a reserved concurrency of {most}", self.definition.name),
            )),
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
    /// [`StoreError::Damaged`] names the first that cannot be read.
    pub fn load(contents: &Contents, path: &Path) -> Result<Self, StoreError> {
        let mut entries = BTreeMap::new();
        for ((tenant, name), record) in &contents.functions {
            let damaged = |reason: String| StoreError::Damaged {
                path: path.to_path_buf(),
                table: "functions",
                key: format!("{tenant}/{name}"),
                reason,
            };
            let definition: Definition =
                serde_json::from_slice(record).map_err(|error| damaged(error.to_string()))?;
            if (&definition.tenant, &definition.name) != (tenant, name) {
                return Err(damaged("it is another function's".into()));
            }
            let entry = Entry::new(definition, None).map_err(|error| damaged(error.message))?;
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
}
