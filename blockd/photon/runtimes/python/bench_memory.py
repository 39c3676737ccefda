"""Memory of C invocations at once, as JSON: photons against separate processes.

    python3 bench_memory.py --python PYTHON [--workloads sleep,boto3,numpy] [--most 64]
    python3 bench_memory.py --python PYTHON --handler hash.handler --root FOLDER --event '{"bucket": "b", "key": "k"}'

PYTHON runs all variants; with the package `awslambdaric` in it, that is measured
too. Needs to read the smaps_rollup of its children: same user, or root.

Variants: `slot` and `invocation`, this runtime in its two modes; `separate`,
one process per invocation that does nothing but import the handler and speak
the Runtime API through this package's small client (the leanest that one
sandbox per invocation could be, its own overhead not counted);
`awslambdaric-separate` and `awslambdaric-multi`, the stock client once per
invocation, and in its multi-concurrent mode, one process per slot. `fork` is
what a forked process costs by itself: a process imports the handler, forks once
per invocation, and the child calls it; nothing of a runtime runs in it. So does
`fork-laid-out`, after `rehearsal.immortalise` and `layout` did what they do.

All invocations are in their handler when the memory is read: they wait at a gate,
as those of `tests/workloads` do if their event has one, in the second round of
two. Figures are sums over all processes of a variant: PSS, and of it what is
private and dirty.
"""

import argparse
import json
import os
import platform
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "tests"))
from mock.api import MockApi  # noqa: E402  (the folder has to be on the path first)

HANDLER = """
import _socket
def handler(event, context):
    host, port = event["gate"].split(":")
    gate = _socket.socket()
    gate.connect((host, int(port)))
    gate.sendall(b"1")
    gate.recv(1)
    gate.close()
    return "done"
"""

WORKLOADS = {
    "sleep": "",
    "boto3": "import boto3\nboto3.client('s3', region_name='us-east-1', aws_access_key_id='a', aws_secret_access_key='b')\n",
    "numpy": "import numpy\nTABLE = numpy.random.rand(1000, 1000)\n",
}

SEPARATE = """
import json, os, sys
sys.path.append(%r)
from lantern_runtime.http import Connection
import importlib
module, function = os.environ["_HANDLER"].rsplit(".", 1)
handler = getattr(importlib.import_module(module), function)
host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
connection = Connection((host, int(port)))
while True:
    answer = connection.call("GET", "/2018-06-01/runtime/invocation/next")
    result = json.dumps(handler(json.loads(answer.body), None)).encode()
    path = "/2018-06-01/runtime/invocation/%%s/response" %% answer.headers["lambda-runtime-aws-request-id"]
    connection.call("POST", path, (), result)
""" % HERE


FORK = """
import gc, importlib, json, os, sys
sys.path[:0] = [os.environ["LAMBDA_TASK_ROOT"], %r]
module, function = os.environ["_HANDLER"].rsplit(".", 1)
handler = getattr(importlib.import_module(module), function)
if "laid-out" in sys.argv:
    from lantern_runtime import hooks, layout, rehearsal, system
    system.prepare()
    imported = layout.CodeWatch()
    hooks.run_before_snapshot()
    gc.collect()
    functions = rehearsal.immortalise()
    watch = layout.CodeWatch(functions)
    layout.move(functions, watch.codes, layout.choose(watch, imported, layout.code_of(handler)))
    del functions, watch, imported
    layout.fill_holes(system.libc())
gc.disable()
gc.freeze()
for event in json.loads(sys.stdin.readline()):
    if os.fork() == 0:
        handler(event, None)
        os._exit(0)
os.wait()
""" % HERE


def variants(python, handler):
    """name -> (command, processes for C invocations)."""
    found = {
        "slot": ([python, os.path.join(HERE, "lantern_zygote.py")], lambda count: 1),
        "invocation": ([python, os.path.join(HERE, "lantern_zygote.py")], lambda count: 1),
        "separate": ([python, "-c", SEPARATE], lambda count: count),
        "fork": ([python, "-c", FORK], lambda count: 1),
        "fork-laid-out": ([python, "-c", FORK, "laid-out"], lambda count: 1),
    }
    if subprocess.run([python, "-c", "import awslambdaric"], stderr=subprocess.DEVNULL).returncode == 0:
        found["awslambdaric-separate"] = ([python, "-m", "awslambdaric", handler], lambda count: count)
        found["awslambdaric-multi"] = ([python, "-m", "awslambdaric", handler], lambda count: 1)
    return found


class Gate:
    """Holds invocations: each connects, sends a byte, and goes on when the connection ends."""

    def __init__(self, event):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.event = dict(event, gate="127.0.0.1:%d" % self._listener.getsockname()[1])
        self._held = []

    def held(self):
        """How many invocations wait."""
        while select.select([self._listener], [], [], 0)[0]:
            self._held.append(self._listener.accept()[0])
            self._held[-1].recv(1)
        return len(self._held)

    def release(self):
        """Lets those go that wait."""
        while self._held:
            self._held.pop().close()


def measure(name, command, processes, count, folder, handler, gate):
    """Totals in KB with `count` invocations in their handlers."""
    api = MockApi()
    api.with_logs = False
    env = dict(os.environ, AWS_LAMBDA_RUNTIME_API="%s:%d" % api.address, _HANDLER=handler, LAMBDA_TASK_ROOT=folder,
               AWS_REGION="us-east-1", LANTERN_PYTHON_DUMPABLE="1", OPENBLAS_NUM_THREADS="1", PYTHONPATH=folder,
               TMPDIR=folder)  # what is killed leaves files behind
    if name in ("slot", "invocation"):
        env["LANTERN_PYTHON_FORK"] = name
    if not name.endswith("separate"):
        env["AWS_LAMBDA_MAX_CONCURRENCY"] = str(count)
    forks = name.startswith("fork")
    started = [subprocess.Popen(command, env=env, cwd=folder, stdin=subprocess.PIPE if forks else subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(processes)]
    try:
        for last in (False, True):
            if forks and not last:
                continue
            invocations = [] if forks else [api.invoke(gate.event) for _ in range(count)]
            if forks:
                started[0].stdin.write(json.dumps([gate.event] * count).encode() + b"\n")
                started[0].stdin.flush()
            api.wait_until(lambda _: gate.held() >= count, "%s: all in their handlers" % name)
            if last:
                time.sleep(0.3)
                return total(family_of(started))
            gate.release()
            for invocation in invocations:
                invocation.result()
    finally:
        for pid in family_of(started):
            os.kill(pid, 9)
        for process in started:
            process.wait()
        gate.release()
        api.close()


def family_of(started):
    """Pids of the processes and all that descend from them."""
    return {pid for process in started for pid in family(process.pid)}


def family(pid):
    """`pid` and its descendants."""
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
            return [pid] + [one for child in file.read().split() for one in family(int(child))]
    except OSError:
        return []


def total(pids):
    """Sums of smaps_rollup in KB."""
    sums = {"processes": 0, "pss_kb": 0, "private_dirty_kb": 0}
    for pid in pids:
        try:
            with open("/proc/%d/smaps_rollup" % pid) as file:
                fields = dict(line.split()[:2] for line in list(file)[1:])
        except OSError:
            continue
        sums["processes"] += 1
        sums["pss_kb"] += int(fields["Pss:"])
        sums["private_dirty_kb"] += int(fields["Private_Dirty:"])
    return sums


def increments(rows):
    """KB that one more invocation costs, from the first to the last count."""
    low, high = min(rows), max(rows)
    return round((rows[high]["pss_kb"] - rows[low]["pss_kb"]) / max(1, high - low))


def compare(python, counts, folder, handler, gate):
    """Results of all variants for one handler, by variant."""
    results = {}
    for name, (command, processes) in variants(python, handler).items():
        rows = {count: measure(name, command, processes(count), count, folder, handler, gate) for count in counts}
        results[name] = {"increment_pss_kb": increments(rows), "by_concurrency": rows}
        print(handler, name, results[name]["increment_pss_kb"], "KB per added invocation", file=sys.stderr)
    return results


def main():
    """See the head of this file."""
    parser = argparse.ArgumentParser(description="memory of concurrent invocations, as JSON")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--workloads", default="sleep", help="of this file: " + ", ".join(WORKLOADS))
    parser.add_argument("--handler", help="module.function instead of those")
    parser.add_argument("--root", default=os.getcwd(), help="folder of its module")
    parser.add_argument("--event", type=json.loads, default={}, help="its event, a JSON object")
    parser.add_argument("--most", type=int, default=64)
    arguments = parser.parse_args()
    version = subprocess.check_output([arguments.python, "-c", "import sys; print(sys.version.split()[0])"], text=True).strip()
    report = {"python": version, "kernel": platform.release(), "cpus": os.cpu_count(), "workloads": {}}
    counts = [count for count in (1, 2, 4, 8, 16, 32, 64) if count <= arguments.most]
    gate = Gate(arguments.event)
    if arguments.handler:
        root, handler = arguments.root, arguments.handler
        report["workloads"][handler] = compare(arguments.python, counts, root, handler, gate)
    for workload in [] if arguments.handler else arguments.workloads.split(","):
        folder = tempfile.mkdtemp(prefix="lantern-bench-")
        try:
            with open(os.path.join(folder, "app.py"), "w", encoding="utf-8") as file:
                file.write(WORKLOADS[workload] + HANDLER)
            print(workload, file=sys.stderr)
            report["workloads"][workload] = compare(arguments.python, counts, folder, "app.handler", gate)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    json.dump(report, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
