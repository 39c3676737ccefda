//! A store in memory: the double for tests, and the reference that others are compared to.

use crate::store::{
    Abilities, ErrorKind, Listed, ObjectInfo, Origin, OriginError, Page, PageToken, PutOutcome, Result,
    Version,
};
use async_trait::async_trait;
use bytes::Bytes;
use image_format::names::ObjectName;
use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A store in memory. Clones share their objects.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<BTreeMap<String, (Bytes, u64)>>>);

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Names of all objects, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.objects().keys().cloned().collect()
    }

    /// Puts bytes where an object is or could be, without any check: for tests of damage.
    pub fn overwrite(&self, name: &ObjectName, data: impl Into<Bytes>) {
        self.insert(name, data.into());
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, (Bytes, u64)>> {
        // a panic elsewhere cannot leave the map half changed
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, name: &ObjectName, data: Bytes) -> Version {
        let mut objects = self.objects();
        let entry = objects.entry(name.to_string()).or_default();
        *entry = (data, entry.1 + 1);
        Version(entry.1.to_string())
    }

    fn find(&self, operation: &'static str, name: &ObjectName) -> Result<(Bytes, u64)> {
        let found = self.objects().get(&name.to_string()).cloned();
        found.ok_or_else(|| self.failed(ErrorKind::NotFound, operation, name, "there is no such object"))
    }

    fn failed(
        &self,
        kind: ErrorKind,
        operation: &'static str,
        name: &ObjectName,
        message: &str,
    ) -> OriginError {
        OriginError {
            kind,
            operation,
            object: name.to_string(),
            store: self.describe(),
            message: message.into(),
            source: None,
        }
    }
}

#[async_trait]
impl Origin for MemoryStore {
    fn describe(&self) -> String {
        "memory:".into()
    }

    async fn get(&self, name: &ObjectName, limit: usize) -> Result<Bytes> {
        self.get_versioned(name, limit).await.map(|(data, _)| data)
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes> {
        let (data, _) = self.find("get_range", name)?;
        if range.end > data.len() as u64 || range.start > range.end {
            return Err(self.failed(ErrorKind::Corrupt, "get_range", name, "the object ends too early"));
        }
        let start = usize::try_from(range.start).expect("below the object's length");
        Ok(data.slice(start..start + crate::store::range_length(&range)))
    }

    async fn head(&self, name: &ObjectName) -> Result<Option<ObjectInfo>> {
        let objects = self.objects();
        let found = objects.get(&name.to_string());
        Ok(found.map(|(data, _)| ObjectInfo { size: data.len() as u64, modified: None }))
    }

    async fn put_if_absent(&self, name: &ObjectName, data: Bytes) -> Result<PutOutcome> {
        let mut objects = self.objects();
        if objects.contains_key(&name.to_string()) {
            return Ok(PutOutcome::Existed);
        }
        objects.insert(name.to_string(), (data, 1));
        Ok(PutOutcome::Created)
    }

    async fn put(&self, name: &ObjectName, data: Bytes) -> Result<()> {
        crate::store::check_mutable(self, name)?;
        self.insert(name, data);
        Ok(())
    }

    async fn get_versioned(&self, name: &ObjectName, limit: usize) -> Result<(Bytes, Version)> {
        let (data, version) = self.find("get", name)?;
        if data.len() > limit {
            return Err(self.failed(ErrorKind::Corrupt, "get", name, "the object is longer than possible"));
        }
        Ok((data, Version(version.to_string())))
    }

    async fn compare_and_swap(
        &self,
        name: &ObjectName,
        expected: Option<&Version>,
        data: Bytes,
    ) -> Result<Option<Version>> {
        let mut objects = self.objects();
        let current = objects.get(&name.to_string()).map(|&(_, version)| version);
        if current.map(|version| Version(version.to_string())).as_ref() != expected {
            return Ok(None);
        }
        let version = current.unwrap_or(0) + 1;
        objects.insert(name.to_string(), (data, version));
        Ok(Some(Version(version.to_string())))
    }

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<Page> {
        let objects = self.objects();
        let start = from.map_or(Bound::Included(prefix), |token| Bound::Excluded(token.0.as_str()));
        let mut page = Page::default();
        for (name, (data, _)) in objects.range::<str, _>((start, Bound::Unbounded)) {
            let Ok(object) = name.parse::<ObjectName>() else { continue };
            if !name.starts_with(prefix) {
                break;
            }
            if page.objects.len() == Page::MAX {
                page.next = page.objects.last().map(|last| PageToken(last.name.to_string()));
                break;
            }
            let info = ObjectInfo { size: data.len() as u64, modified: None };
            page.objects.push(Listed { name: object, info });
        }
        Ok(page)
    }

    async fn delete(&self, name: &ObjectName) -> Result<()> {
        self.objects().remove(&name.to_string());
        Ok(())
    }

    async fn abilities(&self) -> Result<Abilities> {
        Ok(Abilities { conditional_put: true, compare_and_swap: true })
    }
}
