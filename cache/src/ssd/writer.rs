//! The one thread that writes and deletes chunk files, behind a bounded queue.

use super::files::Shared;
use bytes::Bytes;
use image_format::ids::ChunkId;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Chunks waiting to be written: at most 64 MiB of memory. When the disk is slower than
/// the network, further chunks are dropped and counted.
const QUEUE: usize = 128;

/// Chunks evicted at most for one that comes in: without progress the newcomer is dropped
/// instead, so eviction never spins when another process fills the disk.
const MOST_EVICTIONS: usize = 64;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Write this file.
    Write(ChunkId, Bytes),
    /// Say when everything before this is done.
    Settle(oneshot::Sender<()>),
}

/// The thread and its queue. Dropping it finishes the queue.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<SyncSender<Order>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let (queue, orders) = sync_channel(QUEUE);
        let thread =
            std::thread::Builder::new().name("ssd-writer".into()).spawn(move || run(&shared, &orders))?;
        Ok(Self { queue: Some(queue), thread: Mutex::new(Some(thread)) })
    }

    /// Queues an order; `false` if the queue is full.
    pub(super) fn order(&self, order: Order) -> bool {
        match self.queue.as_ref().map(|queue| queue.try_send(order)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => false,
        }
    }

    pub(super) async fn settle(&self) {
        let Some(queue) = self.queue.clone() else { return };
        let (said, done) = oneshot::channel();
        let sent = tokio::task::spawn_blocking(move || queue.send(Order::Settle(said)).is_ok()).await;
        if sent.is_ok_and(|sent| sent) {
            let _ = done.await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// Looks at the queue before the thread waits to be woken, and the pause between them.
const LOOKS: u32 = 50;
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How much less of a processor the thread gets than those that answer: it must not run in
/// place of the very request that woke it.
const NICENESS: i32 = 10;

fn run(shared: &Shared, orders: &Receiver<Order>) {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), NICENESS) {
        tracing::debug!(%error, "the writer of the ssd files runs at ordinary priority");
    }
    while let Some(order) = next(orders) {
        match order {
            Order::Write(id, bytes) => write(shared, &id, &bytes),
            Order::Settle(said) => drop(said.send(())),
        }
    }
}

/// The next order; `None` when there will be no more. After work the thread looks again a
/// few times before it waits to be woken: waking it would cost the request that orders (tens
/// of microseconds, on virtual machines hundreds), and one order seldom comes alone.
fn next(orders: &Receiver<Order>) -> Option<Order> {
    for _ in 0..LOOKS {
        match orders.try_recv() {
            Ok(order) => return Some(order),
            Err(TryRecvError::Empty) => std::thread::sleep(LOOK_EVERY),
            Err(TryRecvError::Disconnected) => return None,
        }
    }
    orders.recv().ok()
}

fn write(shared: &Shared, id: &ChunkId, bytes: &Bytes) {
    let length = bytes.len() as u64;
    if !make_room(shared, length) {
        shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
        return;
    }
    match shared.disk.write(id, bytes) {
        Ok(()) => shared.policy().insert(*id, length),
        Err(error) => {
            // full or failing: reads go on without the tier
            shared.counters.write_errors.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(chunk = %id, %error, "chunk not written to the ssd tier");
        }
    }
}

/// Evicts until `length` more bytes keep budget and headroom. `false` if they cannot.
fn make_room(shared: &Shared, length: u64) -> bool {
    let settings = &shared.settings;
    if length > settings.capacity_bytes {
        return false;
    }
    for _ in 0..MOST_EVICTIONS {
        let over_budget = shared.policy().weight() + length > settings.capacity_bytes;
        let crowded = || shared.disk.free_bytes().is_ok_and(|free| free < settings.headroom_bytes + length);
        if !over_budget && !crowded() {
            return true;
        }
        let Some((victim, _)) = shared.policy().evict() else { return false };
        shared.counters.evicted.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = shared.disk.delete(&victim) {
            shared.counters.write_errors.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(chunk = %victim, %error, "chunk could not be deleted from the ssd tier");
            return false;
        }
    }
    false
}
