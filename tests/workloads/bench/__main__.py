"""Measures photons: memory per added invocation against a sandbox for each, execution time,
latency of a warm one, cold bursts, overload; and how fast sandboxes are made.

    scripts/bench-photons                         # everything; more than an hour on two CPUs
    scripts/bench-photons --quick                 # C = 1, 4, 16, one measurement of each
    scripts/bench-photons memory --workload hash --language python
    scripts/bench-photons merged --counts 1,4,16  # memory where the kernel merges equal pages; Python only
    scripts/bench-photons latency burst overload
    scripts/bench-photons creation                # of busybox, no other images; three minutes

Writes docs/photon-memory.{json,md,svg} (--output DIRECTORY for elsewhere). Sections and workloads
that are not measured keep what the JSON had of them, and what made it. Exit code 1 if a figure
misses its target.
"""
import argparse
import asyncio
import glob
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "lantern")
VENV = os.path.join(CACHE, "venv-bench")
SECTIONS = ["memory", "merged", "latency", "burst", "overload", "creation"]
WORKLOADS = ["sleep", "rest", "hash", "classify", "video"]
LANGUAGES = ["python", "java"]


def say(text):
    """A step for the reader."""
    print(f"==> {text}", file=sys.stderr, flush=True)


def arguments():
    """Of the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench-photons", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)} [default: all]")
    parser.add_argument("--quick", action="store_true", help="fewer C, fewer repeats")
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="only this one (may be repeated)")
    parser.add_argument("--language", action="append", choices=LANGUAGES, help="only this one (may be repeated)")
    parser.add_argument("--counts", help="C to measure, as 1,2,4 [default: 1,2,4,8,16,32,64]")
    parser.add_argument("--repeats", type=int, help="measurements of each point [default: 3]")
    parser.add_argument("--images", default=os.path.join(CACHE, "photon-images-3"), help="made by scripts/photon-images if missing")
    parser.add_argument("--binaries", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release"), help="where blockd and flattener are [default: built from this source tree]")
    parser.add_argument("--host", default="100.100.0.1", help="this machine as sandboxes see it [default: the worker's bridge]")
    parser.add_argument("--serve", action="append", default=[], metavar="ARG", help="a further argument of blockd serve")
    parser.add_argument("--output", default=os.path.join(ROOT, "docs"), help="where the results go")
    parser.add_argument("--keep-logs", metavar="DIRECTORY", help="copy the logs of blockd and the services there")
    given = parser.parse_args()
    unknown = set(given.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    given.sections = given.sections or SECTIONS
    given.workload = given.workload or WORKLOADS
    given.language = given.language or LANGUAGES
    given.repeats = given.repeats or (1 if given.quick else 3)
    given.counts = [int(c) for c in given.counts.split(",")] if given.counts else [1, 4, 16] if given.quick else [1, 2, 4, 8, 16, 32, 64]
    return given


def machine():
    """For the head of the report."""
    with open("/proc/cpuinfo", encoding="utf-8") as cpus:
        model = next((line.split(":")[1].strip() for line in cpus if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} CPUs ({model}), {memory:.0f} GiB, Linux {'.'.join(platform.release().split('.')[:2])}"


class Bench:
    """Everything that runs, for as long as it runs."""

    def __init__(self, host):
        from bench import services
        self.host, self.say = host, say
        self.stack = []
        self.gate = services.Gate()
        self.database = self.store = self.worker = None

    def start(self, given, directory, serve):
        """Starts all; what was started is stopped by `stop`, also if this fails half-way."""
        from bench import services, worker
        self.database = self.up(services.Postgres(directory))
        self.store = self.up(services.ObjectStore(directory, os.path.join(VENV, "bin", "moto_server"), os.path.join(given.images, "chunk.mp4")))
        say("pushing the images")
        self.worker = self.up(worker.Worker(directory, given.binaries, given.images, serve))

    def up(self, service):
        """Remembers to stop it."""
        self.stack.append(service)
        return service

    def stop(self):
        """Stops all, the last first."""
        while self.stack:
            service = self.stack.pop()
            try:
                service.stop()
            except Exception as error:  # the others are to be stopped nevertheless
                say(f"{type(service).__name__} was not stopped: {error}")

    def control(self):
        """Connections to the worker's Unix socket."""
        from bench.worker import Wire
        return Wire(lambda: asyncio.open_unix_connection(os.path.join(self.worker.run_dir, "blockd.sock")))

    def control_request(self, name):
        """An invocation through it, as `blockd function invoke` sends it."""
        body = b'{"hello": "world"}'
        return (f"POST /v1/lambda/2015-03-31/functions/{name}/invocations HTTP/1.1\r\nHost: blockd\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n").encode() + body


async def measure(bench, given, data, run):
    """What `run` does with all that runs; each result is in `data` as soon as it is there."""
    await bench.gate.start()
    try:
        await run(bench, given, data)
    finally:
        bench.worker.wire.close()
    write(given.output, data)


def record(data, section, *names):
    """Notes what made these figures of a section: others of it may be older."""
    data.setdefault("made", {}).setdefault(section, {}).update({name: dict(data["run"]) for name in names})


async def merged(bench, given, data):
    """The section of a worker with `--merge-memory`."""
    from bench import merged
    for name in given.workload:
        row = await merged.workload(bench, name, given.counts, 1 if given.quick else given.repeats)
        data.setdefault("merged", {})[name] = row
        data["merged"] = {name: data["merged"][name] for name in WORKLOADS if name in data["merged"]}
        record(data, "merged", name)
        write(given.output, data)


async def sections(bench, given, data):
    """The other sections, the quick ones first."""
    from bench import latency, memory
    if "latency" in given.sections:
        count = 1000 if given.quick else 5000
        seen = {language: await latency.warm(bench, language, count) for language in given.language}
        seen["runtime_api"] = {"probe": await latency.runtime_api(bench, count)}
        data.setdefault("latency", {}).update(seen)
        record(data, "latency", *seen)
    if "burst" in given.sections:
        data.setdefault("burst", {}).update({language: await latency.burst(bench, language) for language in given.language})
        record(data, "burst", *given.language)
    if "overload" in given.sections:
        seconds = 3 if given.quick else 10
        data.setdefault("overload", {}).update({language: await latency.overload(bench, language, seconds) for language in given.language})
        record(data, "overload", *given.language)
    if "memory" in given.sections:
        for language in given.language:
            for name in given.workload:
                row = await memory.workload(bench, name, language, given.counts, given.repeats)
                rows = [one for one in data.get("workloads", []) if (one["language"], one["workload"]) != (language, name)]
                data["workloads"] = sorted([*rows, row], key=lambda one: (LANGUAGES.index(one["language"]), WORKLOADS.index(one["workload"])))
                record(data, "memory", f"{language} {name}")
                write(given.output, data)


def measure_creation(given, data):
    """Sandboxes made: a worker of its own for each measurement, and nothing beside it."""
    from bench import creation
    data["creation"] = creation.measure(given.binaries, 1 if given.quick else creation.ROUNDS, say)
    record(data, "creation", "busybox")
    write(given.output, data)


def write(directory, data):
    """JSON, table and plot."""
    from bench import report
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "photon-memory")
    with open(f"{path}.json", "w", encoding="utf-8") as file:
        json.dump({name: value for name, value in data.items() if name != "run"}, file, indent=1)
        file.write("\n")
    with open(f"{path}.md", "w", encoding="utf-8") as file:
        file.write(report.markdown(data))
    if data.get("workloads"):
        report.plot(data["workloads"], f"{path}.svg")


def misses(given, data):
    """What was measured now and misses its target, for the reader."""
    found = []
    if "memory" in given.sections:
        for row in data["workloads"]:
            if row["language"] not in given.language or row["workload"] not in given.workload:
                continue
            what = f"{row['language']} {row['workload']}"
            found += [f"{what}: memory saved {(row['saved'] or 0) * 100:.1f} % of {row['target'] * 100:.0f} %"] if not row["memory_pass"] else []
            found += [f"{what}: time ratio {row['time_ratio']:.3f}"] if not row["time_pass"] else []
    if "merged" in given.sections:
        for name in given.workload:
            row = data["merged"][name]
            found += [f"{name}, merged: memory saved {(row['pss']['saved'] or 0) * 100:.1f} % of {row['target'] * 100:.0f} %"] if not row["memory_pass"] else []
            found += [f"{name}, merged: time ratio {row['time_ratio']:.3f}"] if not row["time_pass"] else []
    if "burst" in given.sections:
        found += [f"{language}: {one['sandboxes']} sandboxes for a burst" for language, one in data["burst"].items() if not one["pass"]]
    if "overload" in given.sections:
        found += [f"{language}: overload" for language, one in data["overload"].items() if not (one["flat"] and one["refused_fast"])]
    if "latency" in given.sections:
        found += [f"{language} {way}: p50 {seen['p50']:.3f} ms" for language, ways in data["latency"].items() for way, seen in ways.items()
                  if seen["p50"] >= (0.3 if language == "runtime_api" else 1.5)]
    if "creation" in given.sections:
        one = data["creation"]
        found += [] if one["pass"] else [f"creation, bridged: {one['gain']:.2f} times faster when prepared, of {one['target']}"]
    return found


def read(given):
    """What is there from earlier, and what this run is."""
    try:
        with open(os.path.join(given.output, "photon-memory.json"), encoding="utf-8") as file:
            data = json.load(file)
    except FileNotFoundError:
        data = {}
    git = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    run = {"command": " ".join(["scripts/bench-photons", *sys.argv[1:]]), "revision": git.stdout.strip(),
           "at": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()), "machine": machine()}
    for old in ("command", "revision", "at", "machine"):
        data.pop(old, None)
    data.update(run=run, versions="Python 3.13 of Debian 13, OpenJDK 17 of Debian 12, awslambdaric 4.2.2.")
    return data


def measure_all(given, data):
    """What was asked for; what was started for it ends with it."""
    if "creation" in given.sections:
        measure_creation(given, data)
    if set(given.sections) == {"creation"}:
        return
    subprocess.run([os.path.join(ROOT, "scripts", "photon-images"), given.images], check=True)
    if not set(given.sections) <= {"creation", "merged"}:
        with_worker(given, given.serve, data, sections)
    if "merged" in given.sections:
        with_worker(given, [*given.serve, "--merge-memory"], data, merged)


def with_worker(given, serve, data, run):
    """`run` with a worker of these arguments, and what the workloads talk to."""
    directory = tempfile.mkdtemp(prefix="bench-photons-")
    bench = Bench(given.host)
    try:
        bench.start(given, directory, serve)
        asyncio.run(measure(bench, given, data, run))
    finally:
        bench.stop()
        if given.keep_logs:
            os.makedirs(given.keep_logs, exist_ok=True)
            for log in glob.glob(os.path.join(directory, "*.log")):
                shutil.copy(log, given.keep_logs)
        # whatever is still mounted below is not to be emptied
        subprocess.run(["rm", "-rf", "--one-file-system", directory], check=False)


def main():
    """The command."""
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    data = read(given)
    measure_all(given, data)
    missed = misses(given, data)
    for one in missed:
        say(f"misses its target: {one}")
    say(f"results in {given.output}/photon-memory.md")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
