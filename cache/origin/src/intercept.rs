//! A store with something around every call: retries, counting, faults, a slow line.
//!
//! [`Origin`] has many methods and most wrappers treat them alike, so the methods are
//! forwarded once, here, and a wrapper is one function over a [`Call`].

use crate::store::{
    Abilities, ErrorKind, ObjectInfo, Origin, OriginError, Page, PageToken, PutOutcome, Result, Version,
};
use async_trait::async_trait;
use bytes::Bytes;
use image_format::names::ObjectName;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A call on a store, as an [`Interceptor`] sees it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method.
    pub operation: &'static str,
    /// Object name or prefix.
    pub object: String,
    /// Bytes that go to the store.
    pub sent: usize,
    /// Whether making the call twice is as good as making it once.
    pub repeatable: bool,
    /// The store as it describes itself.
    pub store: String,
}

impl Call {
    /// An error of this call.
    #[must_use]
    pub fn failed(&self, kind: ErrorKind, message: impl Into<String>) -> OriginError {
        OriginError {
            kind,
            operation: self.operation,
            object: self.object.clone(),
            store: self.store.clone(),
            message: message.into(),
            source: None,
        }
    }
}

/// An answer of a store.
pub trait Answer: Send {
    /// Bytes that come from the store.
    fn received(&self) -> usize {
        0
    }

    /// The bytes of an object in it, to be damaged by those who test what happens then.
    fn content(&mut self) -> Option<&mut Bytes> {
        None
    }
}

impl Answer for Bytes {
    fn received(&self) -> usize {
        self.len()
    }

    fn content(&mut self) -> Option<&mut Bytes> {
        Some(self)
    }
}

impl Answer for (Bytes, Version) {
    fn received(&self) -> usize {
        self.0.len()
    }

    fn content(&mut self) -> Option<&mut Bytes> {
        Some(&mut self.0)
    }
}

impl Answer for () {}
impl Answer for Abilities {}
impl Answer for Option<ObjectInfo> {}
impl Answer for Option<Version> {}
impl Answer for Page {}
impl Answer for PutOutcome {}

/// What a wrapper does around every call.
#[async_trait]
pub trait Interceptor: Send + Sync + fmt::Debug + 'static {
    /// Makes the call by `attempt`, any number of times.
    async fn around<A, T, F>(&self, call: &Call, attempt: A) -> Result<T>
    where
        A: Fn() -> F + Send + Sync,
        F: Future<Output = Result<T>> + Send,
        T: Answer;
}

/// A store with an [`Interceptor`] around it.
#[derive(Debug)]
pub struct Intercepted<I> {
    inner: Arc<dyn Origin>,
    interceptor: Arc<I>,
}

impl<I> Clone for Intercepted<I> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), interceptor: Arc::clone(&self.interceptor) }
    }
}

impl<I: Interceptor> Intercepted<I> {
    /// Puts `interceptor` around `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Origin>, interceptor: I) -> Self {
        Self { inner, interceptor: Arc::new(interceptor) }
    }

    /// The wrapper, to be asked or told something.
    #[must_use]
    pub fn interceptor(&self) -> &I {
        &self.interceptor
    }

    fn call(&self, operation: &'static str, object: impl ToString, sent: usize, repeatable: bool) -> Call {
        Call { operation, object: object.to_string(), sent, repeatable, store: self.inner.describe() }
    }
}

#[async_trait]
impl<I: Interceptor> Origin for Intercepted<I> {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn get(&self, name: &ObjectName, limit: usize) -> Result<Bytes> {
        let call = self.call("get", name, 0, true);
        self.interceptor.around(&call, || self.inner.get(name, limit)).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes> {
        let call = self.call("get_range", name, 0, true);
        self.interceptor.around(&call, || self.inner.get_range(name, range.clone())).await
    }

    async fn head(&self, name: &ObjectName) -> Result<Option<ObjectInfo>> {
        let call = self.call("head", name, 0, true);
        self.interceptor.around(&call, || self.inner.head(name)).await
    }

    async fn put_if_absent(&self, name: &ObjectName, data: Bytes) -> Result<PutOutcome> {
        let call = self.call("put_if_absent", name, data.len(), true);
        self.interceptor.around(&call, || self.inner.put_if_absent(name, data.clone())).await
    }

    async fn put(&self, name: &ObjectName, data: Bytes) -> Result<()> {
        let call = self.call("put", name, data.len(), true);
        self.interceptor.around(&call, || self.inner.put(name, data.clone())).await
    }

    async fn get_versioned(&self, name: &ObjectName, limit: usize) -> Result<(Bytes, Version)> {
        let call = self.call("get", name, 0, true);
        self.interceptor.around(&call, || self.inner.get_versioned(name, limit)).await
    }

    async fn compare_and_swap(
        &self,
        name: &ObjectName,
        expected: Option<&Version>,
        data: Bytes,
    ) -> Result<Option<Version>> {
        let call = self.call("compare_and_swap", name, data.len(), false);
        self.interceptor.around(&call, || self.inner.compare_and_swap(name, expected, data.clone())).await
    }

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<Page> {
        let call = self.call("list", prefix, 0, true);
        self.interceptor.around(&call, || self.inner.list(prefix, from)).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<()> {
        let call = self.call("delete", name, 0, true);
        self.interceptor.around(&call, || self.inner.delete(name)).await
    }

    async fn abilities(&self) -> Result<Abilities> {
        let call = self.call("probe", "", 0, true);
        self.interceptor.around(&call, || self.inner.abilities()).await
    }
}
