//! Looks at all sandboxes at intervals: what they use, which have been idle for too long, and
//! which are about to run out of memory.
//!
//! Invariant: a sandbox with an invocation in flight is never ended from here; at worst it is
//! drained, or one photon in it is stopped. But for one whose memory is above its limit where the
//! kernel does not see it.

use super::Shared;
use super::group::Group;
use super::handle::{Handle, Order};
use crate::invocation::RequestId;
use crate::launch::memory_limit;
use crate::policy::keepalive::{IdleSandbox, evict};
use crate::sandbox::{Observer, Process, Usage};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A sandbox this close to its limit, in hundredths, is about to lose a process to the kernel.
const NEARLY_FULL_PERCENT: u64 = 92;

/// How often those that wait are looked at even if nothing was heard that would help them.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

type Watched = (Arc<Group>, Arc<Handle>);

fn watched(shared: &Shared) -> Vec<Watched> {
    let mut all = Vec::new();
    for entry in shared.all() {
        for group in entry.groups().iter() {
            all.extend(group.sandboxes().into_iter().map(|handle| (Arc::clone(group), handle)));
        }
    }
    all
}

/// Runs until the dispatcher is gone.
pub(super) async fn watch(shared: Weak<Shared>) {
    let mut ended_before: HashMap<usize, u64> = HashMap::new();
    let mut cpus = HostCpus::default();
    loop {
        let Some(interval) = shared.upgrade().map(|shared| shared.settings.watch_interval) else { return };
        tokio::time::sleep(interval).await;
        let Some(shared) = shared.upgrade() else { return };
        let all = watched(&shared);
        let observers: Vec<Option<Observer>> = all.iter().map(|(_, handle)| handle.observer()).collect();
        // some small files for each sandbox
        let read = tokio::task::spawn_blocking(move || {
            observers.iter().map(|observer| observer.as_ref().and_then(Observer::usage)).collect::<Vec<_>>()
        });
        let Ok(usages) = read.await else { continue };
        // what cannot be read now is what it was
        let bytes =
            |(at, usage): (&Watched, &Option<Usage>)| usage.unwrap_or_else(|| at.1.usage()).memory_bytes;
        let used: u64 = all.iter().zip(&usages).map(bytes).sum();
        let stored: u64 = all.iter().map(|(_, handle)| handle.store_bytes()).sum();
        shared.memory_used.store(used.saturating_add(stored), Ordering::Relaxed);
        shared.saturated.store(cpus.saturated(), Ordering::Relaxed);
        note(&shared, &all, &usages, &mut ended_before);
        end_idle(&shared, &all);
        // it has had the time in which another one comes up
        let patience = shared.settings.init_timeout;
        for (group, handle) in all.iter().filter(|(_, handle)| handle.is_deaf(patience)) {
            group.quarantine(handle.id(), "it asks for no invocations any more");
        }
    }
}

/// Brings invocations that wait together with what any function gave back: starts, sandboxes,
/// memory. Runs until the dispatcher is gone.
pub(super) async fn look_again(shared: Weak<Shared>, freed: Arc<Notify>) {
    for turn in 0_usize.. {
        let _ = tokio::time::timeout(LOOK_AGAIN, freed.notified()).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut all = shared.all();
        // whoever comes first takes what is free: another one each time
        let first = turn.checked_rem(all.len()).unwrap_or(0);
        all.rotate_left(first);
        for entry in all {
            let groups = entry.groups().clone();
            groups.iter().filter(|group| group.has_waiting()).for_each(Group::pump);
        }
    }
}

/// The host's processors between two looks.
#[derive(Debug, Default)]
struct HostCpus {
    idle: u64,
    all: u64,
}

/// Processors idle for less than this share of the time, in hundredths, are busy.
const BUSY_IDLE_PERCENT: u64 = 5;

impl HostCpus {
    /// Whether all processors were busy since the last look; false if that is not known.
    fn saturated(&mut self) -> bool {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        // user nice system idle iowait …: proc(5)
        let (idle, all) = (ticks.iter().skip(3).take(2).sum(), ticks.iter().sum());
        let before = std::mem::replace(self, Self { idle, all });
        let passed = all.saturating_sub(before.all);
        before.all > 0 && passed > 0 && idle.saturating_sub(before.idle) * 100 < passed * BUSY_IDLE_PERCENT
    }
}

/// Tells the groups what their sandboxes use.
fn note(shared: &Shared, all: &[Watched], usages: &[Option<Usage>], ended_before: &mut HashMap<usize, u64>) {
    let mut cpu: HashMap<usize, (Arc<Group>, Duration)> = HashMap::new();
    for ((group, handle), usage) in all.iter().zip(usages) {
        let Some(usage) = *usage else { continue };
        let new = handle.note(usage);
        group.observe_usage(handle, usage.memory_bytes);
        let key = Arc::as_ptr(group).addr();
        cpu.entry(key).or_insert_with(|| (Arc::clone(group), Duration::ZERO)).1 += new.cpu;
        if new.oom_kills > 0 {
            let text = format!(
                "the kernel stopped {} processes of {} at its memory limit",
                new.oom_kills,
                handle.id()
            );
            group.entry().log.add(handle.id(), None, text);
        }
        if new.oom_kills_above > 0 {
            let (kills, id) = (new.oom_kills_above, handle.id());
            tracing::warn!(sandbox = %id, kills, "this worker ran out of memory; lower --sandbox-memory, or what else the host runs");
            let text = format!("the kernel stopped {kills} processes of {id}: this worker ran out of memory");
            group.entry().log.add(id, None, text);
        }
        let limit = memory_limit(group.function(), &shared.settings.launch);
        if usage.memory_bytes > limit && handle.observer().is_some_and(|observer| observer.may_merge()) {
            // the kernel bounds what it counts, not what it keeps to merge pages
            let why = "its memory, with what the kernel keeps to merge it, is above its limit";
            group.entry().log.add(handle.id(), None, format!("{} was ended: {why}", handle.id()));
            handle.slots.end(why);
            handle.order.send_replace(Order::End);
        } else if usage.memory_bytes > limit / 100 * NEARLY_FULL_PERCENT {
            relieve(group, handle);
        }
    }
    ended_before.retain(|key, _| cpu.contains_key(key));
    for (key, (group, spent)) in cpu {
        let ended = group.ended.load(Ordering::Relaxed);
        let before = ended_before.insert(key, ended).unwrap_or(ended);
        if let Ok(more @ 1..) = u32::try_from(ended.saturating_sub(before)) {
            group.set_cpu_per_invocation(spent / more);
        }
    }
}

/// A sandbox that is nearly full: stops its greediest photon where photons are processes, else
/// lets it take nothing more, so that those in it can finish.
fn relieve(group: &Arc<Group>, handle: &Arc<Handle>) {
    if !group.photons_are_processes() {
        group.nearly_full(handle);
        if handle.slots.in_flight() > 1 || handle.told > group.slots() {
            group.quarantine(handle.id(), "its memory is nearly used up");
        }
        return;
    }
    let photons = handle.slots.processes();
    if photons.len() < 2 {
        // alone: it may use all there is, and the kernel ends it beyond
        return;
    }
    if !handle.may_relieve(Instant::now()) {
        return;
    }
    let (group, slots) = (Arc::clone(group), Arc::clone(&handle.slots));
    tokio::spawn(async move {
        let mut processes = Vec::new();
        for (process, id) in photons {
            processes.push((process.process().await, id));
        }
        // the kernel adds up each one's mappings for this
        let greediest = tokio::task::spawn_blocking(|| {
            let size = |process: Option<Arc<Process>>| process.and_then(|process| process.private_bytes());
            let sizes = processes.into_iter().map(|(process, id)| (size(process).unwrap_or(0), id));
            sizes.max_by_key(|(bytes, _): &(u64, RequestId)| *bytes)
        });
        let greediest = greediest.await.ok().flatten();
        if let Some((bytes, id)) = greediest {
            let why = format!("it had {} MiB of its own when its sandbox was nearly full", bytes >> 20);
            super::follow::stop_for_memory(&group, &slots, &id, &why);
        }
    });
}

/// Ends sandboxes that were idle for long enough, and more of them while memory is short.
fn end_idle(shared: &Shared, all: &[Watched]) {
    let now = Instant::now();
    let mut idle: Vec<(&Arc<Handle>, Instant)> = Vec::new();
    for (group, handle) in all {
        let Some(since) = handle.idle_since(now) else { continue };
        let keep = {
            let mut policy = shared.keep_alive.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            policy.idle(&group.function().key, since).keep
        };
        // nobody will ask for a revision that was replaced
        if now.saturating_duration_since(since) >= keep || !group.is_current() {
            handle.drain();
        } else {
            idle.push((handle, since));
        }
    }
    let used = shared.memory_used.load(Ordering::Relaxed);
    // a tenth is kept free for what comes next
    let most = shared.settings.memory_bytes / 10 * 9;
    let candidates: Vec<IdleSandbox> = idle
        .iter()
        .map(|(handle, since)| IdleSandbox {
            idle_since: *since,
            memory_bytes: handle.memory_bytes(),
            start: handle.start_took(),
        })
        .collect();
    for index in evict(&candidates, used.saturating_sub(most), now) {
        idle[index].0.drain();
    }
}
