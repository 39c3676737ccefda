//! A cache node: keeps shard records and gives them back over HTTP/2. The operators' view of
//! the protocol is in docs/operations.md, the bytes in docs/formats.md.
//!
//! Invariants: a node holds ciphertext only and knows no key; whatever a request does, memory
//! stays bounded (connections, streams, requests under way, bytes of a body); a client that
//! stalls is cut; nobody who is not authorised reads, writes or learns anything but `/healthz`.

mod api;
mod server;
mod status;
mod store;

pub use server::{Limits, serve};
pub use status::{NodeStatus, OperationStatus, ScrubStatus};
pub use store::{Level, ShardStore};

use crate::metrics::Histogram;
use fleet::transport::Secret;
use image_format::ids::ChunkId;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// Names of bad records that a scrub remembers.
const MOST_BAD_NAMED: usize = 100;

/// What kind of request took how long.
#[derive(Debug, Default)]
struct Operations {
    get_memory: Histogram,
    get_ssd: Histogram,
    miss: Histogram,
    put: Histogram,
    /// From the last byte of the body to the answer: what a put costs the node itself.
    put_store: Histogram,
}

#[derive(Debug, Default)]
struct Counters {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    refused_unauthorised: AtomicU64,
    refused_invalid: AtomicU64,
    refused_busy: AtomicU64,
    refused_connections: AtomicU64,
    cut_connections: AtomicU64,
    connections: AtomicU64,
    errors: AtomicU64,
}

/// A running node, apart from its sockets.
#[derive(Debug)]
pub struct Node {
    name: String,
    zone: String,
    secret: Option<Secret>,
    store: ShardStore,
    limits: Limits,
    draining: AtomicBool,
    operations: Operations,
    counters: Counters,
    scrub: Mutex<ScrubStatus>,
    begun: Instant,
}

impl Node {
    /// A node over `store`. Clients must show `secret` where there is one.
    #[must_use]
    pub fn new(
        name: String,
        zone: String,
        secret: Option<Secret>,
        store: ShardStore,
        limits: Limits,
    ) -> Self {
        Self {
            name,
            zone,
            secret,
            store,
            limits,
            draining: AtomicBool::new(false),
            operations: Operations::default(),
            counters: Counters::default(),
            scrub: Mutex::default(),
            begun: Instant::now(),
        }
    }

    /// Waits until everything taken so far is on SSD.
    pub async fn settle(&self) {
        self.store.settle().await;
    }

    fn scrub_status(&self) -> MutexGuard<'_, ScrubStatus> {
        // replaced and counted whole
        self.scrub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the one place of a scrub; `false` if one is under way.
    fn begin_scrub(&self) -> bool {
        let mut status = self.scrub_status();
        let free = !status.running;
        if free {
            *status = ScrubStatus { running: true, ..ScrubStatus::default() };
        }
        free
    }

    /// Checks every stored record and forgets the bad ones. Reads at most one at a time, so
    /// that requests come first.
    async fn scrub(&self) {
        for fan in 0..=u8::MAX {
            let Ok(ids) = self.store.list(fan).await else {
                self.scrub_status().failed += 1;
                continue;
            };
            for id in ids {
                let checked = self.store.check(&id).await;
                self.note_checked(&id, &checked);
            }
            self.scrub_status().done_permille = (u64::from(fan) + 1) * 1000 / 256;
        }
        self.scrub_status().running = false;
    }

    fn note_checked(&self, id: &ChunkId, checked: &std::io::Result<Option<(u64, bool)>>) {
        let mut status = self.scrub_status();
        match checked {
            Ok(Some((bytes, good))) => {
                status.checked += 1;
                status.bytes += bytes;
                if !good {
                    tracing::warn!(chunk = %id, "a stored shard was bad and is deleted");
                    status.bad += 1;
                    if status.bad_ids.len() < MOST_BAD_NAMED {
                        status.bad_ids.push(id.to_string());
                    }
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(chunk = %id, %error, "a stored shard could not be read");
                status.failed += 1;
            }
        }
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
