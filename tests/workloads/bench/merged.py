"""Memory and time of C invocations at once where the kernel merges equal pages (KSM).

As in memory.py, but of a worker with `--merge-memory`, with photons and separate sandboxes both
merged, and read when merging has settled: memory of invocations that last, and of photons that are
idle. Beside PSS stands what the kernel keeps to merge pages, which it counts for no process.

A page that was merged is copied again when it is written to. So times are of invocations that come
after a pause in which merging has settled, against separate sandboxes, and against photons of a
function that declines to be merged.

The kernel's settings are put back at the end.
"""
import asyncio
import glob
import os
import statistics
import time

from .memory import MOST, TARGETS, TIME_RATIO, Way, events, slope

KSM = "/sys/kernel/mm/ksm"
# ten times the kernel's own pace, so that this ends today: 1000 pages, then 20 ms of rest
PACE = {"pages_to_scan": "1000", "sleep_millisecs": "20", "run": "1"}
# the kernel leaves out, for up to eight rounds, pages that were not equal to any
LEAST_ROUNDS = 9
SETTLED_SHARE = 0.01
SETTLE_SECONDS = 900
TICKS = os.sysconf("SC_CLK_TCK")
# of each page that is looked at: `struct ksm_rmap_item`
KEPT_BYTES = 64


def read(path):
    """A file's text; nothing if it is not there."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def figure(pid, name):
    """A line of what the kernel says about merging a process; None if it says nothing."""
    for line in read(f"/proc/{pid}/ksm_stat").splitlines():
        if line.startswith(name):
            return line[len(name):].strip(" :")
    return None


class Kernel:
    """The kernel's merging, running for as long as this is entered."""

    def __init__(self):
        self.before = {}
        daemons = [path for path in glob.glob("/proc/[0-9]*/stat") if "(ksmd)" in read(path)]
        if not daemons or figure(os.getpid(), "ksm_rmap_items") is None:
            raise RuntimeError(f"this kernel merges no memory by process (KSM, Linux 6.4): see {KSM}")
        self.daemon = daemons[0]

    def write(self, name, value):
        """One setting."""
        with open(f"{KSM}/{name}", "w", encoding="ascii") as file:
            file.write(value)

    def __enter__(self):
        try:
            for name, value in PACE.items():
                self.before[name] = read(f"{KSM}/{name}").strip()
                self.write(name, value)
        except OSError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name, value in self.before.items():
            self.write(name, value)

    def rounds(self):
        """How often the kernel has been through all memory that may be merged."""
        return int(read(f"{KSM}/full_scans"))

    def seconds(self):
        """Processor time that merging has taken."""
        return sum(map(int, read(self.daemon).rpartition(")")[2].split()[11:13])) / TICKS

    def settled(self, *ways):
        """Waits until the memory of `ways` becomes less no more. Returns it, summed, with what that took."""
        began, processor, seen = time.monotonic(), self.seconds(), []
        while True:
            now = self.rounds()  # first: what is read below has seen that many
            all_ways = [way.memory() for way in ways]
            total = sum(one["pss"] for one in all_ways)
            seen.append((now, total))
            earlier = [pss for at, pss in seen if at <= now - LEAST_ROUNDS]
            if earlier and abs(earlier[-1] - total) <= SETTLED_SHARE * total:
                break
            if time.monotonic() - began > SETTLE_SECONDS:
                raise RuntimeError(f"merging has not settled in {SETTLE_SECONDS} s: {seen[-5:]}")
            time.sleep(0.5)
        pids = [pid for way in ways for pid in way.bench.worker.pids(way.function)]
        items = sum(int(figure(pid, "ksm_rmap_items") or 0) for pid in pids)
        return {"pss": total, "kept": items * KEPT_BYTES, "sandboxes": sum(one["sandboxes"] for one in all_ways),
                "settle_seconds": time.monotonic() - began, "settle_cpu_seconds": self.seconds() - processor}


def mergeable(way):
    """Whether the kernel looks at the pages of a function's processes."""
    items = [int(figure(pid, "ksm_rmap_items") or 0) for pid in way.bench.worker.pids(way.function)]
    return any(items)


async def measure(way, kernel, count, event):
    """PSS with `count` invocations at the gate, after a round that is not measured."""
    await way.held(count, event, lambda: None)
    measured = await way.held(count, event, lambda: kernel.settled(way))
    if not mergeable(way):
        raise RuntimeError(f"{way.function} is not merged: does another worker of this host have the right to it?")
    return {"c": count, **measured}


async def compare(kernel, ways, counts, event, rounds):
    """Execution times at equal C, taking turns, each when all have settled. A round before is a warm-up."""
    times = []
    for count in counts:
        taken = {way.name: [] for way in ways}
        for turn in range(rounds + 1):
            for way in ways[turn % len(ways):] + ways[:turn % len(ways)]:
                if turn:
                    await asyncio.to_thread(kernel.settled, *ways)
                outside, _ = await way.timed(count, event)
                taken[way.name] += outside if turn else []
        row = {"c": count, **{name: statistics.median(seconds) for name, seconds in taken.items()}}
        times.append({**row, "ratio": row["shared"] / row["separate"]})
    return times


def saving(memory, measured):
    """Of the increments of `measured`, a function of a point: that of photons, of sandboxes, and what is saved."""
    steps = {way: slope([(one["c"], measured(one)) for one in points]) for way, points in memory.items()}
    return {**steps, "saved": None if steps["shared"] is None else 1 - steps["shared"] / steps["separate"]}


async def workload(bench, name, counts, rounds):
    """One workload in Python; a dict for the report."""
    event = events(bench)[name]["python"]
    counts = [count for count in counts if count <= MOST.get(name, max(counts))]
    bench.say(f"python {name}, merged: C = {', '.join(map(str, counts))}")

    def way(kind):
        return Way(bench, name, "python", kind, "python", 1 if kind == "separate" else max(counts), kind != "plain")

    memory = {}
    with Kernel() as kernel:
        for kind in ("shared", "separate"):
            with way(kind) as one:
                memory[kind] = [await measure(one, kernel, count, event) for count in counts]
        with way("shared") as shared, way("plain") as plain, way("separate") as separate:
            times = await compare(kernel, [shared, plain, separate], counts, event, rounds)
    pss = saving(memory, lambda one: one["pss"])
    ratio = statistics.median(row["ratio"] for row in times)
    return {"memory": memory, "times": times, "pss": pss, "all": saving(memory, lambda one: one["pss"] + one["kept"]),
            "target": TARGETS[name], "memory_pass": pss["saved"] is not None and pss["saved"] >= TARGETS[name],
            "time_ratio": ratio, "time_ratio_worst": max(row["ratio"] for row in times), "time_pass": ratio <= TIME_RATIO}
