//! One chunk from its stripe: all nodes are asked at once, the first shards that verify make
//! the chunk, and what the others say afterwards tells what to repair.
//!
//! Invariants: a chunk leaves only after its id was checked; a wrong shard cannot hide one
//! right stripe: with more shards than needed the combinations are tried (a bounded number)
//! until one verifies, and the shards that do not fit it are the wrong ones.

use super::{GetError, Inner};
use crate::ring::Ring;
use crate::transport::CallError;
use crate::wire::ShardRecord;
use bytes::Bytes;
use image_format::chunk::{SealedChunk, VerifiedChunk};
use image_format::ids::ChunkId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;

/// Combinations of shards that are tried for one chunk; each costs one hash of the chunk
/// (60 µs). 4-of-5 needs 5.
const MOST_COMBINATIONS: u32 = 64;

type Answer = (u16, Result<Option<Bytes>, CallError>);

/// A shard that came with a right checksum.
struct Heard {
    place: u16,
    record: ShardRecord,
}

/// A stripe being put together.
struct Stripe {
    inner: Arc<Inner>,
    ring: Arc<Ring>,
    id: ChunkId,
    calls: JoinSet<Answer>,
    shards: Vec<Heard>,
    /// Nodes that should hold a shard and do not.
    missing: Vec<u16>,
    /// Nodes whose shard is damaged or not of this chunk.
    wrong: Vec<u16>,
    failures: Vec<CallError>,
    combinations: u32,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(super) async fn get(inner: &Arc<Inner>, id: &ChunkId) -> Result<Option<VerifiedChunk>, GetError> {
    let metrics = &inner.metrics;
    let Some(ring) = inner.ring() else {
        count(&metrics.unknown);
        return Err(GetError { id: *id, reason: "the cache nodes are not known yet".into() });
    };
    let mut stripe = Stripe::ask(inner, ring, id);
    let data = usize::from(inner.settings.code.data());
    while let Some(answer) = stripe.next().await {
        stripe.hear(answer);
        if let Some(chunk) = stripe.decode() {
            count(&metrics.hits);
            stripe.hear_out(&chunk);
            return Ok(Some(chunk));
        }
        if stripe.shards.len() + stripe.calls.len() < data {
            break;
        }
    }
    // enough said that the chunk is not there, whatever those would say that failed
    let gone = stripe.missing.len() + stripe.wrong.len();
    if stripe.failures.is_empty() || gone > usize::from(inner.settings.code.parity()) {
        count(&metrics.misses);
        return Ok(None);
    }
    count(&metrics.unknown);
    Err(GetError { id: *id, reason: stripe.complaint() })
}

impl Stripe {
    fn ask(inner: &Arc<Inner>, ring: Arc<Ring>, id: &ChunkId) -> Self {
        let mut calls = JoinSet::new();
        for &place in ring.place(id) {
            let (inner, id) = (Arc::clone(inner), *id);
            let node = ring.members().nodes()[usize::from(place)].clone();
            calls.spawn(async move {
                let get = || inner.transport.get(&node, &id);
                (place, inner.call(&node, inner.settings.deadline, get).await)
            });
        }
        Self {
            inner: Arc::clone(inner),
            ring,
            id: *id,
            calls,
            shards: Vec::new(),
            missing: Vec::new(),
            wrong: Vec::new(),
            failures: Vec::new(),
            combinations: 0,
        }
    }

    async fn next(&mut self) -> Option<Answer> {
        let joined = self.calls.join_next().await?;
        Some(joined.expect("calls return errors and do not panic"))
    }

    fn hear(&mut self, (place, answer): Answer) {
        let code = self.inner.settings.code;
        match answer {
            Ok(Some(bytes)) => match ShardRecord::decode(&self.id, &bytes) {
                // stripes of another shape, from before a change of settings, are replaced
                Ok(record) if record.header.data != code.data() || record.header.parity != code.parity() => {
                    self.missing.push(place);
                }
                Ok(record) => self.shards.push(Heard { place, record }),
                Err(error) => {
                    tracing::debug!(node = self.node(place), chunk = %self.id, %error, "wrong shard");
                    self.wrong.push(place);
                }
            },
            Ok(None) => self.missing.push(place),
            Err(error) => self.failures.push(error),
        }
    }

    fn node(&self, place: u16) -> &str {
        &self.ring.members().nodes()[usize::from(place)].name
    }

    /// The chunk, if the newest shard completes a combination that verifies. The first try,
    /// which is nearly always the last, costs one copy and one hash of the chunk (0.1 ms):
    /// too short to leave the reactor for.
    fn decode(&mut self) -> Option<VerifiedChunk> {
        let data = usize::from(self.inner.settings.code.data());
        let others = self.shards.len().checked_sub(1)?;
        if others + 1 < data {
            return None;
        }
        // all choices of data - 1 among the others, as bits (Gosper's enumeration)
        let mut chosen: u32 = (1 << (data - 1)) - 1;
        while chosen < 1 << others && self.combinations < MOST_COMBINATIONS {
            self.combinations += 1;
            if let Some(chunk) = self.combine(chosen | 1 << others) {
                return Some(chunk);
            }
            if chosen == 0 {
                break;
            }
            let low = chosen & chosen.wrapping_neg();
            let ripple = chosen + low;
            chosen = (((ripple ^ chosen) >> 2) / low) | ripple;
        }
        None
    }

    fn combine(&self, chosen: u32) -> Option<VerifiedChunk> {
        let picked = || (0..self.shards.len()).filter(|&n| chosen >> n & 1 == 1).map(|n| &self.shards[n]);
        let stored_len = picked().next()?.record.header.stored_len;
        if picked().any(|shard| shard.record.header.stored_len != stored_len) {
            return None;
        }
        let code = self.inner.settings.code;
        let parts: Vec<(u8, Bytes)> =
            picked().map(|shard| (shard.record.header.index, shard.record.payload.clone())).collect();
        // two shards of one index are refused here
        let sealed = code.decode(stored_len, &parts).ok()?;
        let chunk = SealedChunk::new(sealed).verify(&self.id).ok()?;
        if parts.iter().any(|&(index, _)| index >= code.data()) {
            count(&self.inner.metrics.reconstructed);
        }
        Some(chunk)
    }

    /// Goes on without the reader: listens to the rest until the deadline and repairs.
    fn hear_out(self, chunk: &VerifiedChunk) {
        let Ok(permit) = Arc::clone(&self.inner.tails).try_acquire_owned() else {
            count(&self.inner.metrics.unheard);
            return;
        };
        let chunk = chunk.clone();
        tokio::spawn(async move {
            self.repair(&chunk).await;
            drop(permit);
        });
    }

    async fn repair(mut self, chunk: &VerifiedChunk) {
        while let Some(answer) = self.next().await {
            self.hear(answer);
        }
        let code = self.inner.settings.code;
        let sealed = chunk.sealed_bytes();
        let stored_len = u32::try_from(sealed.len()).expect("chunks are at most 4 MiB");
        let (mut have, mut needy) = (vec![false; usize::from(code.width())], Vec::new());
        for shard in &self.shards {
            let header = shard.record.header;
            let slot = &mut have[usize::from(header.index)];
            // only a combination that failed makes the shards themselves suspect
            let fits = self.combinations == 1
                || (header.stored_len == stored_len
                    && code.rebuild(stored_len, sealed, header.index) == shard.record.payload);
            if !fits {
                self.wrong.push(shard.place);
            } else if *slot {
                needy.push(shard.place);
            } else {
                *slot = true;
            }
        }
        let metrics = &self.inner.metrics;
        metrics.wrong_shards.fetch_add(self.wrong.len() as u64, Ordering::Relaxed);
        if let Some(&place) = self.wrong.first() {
            tracing::warn!(node = self.node(place), chunk = %self.id, "wrong shard replaced");
        }
        needy.extend(self.wrong.iter().chain(&self.missing));
        if needy.is_empty() {
            return;
        }
        let Ok(_permit) = self.inner.repairs.acquire().await else { return };
        let free = (0..code.width()).filter(|&index| !have[usize::from(index)]);
        for (place, index) in needy.into_iter().zip(free) {
            let node = &self.ring.members().nodes()[usize::from(place)];
            let payload = code.rebuild(stored_len, sealed, index);
            let record = self.inner.record(chunk, index, payload);
            if self.inner.put_record(node, &self.id, record).await.is_ok() {
                count(&metrics.repaired_shards);
            }
        }
    }

    /// What the nodes said, shortened.
    fn complaint(&self) -> String {
        let said: Vec<String> = self.failures.iter().take(3).map(ToString::to_string).collect();
        let (failed, asked) = (self.failures.len(), self.ring.place(&self.id).len());
        format!("{failed} of {asked} cache nodes failed: {}", said.join("; "))
    }
}
