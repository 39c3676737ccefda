"""Memory and execution time of C invocations at once: in one sandbox, and in C sandboxes.

Memory is PSS, summed over all processes of a function's sandboxes, read while all C invocations
wait at the gate (see the workloads' README), after one round that nobody measures. Each way of
running is measured alone: PSS divides a page among all who map it, and another function of the
same image would take its part of the bill.

Execution times are measured without the gate, with both functions alive and turns taken.
"""
import asyncio
import base64
import os
import statistics

from .services import BUCKET, KEY, SECRET

# what an invocation holds and where, as published: memory saved per added invocation
TARGETS = {"sleep": 0.97, "rest": 0.97, "hash": 0.97, "classify": 0.81, "video": 0.25}
TIME_RATIO = 1.05
COUNTS = [1, 2, 4, 8, 16, 32, 64]
# two CPUs and 24 GB do not do more of these at once, one sandbox each, in bearable time
MOST = {"classify": 32, "video": 16}
# of a sandbox, in MiB; awslambdaric's 64 processes with boto3 need more than 2 GB before they do anything
LIMITS = {"image": 8192}
LIMIT = 2048
SETTLE_SECONDS = 0.5
GATE_SECONDS = 300
HANDLERS = {"python": "{}.handler", "java": "workloads.{}::handle"}


def handler(language, workload):
    """The name of a workload's handler."""
    return HANDLERS[language].format(workload if language == "python" else workload.capitalize())


def events(bench):
    """The event of each workload, by language."""
    host, port = bench.host, bench.database.port
    database = f"host={host} port={port} user=bench dbname=postgres"
    jdbc = f"jdbc:postgresql://{host}:{port}/postgres?user=bench"
    image = base64.b64encode(os.urandom(4096)).decode()
    store = bench.store
    return {
        "sleep": {"python": {"seconds": 1}, "java": {"seconds": 1}},
        "rest": {"python": {"database": database, "first": 100}, "java": {"jdbc": jdbc, "first": 100}},
        "hash": {"python": {"bucket": BUCKET, "key": "object"}, "java": {"url": store.presigned(host, "object")}},
        "classify": {"python": {"image": image}, "java": {"image": image}},
        "video": {"python": {"bucket": BUCKET, "key": "chunk.mp4"}, "java": {"url": store.presigned(host, "chunk.mp4")}},
    }


def pss_bytes(pids):
    """PSS summed over processes; one that has ended meanwhile counts as nothing."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
                total += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) * 1024
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def slope(points):
    """Least squares of [(C, bytes)]: bytes per added invocation. None of one point."""
    if len(points) < 2:
        return None
    mean_x = statistics.fmean(x for x, _ in points)
    mean_y = statistics.fmean(y for _, y in points)
    across = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / across


class Way:
    """One way of running a workload: the name of its function and how it is made."""

    def __init__(self, bench, workload, language, name, runtime, concurrency, merges=True):
        self.bench, self.workload, self.language, self.name = bench, workload, language, name
        self.function = f"{language}-{workload}-{name}"
        self.memory_mib = LIMITS.get(runtime, LIMIT)
        self.variables = {"LANTERN_RUNTIME": runtime, "LANTERN_MAX_CONCURRENCY": str(concurrency),
                          "LANTERN_NETWORK": "bridge", "DATA_KEY": KEY, "DATA_SECRET": SECRET,
                          "WARM_BUCKET": BUCKET, "WARM_KEY": "object",
                          "DATA_ENDPOINT": f"http://{bench.host}:{bench.store.port}",
                          # as far as the worker lets it
                          **({} if merges else {"LANTERN_PYTHON_MERGE": "0"})}

    def __enter__(self):
        self.bench.worker.create(self.function, self.language, handler(self.language, self.workload), self.variables, self.memory_mib)
        return self

    def __exit__(self, *_):
        self.bench.worker.delete(self.function)

    async def held(self, count, event, measure):
        """`count` invocations at the gate, `measure()` at that instant, then all to their ends."""
        gate, worker = self.bench.gate, self.bench.worker
        event = {**event, "gate": f"{self.bench.host}:{gate.port}"}
        if self.workload == "sleep":
            event["seconds"] = 0
        calls = [asyncio.create_task(worker.invoke(self.function, event)) for _ in range(count)]
        try:
            await gate.full(count, calls, GATE_SECONDS)
            await asyncio.sleep(SETTLE_SECONDS)
            # not in the loop's thread: other connections must go on
            measured = await asyncio.to_thread(measure)
        finally:
            gate.release()
        for reply in await asyncio.gather(*calls):
            if not reply.good:
                raise RuntimeError(f"{self.function}: {reply}")
        return measured

    def memory(self):
        """PSS of all processes, and what they are spread over."""
        sandboxes = self.bench.worker.sandboxes(self.function)
        pids = [pid for sandbox in sandboxes for pid in sandbox["pids"]]
        return {"pss": pss_bytes(pids), "sandboxes": len(sandboxes), "processes": len(pids),
                "cgroup": sum(sandbox.get("memory_bytes", 0) for sandbox in sandboxes)}

    async def measure(self, count, event, repeats):
        """The middle of `repeats` measurements, after a round that is not measured."""
        await self.held(count, event, lambda: None)
        seen = [await self.held(count, event, self.memory) for _ in range(repeats)]
        return sorted(seen, key=lambda one: one["pss"])[len(seen) // 2]

    async def timed(self, count, event):
        """`count` invocations at once: seconds of each as the caller sees it, and as the handler does."""
        calls = [self.bench.worker.invoke(self.function, event) for _ in range(count)]
        replies = await asyncio.gather(*calls)
        for reply in replies:
            if not reply.good:
                raise RuntimeError(f"{self.function}: {reply}")
        return [reply.seconds for reply in replies], [reply.handler_ms / 1e3 for reply in replies]


async def workload(bench, name, language, counts, repeats):
    """All ways of one workload in one language; a dict for the report."""
    event = events(bench)[name][language]
    counts = [count for count in counts if count <= MOST.get(name, max(counts))]
    bench.say(f"{language} {name}: C = {', '.join(map(str, counts))}")
    memory = {"shared": [], "separate": [], "processes": []}
    with Way(bench, name, language, "shared", language, max(COUNTS)) as way:
        for count in counts:
            memory["shared"].append({"c": count, **await way.measure(count, event, repeats)})
    if language == "python":
        for count in counts:
            with Way(bench, name, language, f"ric{count}", "image", count) as way:
                memory["processes"].append({"c": count, **await way.measure(count, event, repeats)})
    with Way(bench, name, language, "separate", language, 1) as separate:
        for count in counts:
            memory["separate"].append({"c": count, **await separate.measure(count, event, repeats)})
        with Way(bench, name, language, "shared", language, max(COUNTS)) as shared:
            times = await compare(shared, separate, counts, event, 3 if name == "video" else 3 * repeats)
    return summary(name, language, memory, times)


async def compare(shared, separate, counts, event, rounds):
    """Execution times of both at equal C, taking turns. A round before is a warm-up."""
    times = []
    for count in counts:
        await shared.held(count, event, lambda: None)
        taken = {"shared": ([], []), "separate": ([], [])}
        for turn in range(rounds + 1):
            for way in (shared, separate) if turn % 2 else (separate, shared):
                outside, inside = await way.timed(count, event)
                if turn:
                    taken[way.name][0].extend(outside)
                    taken[way.name][1].extend(inside)
        row = {"c": count}
        for way, (outside, inside) in taken.items():
            row[way] = statistics.median(outside)
            row[f"{way}_handler"] = statistics.median(inside)
        row["ratio"] = row["shared"] / row["separate"]
        times.append(row)
    return times


def summary(name, language, memory, times):
    """Base, increment and verdicts of what was measured."""
    slopes = {way: slope([(one["c"], one["pss"]) for one in points]) for way, points in memory.items() if points}
    saved = None
    if slopes["shared"] is not None:
        saved = 1 - slopes["shared"] / slopes["separate"]
    ratio = statistics.median(row["ratio"] for row in times)
    return {
        "workload": name, "language": language, "memory": memory, "times": times,
        "base": {way: points[0]["pss"] for way, points in memory.items() if points},
        "increment": slopes, "saved": saved, "target": TARGETS[name],
        "memory_pass": saved is not None and saved >= TARGETS[name],
        "one_sandbox": all(one["sandboxes"] == 1 for one in memory["shared"]),
        "time_ratio": ratio, "time_ratio_worst": max(row["ratio"] for row in times),
        "time_pass": ratio <= TIME_RATIO,
    }
