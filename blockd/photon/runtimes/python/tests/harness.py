"""Starts the runtime against the mock and ends it, for the test cases.

`RuntimeCase.start` writes a handler module, starts `lantern_zygote.py` with the
interpreter that runs the tests and returns it; everything is removed at the end
of the test. Processes are ended by pid, never by name.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest

from mock.api import DEADLINE_SECONDS, MockApi

HERE = os.path.dirname(os.path.abspath(__file__))
SHARED_TMP = "lantern: /tmp is not a link to /proc/self/fd/900: /tmp is shared by all invocations, only TMPDIR is private\n"
"""All that the sandbox's log says outside of a sandbox when nothing is wrong."""

ZYGOTE = os.path.join(os.path.dirname(HERE), "lantern_zygote.py")


class Runtime:
    """A running zygote."""

    def __init__(self, process, log_path, root):
        self.process = process
        self.pid = process.pid
        self.root = root
        self._log_path = log_path

    def log(self):
        """The sandbox's own log so far."""
        with open(self._log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def photons(self):
        """Pids of the zygote's living children."""
        return living_children(self.pid)

    def stop(self):
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self):
        """Waits for the end; the exit status."""
        return self.process.wait(DEADLINE_SECONDS)


def living_children(parent):
    """Pids of the children of `parent` that are no zombies."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and state_of(int(name), parent) not in (None, "Z"):
            found.append(int(name))
    return found


def state_of(pid, parent=None):
    """State letter of a process, None if it is gone (or not a child of `parent`)."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if parent is not None and int(fields[1]) != parent:
        return None
    return fields[0].decode()


class RuntimeCase(unittest.TestCase):
    """Base of the test cases that run the whole runtime."""

    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="lantern-test-")
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.api = MockApi()
        self.addCleanup(self.api.close)

    def start(self, source, handler="app.handler", concurrency=1, mode="slot", wait=True, logs=True, files=(), before=None, **environ):
        """Starts the runtime with `source` as app.py; waits until a photon waits.
        `before` is called in the new process before the interpreter starts."""
        task = os.path.join(self.root, "task")
        os.makedirs(task, exist_ok=True)
        for name, text in [("app.py", source), *files]:
            path = os.path.join(task, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(textwrap.dedent(text))
        tmp = os.path.join(self.root, "tmp")
        os.makedirs(tmp, exist_ok=True)
        env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        env.update(AWS_LAMBDA_RUNTIME_API="%s:%d" % self.api.address, _HANDLER=handler, LAMBDA_TASK_ROOT=task,
                   AWS_LAMBDA_MAX_CONCURRENCY=str(concurrency), LANTERN_PYTHON_FORK=mode, TMPDIR=tmp,
                   AWS_LAMBDA_FUNCTION_NAME="f", AWS_LAMBDA_FUNCTION_MEMORY_SIZE="128",
                   AWS_LAMBDA_FUNCTION_VERSION="7", AWS_LAMBDA_LOG_GROUP_NAME="/group", AWS_LAMBDA_LOG_STREAM_NAME="stream",
                   PYTHONDONTWRITEBYTECODE="1")
        self.api.with_logs = logs
        if logs:
            env["LANTERN_LOG_ADDRESS"] = "%s:%d" % self.api.logs.address
        env.update(environ)
        log_path = os.path.join(self.root, "sandbox.log")
        with open(log_path, "ab") as log:
            # A session of its own, as in a sandbox: handlers kill their process group.
            process = subprocess.Popen([sys.executable, ZYGOTE], env=env, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log, cwd=task, start_new_session=True, preexec_fn=before)
        runtime = Runtime(process, log_path, tmp)
        self.addCleanup(self._end, runtime)
        if wait:
            self.until_waiting(1)
        return runtime

    def until_waiting(self, count):
        """Waits until at least `count` photons wait in `next`."""
        self.api.wait_until(lambda api: len(api.waiting()) >= count, "%d photons waiting" % count)

    def until(self, condition, what):
        """Waits until `condition()` holds."""
        self.api.wait_until(lambda _api: condition(), what)

    def call(self, event=None, **more):
        """Invokes and returns the response's JSON; an error fails the test."""
        result = self.api.invoke(event, **more).result()
        self.assertEqual(result.kind, "response", result.body)
        return result.json()

    def error(self, event=None, **more):
        """Invokes and returns the error's JSON; a response fails the test."""
        result = self.api.invoke(event, **more).result()
        self.assertEqual(result.kind, "error", result.body)
        return result.json()

    def _end(self, runtime):
        children = runtime.photons()
        if runtime.process.poll() is None:
            runtime.process.kill()
            runtime.process.wait()
        for pid in children:  # they end by themselves when idle; these may be busy
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        if self._outcome_failed():
            sys.stderr.write(runtime.log()[-4000:])

    def _outcome_failed(self):
        result = getattr(self._outcome, "result", None)
        return bool(result and any(test is self for test, _ in result.failures + result.errors))
