"""Memory and time of C invocations at once where the kernel merges equal pages (KSM).

As in memory.py, but of a worker with `--merge-memory`, with photons and separate sandboxes both
merged, and read when merging has settled: memory of invocations that last, and of photons that are
idle. A page that was merged is copied again when it is written to. So times are of the worst case:
of invocations that come when all of their photons have been idle until they were merged.

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
# the kernel leaves pages out that were not equal to any for up to eight rounds
LEAST_ROUNDS = 9
SETTLED_ROUNDS = 3
SETTLED_SHARE = 0.01
SETTLE_SECONDS = 600
TICKS = os.sysconf("SC_CLK_TCK")


class Kernel:
    """The kernel's merging, running for as long as this is entered."""

    def __init__(self):
        self.before = {}
        self.daemon = next(path for path in glob.glob("/proc/[0-9]*/stat") if "(ksmd)" in self.read(path))

    @staticmethod
    def read(path):
        """A file's text; nothing if it is gone."""
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    @staticmethod
    def write(name, value):
        """One setting."""
        with open(f"{KSM}/{name}", "w", encoding="ascii") as file:
            file.write(value)

    def __enter__(self):
        self.before = {name: self.read(f"{KSM}/{name}").strip() for name in PACE}
        for name, value in PACE.items():
            self.write(name, value)
        return self

    def __exit__(self, *_):
        for name, value in self.before.items():
            self.write(name, value)

    def rounds(self):
        """How often the kernel has been through all memory that may be merged."""
        return int(self.read(f"{KSM}/full_scans"))

    def seconds(self):
        """Processor time that merging has taken."""
        return sum(map(int, self.read(self.daemon).rpartition(")")[2].split()[11:13])) / TICKS

    def settled(self, *ways):
        """Waits until the memory of `ways` becomes less no more. Returns it, summed, with what that took."""
        began, processor, first = time.monotonic(), self.seconds(), self.rounds()
        seen = []  # (round, PSS)
        while True:
            all_ways = [way.memory() for way in ways]
            total = sum(one["pss"] for one in all_ways)
            now = self.rounds()
            seen.append((now, total))
            earlier = [pss for at, pss in seen if at <= now - SETTLED_ROUNDS]
            if now - first >= LEAST_ROUNDS and earlier and abs(earlier[-1] - total) <= SETTLED_SHARE * total:
                break
            if time.monotonic() - began > SETTLE_SECONDS:
                raise RuntimeError(f"merging has not settled in {SETTLE_SECONDS} s: {seen[-5:]}")
            time.sleep(0.25)
        return {"pss": total, "sandboxes": sum(one["sandboxes"] for one in all_ways),
                "settle_seconds": time.monotonic() - began, "settle_cpu_seconds": self.seconds() - processor}


async def measure(way, kernel, count, event):
    """PSS with `count` invocations at the gate, after a round that is not measured."""
    await way.held(count, event, lambda: None)
    return {"c": count, **await way.held(count, event, lambda: kernel.settled(way))}


async def compare(kernel, ways, counts, event, rounds):
    """Execution times of both at equal C, taking turns, each when both have settled. A round before is a warm-up."""
    times = []
    for count in counts:
        taken = {way.name: [] for way in ways}
        for turn in range(rounds + 1):
            for way in ways if turn % 2 else ways[::-1]:
                if turn:
                    await asyncio.to_thread(kernel.settled, *ways)
                outside, _ = await way.timed(count, event)
                taken[way.name] += outside if turn else []
        row = {"c": count, **{name: statistics.median(seconds) for name, seconds in taken.items()}}
        times.append({**row, "ratio": row["shared"] / row["separate"]})
    return times


async def workload(bench, name, counts, rounds):
    """One workload in Python; a dict for the report."""
    event = events(bench)[name]["python"]
    counts = [count for count in counts if count <= MOST.get(name, max(counts))]
    bench.say(f"python {name}, merged: C = {', '.join(map(str, counts))}")
    memory = {}
    with Kernel() as kernel:
        for way_name, concurrency in (("shared", max(counts)), ("separate", 1)):
            with Way(bench, name, "python", way_name, "python", concurrency) as way:
                memory[way_name] = [await measure(way, kernel, count, event) for count in counts]
        with Way(bench, name, "python", "shared", "python", max(counts)) as shared, \
                Way(bench, name, "python", "separate", "python", 1) as separate:
            times = await compare(kernel, [shared, separate], counts, event, rounds)
    steps = {way: slope([(one["c"], one["pss"]) for one in points]) for way, points in memory.items()}
    saved = None if steps["shared"] is None else 1 - steps["shared"] / steps["separate"]
    ratio = statistics.median(row["ratio"] for row in times)
    return {"memory": memory, "times": times, "increment": steps, "saved": saved, "target": TARGETS[name],
            "memory_pass": saved is not None and saved >= TARGETS[name], "time_ratio": ratio,
            "time_ratio_worst": max(row["ratio"] for row in times), "time_pass": ratio <= TIME_RATIO}
