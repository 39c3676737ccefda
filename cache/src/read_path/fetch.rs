//! One chunk through the tiers: the flight and what happens in it.

use super::{Cause, Demanded, Flight, Inner, Landing, ReadError, Wanted};
use crate::metrics::Source;
use crate::tier::ChunkTier;
use image_format::chunk::{PlainChunk, SealedChunk, VerifiedChunk};
use image_format::ids::{ChunkId, RootId};
use image_format::names::ObjectName;
use image_format::seal::{OpenError, Opener};
use image_format::units::ChunkSize;
use origin::store::ErrorKind;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{SemaphorePermit, watch};
use tokio::time::Instant;

/// Waits between attempts at an origin that does not answer: from the first, doubling, to
/// the last. Bounded by the chunk deadline, not by a count.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// A flight whose turn at the origin comes when less than this part of its deadline is left
/// does not ask any more: under overload the answers would all come too late, and the turns
/// that they take would make others late.
const LEAST_SHARE: u32 = 20;

/// Fetches of one chunk whose bytes came wrong from the origin before that is final: a
/// flipped bit on the way is cured by asking again, a damaged object is not.
const WRONG_BYTES_LIMIT: u32 = 2;

/// What a flight carries: everything to fetch and open one chunk.
pub(super) struct Cargo {
    pub(super) wanted: Wanted,
    pub(super) root: RootId,
    pub(super) chunk_size: ChunkSize,
    /// Called once with the source and the stored length when the chunk is usable.
    pub(super) landed: Box<dyn Fn(Source, u32) + Send + Sync>,
    /// Set when the image has no readers any more: prefetch that waits for a turn ends.
    pub(super) closed: Arc<AtomicBool>,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Verifies and opens on the calling thread. 0.1 to 0.5 ms of hashing, decrypting and
/// inflating for a whole chunk: callers are on a blocking thread.
fn verify_and_open(
    sealed: SealedChunk,
    wanted: &Wanted,
    chunk_size: ChunkSize,
) -> Result<(VerifiedChunk, PlainChunk), Wrong> {
    thread_local! {
        static OPENER: RefCell<Opener> = RefCell::new(Opener::new());
    }
    let verified = sealed.verify(&wanted.id).map_err(|_| Wrong::Bytes)?;
    let plain = OPENER
        .with_borrow_mut(|opener| opener.open(verified.clone(), &wanted.key, wanted.codec, chunk_size))
        .map_err(Wrong::Manifest)?;
    Ok((verified, plain))
}

impl Demanded {
    fn raise(&self) {
        self.raised.store(true, Ordering::Relaxed);
        self.told.notify_one();
    }
}

/// Why fetched bytes cannot be used.
enum Wrong {
    /// This copy is corrupt; another may be right.
    Bytes,
    /// The chunk is right and the manifest is not; no other copy helps.
    Manifest(OpenError),
}

impl Inner {
    fn flights(&self) -> MutexGuard<'_, std::collections::HashMap<ChunkId, Flight>> {
        // entries are inserted and removed whole
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the flight of a chunk or starts it. The returned channel ends with the landing.
    pub(super) fn join(self: &Arc<Self>, cargo: Cargo, cause: Cause) -> watch::Receiver<Landing> {
        let mut flights = self.flights();
        let wanted = &cargo.wanted;
        if let Some(flight) = flights.get(&wanted.id)
            && flight.key == wanted.key
            && flight.codec == wanted.codec
        {
            count(&self.metrics.joined);
            if cause == Cause::Demand {
                flight.demanded.raise();
            }
            return flight.landing.clone();
        }
        let (lander, landing) = watch::channel(None);
        let demanded = Arc::new(Demanded::default());
        if cause == Cause::Demand {
            demanded.raise();
        }
        let id = wanted.id;
        let flight = Flight {
            key: wanted.key.clone(),
            codec: wanted.codec,
            landing: landing.clone(),
            demanded: Arc::clone(&demanded),
        };
        flights.insert(id, flight);
        drop(flights);
        if cause == Cause::Prefetch {
            count(&self.metrics.prefetched);
        }
        let inner = Arc::clone(self);
        self.runtime.spawn(async move {
            let outcome = inner.fly(&cargo, cause, &demanded).await;
            if outcome.is_err() {
                count(&inner.metrics.failed_reads);
            }
            // memory holds the chunk before the flight is forgotten, so no reader in
            // between starts another; a flight of the same id under another key stays
            let mut flights = inner.flights();
            if flights.get(&id).is_some_and(|flight| flight.landing.same_channel(&lander.subscribe())) {
                flights.remove(&id);
            }
            drop(flights);
            lander.send_replace(Some(outcome));
        });
        landing
    }

    async fn fly(
        self: &Arc<Self>,
        cargo: &Cargo,
        cause: Cause,
        demanded: &Demanded,
    ) -> Result<PlainChunk, ReadError> {
        let asked = Instant::now();
        let wanted = &cargo.wanted;
        let mut said = Vec::new();
        for (position, tier) in self.tiers.iter().enumerate() {
            let source = Source::of_tier(tier.name());
            match self.ask_tier(&**tier, source, cargo).await {
                Ok(Some((verified, plain))) => {
                    self.land(source, asked, cargo, &plain);
                    self.fill_back(&self.tiers[..position], &verified);
                    return Ok(plain);
                }
                Ok(None) => {}
                Err(TierFailed::Manifest(error)) => return Err(open_error(wanted, &error)),
                Err(TierFailed::Ill(reason)) => said.push(reason),
            }
        }
        let (verified, plain) = self.ask_origin(cargo, cause, demanded, said).await?;
        self.land(Source::Origin, asked, cargo, &plain);
        self.fill_back(&self.tiers, &verified);
        Ok(plain)
    }

    /// Makes a chunk available to all readers and counts it.
    fn land(&self, source: Source, asked: Instant, cargo: &Cargo, plain: &PlainChunk) {
        let wanted = &cargo.wanted;
        let metrics = self.metrics.source(source);
        count(&metrics.hits);
        metrics.bytes.fetch_add(u64::from(wanted.stored_len), Ordering::Relaxed);
        metrics.latency.record(asked.elapsed());
        self.memory.insert(wanted.id, wanted.key.clone(), wanted.codec, plain.clone());
        (cargo.landed)(source, wanted.stored_len);
    }

    async fn ask_tier(
        &self,
        tier: &dyn ChunkTier,
        source: Source,
        cargo: &Cargo,
    ) -> Result<Option<(VerifiedChunk, PlainChunk)>, TierFailed> {
        let metrics = self.metrics.source(source);
        let sealed = match tier.get(&cargo.wanted.id).await {
            Ok(Some(sealed)) => sealed,
            Ok(None) => {
                count(&metrics.misses);
                return Ok(None);
            }
            Err(error) => {
                count(&metrics.errors);
                // an outage would say it for every chunk; the counters tell
                tracing::debug!(%error, "tier failed; going on to the next");
                return Err(TierFailed::Ill(error.to_string()));
            }
        };
        match open_off_reactor(sealed, cargo).await {
            Ok(opened) => Ok(Some(opened)),
            Err(Wrong::Manifest(error)) => Err(TierFailed::Manifest(error)),
            Err(Wrong::Bytes) => {
                count(&metrics.corrupt);
                tracing::warn!(tier = tier.name(), chunk = %cargo.wanted.id, "corrupt copy dropped");
                if let Err(error) = tier.remove(&cargo.wanted.id).await {
                    tracing::warn!(%error, "corrupt copy could not be removed");
                }
                Err(TierFailed::Ill(format!("{} held a corrupt copy, now dropped", tier.name())))
            }
        }
    }

    /// Asks the origin until the deadline: an origin that does not answer is asked again,
    /// so that reads recover with it.
    async fn ask_origin(
        &self,
        cargo: &Cargo,
        cause: Cause,
        demanded: &Demanded,
        mut said: Vec<String>,
    ) -> Result<(VerifiedChunk, PlainChunk), ReadError> {
        let wanted = &cargo.wanted;
        let metrics = self.metrics.source(Source::Origin);
        let deadline = Duration::from_millis(self.settings.chunk_deadline_ms);
        let end = Instant::now() + deadline;
        let name = ObjectName::chunk(&cargo.root, wanted.id);
        let (mut pause, mut wrong) = (FIRST_PAUSE, 0);
        let late = |said: &[String]| {
            let why = if said.is_empty() { "the origin did not answer".into() } else { said.join("; ") };
            failed(wanted, ErrorKind::Unavailable, &format!("nothing within {deadline:?}: {why}"))
        };
        let Ok(_permits) = tokio::time::timeout_at(end, self.origin_turn(cause, demanded)).await else {
            return Err(late(&said));
        };
        // asked with hardly any time left the store would work for nothing
        if end.saturating_duration_since(Instant::now()) < deadline / LEAST_SHARE {
            return Err(late(&said));
        }
        if cargo.closed.load(Ordering::Relaxed) && self.give_up(&wanted.id, demanded) {
            return Err(failed(wanted, ErrorKind::Unavailable, "the image was closed"));
        }
        loop {
            let got = tokio::time::timeout_at(end, self.origin.get(&name, wanted.stored_len as usize)).await;
            let kind = match got {
                Err(_) => return Err(late(&said)),
                Ok(Ok(bytes)) => match open_off_reactor(SealedChunk::new(bytes), cargo).await {
                    Ok(opened) => return Ok(opened),
                    Err(Wrong::Manifest(error)) => return Err(open_error(wanted, &error)),
                    Err(Wrong::Bytes) => {
                        said.push("the origin gave wrong bytes".into());
                        ErrorKind::Corrupt
                    }
                },
                Ok(Err(error)) => {
                    said.push(chain(&error));
                    error.kind()
                }
            };
            count(if kind == ErrorKind::Corrupt { &metrics.corrupt } else { &metrics.errors });
            wrong += u32::from(kind == ErrorKind::Corrupt);
            let again =
                kind == ErrorKind::Unavailable || (kind == ErrorKind::Corrupt && wrong < WRONG_BYTES_LIMIT);
            if !again {
                let advice = "check the image with `flattener verify` and push it again";
                return Err(failed(wanted, kind, &format!("{}; {advice}", said.join("; "))));
            }
            said = said.split_off(said.len().saturating_sub(3));
            if tokio::time::timeout_at(end, tokio::time::sleep(pause)).await.is_err() {
                return Err(late(&said));
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Ends a flight that nobody waits for; `false` if somebody does. Nobody can join it in
    /// between: whoever comes later starts another.
    fn give_up(&self, id: &ChunkId, demanded: &Demanded) -> bool {
        let mut flights = self.flights();
        if demanded.raised.load(Ordering::Relaxed) {
            return false;
        }
        if flights.get(id).is_some_and(|flight| std::ptr::eq(&raw const *flight.demanded, demanded)) {
            flights.remove(id);
        }
        true
    }

    /// A turn at the origin. Prefetch waits for one of its own places too, until a reader
    /// wants the chunk.
    async fn origin_turn(
        &self,
        cause: Cause,
        demanded: &Demanded,
    ) -> (Option<SemaphorePermit<'_>>, Option<SemaphorePermit<'_>>) {
        let prefetch = match cause {
            Cause::Demand => None,
            Cause::Prefetch => tokio::select! {
                biased;
                () = demanded.told.notified() => None,
                permit = self.prefetch_permits.acquire() => permit.ok(),
            },
        };
        (prefetch, self.origin_permits.acquire().await.ok())
    }

    /// Offers a chunk to the tiers that did not have it, without making the reader wait.
    fn fill_back(&self, tiers: &[Arc<dyn ChunkTier>], chunk: &VerifiedChunk) {
        for tier in tiers {
            let Ok(permit) = Arc::clone(&self.fill_permits).try_acquire_owned() else { return };
            count(&self.metrics.source(Source::of_tier(tier.name())).filled);
            let (tier, chunk) = (Arc::clone(tier), chunk.clone());
            tokio::spawn(async move {
                if let Err(error) = tier.put(chunk).await {
                    tracing::debug!(%error, "fill back failed");
                }
                drop(permit);
            });
        }
    }
}

/// Why a tier gave nothing usable.
enum TierFailed {
    /// The tier failed or held a wrong copy; the next one is asked.
    Ill(String),
    /// The manifest does not fit the chunk; no tier can help.
    Manifest(OpenError),
}

async fn open_off_reactor(sealed: SealedChunk, cargo: &Cargo) -> Result<(VerifiedChunk, PlainChunk), Wrong> {
    // a runtime of one thread is a simulation, in which everything happens in one order
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return verify_and_open(sealed, &cargo.wanted, cargo.chunk_size);
    }
    let (wanted, chunk_size) = (cargo.wanted.clone(), cargo.chunk_size);
    tokio::task::spawn_blocking(move || verify_and_open(sealed, &wanted, chunk_size))
        .await
        .expect("opening returns errors and does not panic")
}

fn failed(wanted: &Wanted, kind: ErrorKind, reason: &str) -> ReadError {
    ReadError { kind, image: wanted.image, index: wanted.index, id: wanted.id, reason: reason.into() }
}

fn open_error(wanted: &Wanted, error: &OpenError) -> ReadError {
    failed(wanted, ErrorKind::Corrupt, &error.to_string())
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
