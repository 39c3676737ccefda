//! The seam to the object store of record: what Lantern asks of it, in prose and types.
//!
//! # Contract of every [`Origin`]
//! - **Atomic**: a reader sees an object whole or not at all, also when the writer dies.
//! - **Durable**: when a write has returned, the object survives a crash of the machine
//!   (directory) or has the store's own durability (S3).
//! - **Read after write**: a name that was written or deleted reads so at once.
//! - **Bounded**: nothing waits for ever; every call ends within the implementation's
//!   configured timeouts with [`ErrorKind::Unavailable`]. No call reads more than asked.
//! - **Cancel safety**: dropping a read future has no effect; dropping a write future
//!   leaves the object either written whole or absent.
//! - Bytes are returned as they came: verification is the caller's business.
//!
//! The conformance suite of this crate checks this contract for every implementation and wrapper.

use async_trait::async_trait;
use bytes::Bytes;
use image_format::names::ObjectName;
use std::fmt;
use std::ops::Range;
use std::time::SystemTime;

/// What a failed call means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// There is no such object (or bucket, or directory).
    NotFound,
    /// The request itself cannot work; repeating it is useless.
    Invalid,
    /// The object is not what it must be: longer than allowed, cut, of another type.
    Corrupt,
    /// The store does not answer now, or not in time; the same call may succeed later.
    Unavailable,
    /// No space, or a quota is used up.
    Exhausted,
    /// The credentials do not allow it.
    Denied,
    /// The store cannot do this at all (see [`Abilities`]).
    Unsupported,
    /// A fault of ours.
    Internal,
}

/// A failed call on an object or prefix.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {object} in {store}: {message}")]
pub struct OriginError {
    /// What the failure means.
    pub kind: ErrorKind,
    /// `get`, `put`, `list`, …
    pub operation: &'static str,
    /// Object name or prefix.
    pub object: String,
    /// Which store, without credentials.
    pub store: String,
    /// What happened and what to do about it.
    pub message: String,
    /// The cause, where there is one.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl OriginError {
    /// What the failure means.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the object is simply not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}

/// The result of every call.
pub type Result<T> = std::result::Result<T, OriginError>;

/// What [`Origin::put_if_absent`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is new.
    Created,
    /// An object of that name existed and was left as it was.
    Existed,
}

/// Size and age of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Length in bytes.
    pub size: u64,
    /// When it was last written, as the store tells.
    pub modified: Option<SystemTime>,
}

/// Opaque version of an object's contents, for [`Origin::compare_and_swap`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub String);

/// One object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name. Objects that are none of ours are left out of listings.
    pub name: ObjectName,
    /// Size and age.
    pub info: ObjectInfo,
}

/// One page of a listing, in ascending order of names.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// At most [`Page::MAX`] objects.
    pub objects: Vec<Listed>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<PageToken>,
}

impl Page {
    /// Most objects in one page; bounds memory.
    pub const MAX: usize = 1000;
}

/// Where a listing goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken(pub String);

/// What a store can do beyond plain reads and writes. Found by trying, not by vendor:
/// some S3 servers ignore conditions, some honour them only without contention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Several racing `put_if_absent` of one name have exactly one winner.
    pub conditional_put: bool,
    /// [`Origin::compare_and_swap`] is a true compare-and-swap.
    pub compare_and_swap: bool,
}

/// An object store. See the module's contract.
#[async_trait]
pub trait Origin: Send + Sync + fmt::Debug + 'static {
    /// The store as people name it (`s3://bucket/prefix`, `file:///dir`), without secrets.
    fn describe(&self) -> String;

    /// A whole object of at most `limit` bytes.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` if it is longer than `limit` (not read further).
    async fn get(&self, name: &ObjectName, limit: usize) -> Result<Bytes>;

    /// The bytes `range` of an object, exactly.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` if the object ends before the range does.
    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes>;

    /// Size and age, or `None` if there is no such object.
    async fn head(&self, name: &ObjectName) -> Result<Option<ObjectInfo>>;

    /// Writes an object unless one of that name exists.
    ///
    /// Only for names that determine their bytes (chunks, manifests): a store without
    /// conditional writes may overwrite an object with the same bytes again.
    async fn put_if_absent(&self, name: &ObjectName, data: Bytes) -> Result<PutOutcome>;

    /// Writes an object, replacing what has that name.
    ///
    /// # Errors
    /// `Invalid` for names that are not mutable ([`ObjectName::is_mutable`]).
    async fn put(&self, name: &ObjectName, data: Bytes) -> Result<()>;

    /// An object with the version that [`Self::compare_and_swap`] expects.
    async fn get_versioned(&self, name: &ObjectName, limit: usize) -> Result<(Bytes, Version)>;

    /// Replaces an object if its version is still `expected` (`None`: if it is absent).
    /// `Ok(None)` means that somebody else was first; read again.
    ///
    /// # Errors
    /// `Unsupported` where the store has no true compare-and-swap: then nothing is written.
    async fn compare_and_swap(
        &self,
        name: &ObjectName,
        expected: Option<&Version>,
        data: Bytes,
    ) -> Result<Option<Version>>;

    /// One page of the objects whose names begin with `prefix` (ends with `/`).
    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<Page>;

    /// Removes an object; removing what is not there succeeds.
    async fn delete(&self, name: &ObjectName) -> Result<()>;

    /// What this store can do; found by trying on first use, then remembered. Writes and
    /// removes scratch objects under `probes/`.
    async fn abilities(&self) -> Result<Abilities>;
}

/// Length of a range as a buffer size; 0 for a range that runs backwards.
pub(crate) fn range_length(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}

/// Refuses to replace objects whose names determine their bytes.
pub(crate) fn check_mutable(store: &dyn Origin, name: &ObjectName) -> Result<()> {
    if name.is_mutable() {
        return Ok(());
    }
    Err(OriginError {
        kind: ErrorKind::Invalid,
        operation: "put",
        object: name.to_string(),
        store: store.describe(),
        message: "chunks and manifests are never replaced".into(),
        source: None,
    })
}
