"""Memory of C invocations at once, as JSON: photons against separate processes.

    python3 bench_memory.py --python PYTHON [--workloads sleep,boto3,numpy] [--most 64]

PYTHON runs all variants; with the package `awslambdaric` in it, that is measured
too. Needs to read the smaps_rollup of its children: same user, or root.

Variants: `slot` and `invocation`, this runtime in its two modes; `separate`,
one process per invocation that does nothing but import the handler and speak
the Runtime API through this package's small client (the leanest that one
sandbox per invocation could be, its own overhead not counted);
`awslambdaric-separate` and `awslambdaric-multi`, the stock client once per
invocation, and in its multi-concurrent mode, one process per slot.

All invocations are in their handler when the memory is read: they wait for a
FIFO. Figures are sums over all processes of a variant: PSS, and of it what is
private and dirty.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "tests"))
from mock.api import MockApi  # noqa: E402  (the folder has to be on the path first)

HANDLER = """
def handler(event, context):
    open(event).read()
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
import app
host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
connection = Connection((host, int(port)))
while True:
    answer = connection.call("GET", "/2018-06-01/runtime/invocation/next")
    result = json.dumps(app.handler(json.loads(answer.body), None)).encode()
    path = "/2018-06-01/runtime/invocation/%%s/response" %% answer.headers["lambda-runtime-aws-request-id"]
    connection.call("POST", path, (), result)
""" % HERE


def variants(python):
    """name -> (command, processes for C invocations, mode or None)."""
    found = {
        "slot": ([python, os.path.join(HERE, "lantern_zygote.py")], lambda count: 1),
        "invocation": ([python, os.path.join(HERE, "lantern_zygote.py")], lambda count: 1),
        "separate": ([python, "-c", SEPARATE], lambda count: count),
    }
    if subprocess.run([python, "-c", "import awslambdaric"], stderr=subprocess.DEVNULL).returncode == 0:
        found["awslambdaric-separate"] = ([python, "-m", "awslambdaric", "app.handler"], lambda count: count)
        found["awslambdaric-multi"] = ([python, "-m", "awslambdaric", "app.handler"], lambda count: 1)
    return found


def measure(name, command, processes, count, folder):
    """Totals in KB with `count` invocations in their handlers."""
    api = MockApi()
    api.with_logs = False
    env = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if key in os.environ}
    env.update(AWS_LAMBDA_RUNTIME_API="%s:%d" % api.address, _HANDLER="app.handler", LAMBDA_TASK_ROOT=folder,
               AWS_REGION="us-east-1", LANTERN_PYTHON_DUMPABLE="1", OPENBLAS_NUM_THREADS="1", PYTHONPATH=folder,
               TMPDIR=folder)  # what is killed leaves files behind
    if name in ("slot", "invocation"):
        env["LANTERN_PYTHON_FORK"] = name
    if not name.endswith("separate"):
        env["AWS_LAMBDA_MAX_CONCURRENCY"] = str(count)
    started = [subprocess.Popen(command, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL) for _ in range(processes)]
    fifo = os.path.join(folder, "fifo-%s-%d" % (name, count))
    os.mkfifo(fifo)
    try:
        invocations = [api.invoke(fifo) for _ in range(count)]
        for invocation in invocations:
            invocation.wait_taken()
        api.wait_until(lambda _: sum(holds(pid) for pid in family_of(started)) >= count, "all in their handlers")
        return total(family_of(started))
    finally:
        for pid in family_of(started):
            os.kill(pid, 9)
        for process in started:
            process.wait()
        api.close()


def holds(pid):
    """Whether a process waits in the open of a FIFO, as the handler does."""
    try:
        with open("/proc/%d/wchan" % pid) as file:
            return file.read() in ("wait_for_partner", "fifo_open")
    except OSError:
        return False


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


def main():
    """See the head of this file."""
    parser = argparse.ArgumentParser(description="memory of concurrent invocations, as JSON")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--workloads", default="sleep")
    parser.add_argument("--most", type=int, default=64)
    arguments = parser.parse_args()
    version = subprocess.check_output([arguments.python, "-c", "import sys; print(sys.version.split()[0])"], text=True).strip()
    report = {"python": version, "kernel": platform.release(), "cpus": os.cpu_count(), "workloads": {}}
    counts = [count for count in (1, 2, 4, 8, 16, 32, 64) if count <= arguments.most]
    for workload in arguments.workloads.split(","):
        folder = tempfile.mkdtemp(prefix="lantern-bench-")
        try:
            with open(os.path.join(folder, "app.py"), "w", encoding="utf-8") as file:
                file.write(WORKLOADS[workload] + HANDLER)
            results = report["workloads"][workload] = {}
            for name, (command, processes) in variants(arguments.python).items():
                rows = {count: measure(name, command, processes(count), count, folder) for count in counts}
                results[name] = {"increment_pss_kb": increments(rows), "by_concurrency": rows}
                print(workload, name, results[name]["increment_pss_kb"], "KB per added invocation", file=sys.stderr)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    json.dump(report, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
