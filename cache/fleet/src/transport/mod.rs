//! The seam between the fleet's client and its nodes: HTTP/2 in earnest, memory in tests.
//!
//! # Contract of every [`Transport`]
//! - One call is one attempt: nothing is repeated inside, except that a call on a connection
//!   that turns out to be closed fails with [`CallKind::Stale`], which the caller may repeat.
//! - Bytes are returned as they came, at most [`crate::wire::MAX_RECORD_LEN`] of them.
//! - The caller sets the deadline and drops the future; every future may be dropped.

mod http;
mod memory;
mod tls;

pub use http::{HttpTransport, Secret, TransportSettings};
pub use memory::{MemoryTransport, NodeFaults};
pub use tls::{TlsError, TlsFiles, client_config, server_config};

use crate::members::{Members, Node};
use async_trait::async_trait;
use bytes::Bytes;
use image_format::ids::ChunkId;
use std::fmt;

/// What a failed call says about the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// The connection was closed before the call was answered; the node may be well.
    Stale,
    /// No connection, or it broke.
    Unreachable,
    /// Nothing by the deadline.
    Late,
    /// The node is over a limit of its own.
    Busy,
    /// The node does not accept us or the request.
    Refused,
    /// The answer is none.
    Protocol,
}

/// A failed call.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cache node {node}: {message}")]
pub struct CallError {
    /// What it says about the node.
    pub kind: CallKind,
    /// Which node.
    pub node: String,
    /// What happened, and what to do.
    pub message: String,
}

/// Calls to cache nodes. See the module's contract.
#[async_trait]
pub trait Transport: Send + Sync + fmt::Debug + 'static {
    /// The record that the node holds for a chunk, if any.
    async fn get(&self, node: &Node, id: &ChunkId) -> Result<Option<Bytes>, CallError>;

    /// Gives the node a record, header and payload apart so that nothing is copied.
    async fn put(&self, node: &Node, id: &ChunkId, record: [Bytes; 2]) -> Result<(), CallError>;

    /// Has the node forget a chunk.
    async fn remove(&self, node: &Node, id: &ChunkId) -> Result<(), CallError>;

    /// Tells which nodes are left, so that connections to others end.
    fn retain(&self, _members: &Members) {}
}
