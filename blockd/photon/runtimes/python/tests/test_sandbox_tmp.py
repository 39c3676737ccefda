"""/tmp of its own by descriptor 900, in a root directory made like a sandbox's.

`privileged_`: needs to mount and chroot, as root or in a user namespace. The
root holds this machine's directories by bind mounts, and the `/tmp` link and
the directory behind it as blockd makes them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest

from harness import ZYGOTE
from mock.api import MockApi

# $1 the new root, $2 the runtime's folder, $3 the interpreter, the rest is bound too.
ENTER = """
    set -e
    root=$1 runtime=$2 python=$3; shift 3
    for dir in /usr /bin /lib /lib64 /etc /dev /proc "$@"; do
        if [ -L "$dir" ]; then ln -s "$(readlink "$dir")" "$root$dir"
        elif [ -d "$dir" ]; then mkdir -p "$root$dir"; mount --rbind "$dir" "$root$dir"; fi
    done
    mkdir -p "$root/opt/lantern/python" "$root/run/lantern/tmp"
    mount --bind "$runtime" "$root/opt/lantern/python"
    mount -t tmpfs tmpfs "$root/run/lantern/tmp"
    chmod 1777 "$root/run/lantern/tmp"
    ln -s /proc/self/fd/900 "$root/tmp"
    exec chroot "$root" /bin/sh -c 'cd /task && exec "$0" /opt/lantern/python/lantern_zygote.py' "$python"
    """

HANDLER = """
    import os, subprocess, tempfile
    with open("/tmp/model", "w") as file:
        file.write("weights")
    def handler(event, context):
        names = {}
        exec(event, globals(), names)
        return names.get("result")
    """


def unshare():
    """The command that gives mounts of our own, None if this machine refuses."""
    for command in (["unshare", "--mount", "--propagation", "private"], ["unshare", "--mount", "--map-root-user"]):
        try:
            if subprocess.run(command + ["mount", "-t", "tmpfs", "tmpfs", "/mnt"], stderr=subprocess.DEVNULL).returncode == 0:
                return command
        except OSError:
            return None
    return None


class SandboxTmp(unittest.TestCase):
    def setUp(self):
        command = unshare()
        if command is None:
            sys.stderr.write("SKIPPED: privileged_ tests of /tmp: this machine allows no mounts\n")
            self.skipTest("this machine allows no mounts")
        self.root = tempfile.mkdtemp(prefix="lantern-root-")
        self.addCleanup(self._remove_root)
        os.mkdir(self.root + "/task")
        with open(self.root + "/task/app.py", "w") as file:
            file.write(textwrap.dedent(HANDLER))
        self.api = MockApi()
        self.addCleanup(self.api.close)
        script = os.path.join(self.root, "enter")
        with open(script, "w") as file:
            file.write(textwrap.dedent(ENTER))
        self.command = command + ["/bin/sh", script, self.root, os.path.dirname(ZYGOTE), os.path.realpath(sys.executable), sys.base_prefix]

    def _remove_root(self):
        """The mounts are in another namespace; if one were in ours, removing what
        is below it would remove this machine's directories."""
        with open("/proc/self/mountinfo") as file:
            self.assertNotIn(self.root, file.read())
        shutil.rmtree(self.root, ignore_errors=True)

    def start(self, mode):
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "AWS_LAMBDA_RUNTIME_API": "%s:%d" % self.api.address, "_HANDLER": "app.handler",
               "LANTERN_LOG_ADDRESS": "%s:%d" % self.api.logs.address, "AWS_LAMBDA_MAX_CONCURRENCY": "2",
               "LANTERN_PYTHON_FORK": mode, "LAMBDA_TASK_ROOT": "/task", "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")}
        log = open(os.path.join(self.root, "log"), "w+")
        self.addCleanup(log.close)
        process = subprocess.Popen(self.command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        self.api.wait_until(lambda api: len(api.waiting()) >= 2 or process.poll() is not None, "two photons waiting")
        log.seek(0)
        self.assertEqual(log.read(), "", "the sandbox's log has lines")

    def call(self, event):
        result = self.api.invoke(event).result()
        self.assertEqual(result.kind, "response", result.body)
        return result.json()

    def check(self, mode):
        self.start(mode)
        for _ in range(3):
            found = self.call("result = [sorted(os.listdir('/tmp')), tempfile.gettempdir(), open('/tmp/model').read()]")
            self.assertEqual(found, [["model"], "/tmp", "weights"])
            # Programs started in every way see the same private directory.
            self.call("open('/tmp/leak', 'w').close(); os.unlink('/tmp/model')")
        self.assertEqual(self.call("open('/tmp/mine', 'w').write('x'); result = ["
                                   "subprocess.check_output(['ls', '/tmp']).decode().split(),"
                                   "subprocess.check_output('cd /tmp && ls', shell=True).decode().split(),"
                                   "os.popen('ls /tmp').read().split(),"
                                   "os.system('test -e /tmp/mine'),"
                                   "os.waitpid(os.posix_spawn('/usr/bin/test', ['test', '-e', '/tmp/mine'], os.environ), 0)[1]]"),
                         [["mine", "model"]] * 3 + [0, 0])
        self.assertEqual(self.call("os.closerange(3, 4096)"), None)
        self.assertEqual(self.call("result = sorted(os.listdir('/tmp'))"), ["model"])
        self.assertEqual(self.call("import shutil; [os.unlink('/tmp/' + n) for n in os.listdir('/tmp')]; os.rmdir(os.path.realpath('/tmp'))"), None)
        self.assertEqual(self.call("open('/tmp/again', 'w').close(); result = sorted(os.listdir('/tmp'))"), ["again", "model"])

    def test_privileged_slot(self):
        self.check("slot")

    def test_privileged_invocation(self):
        self.check("invocation")

    def test_privileged_two_at_once(self):
        self.start("slot")
        fifo = "/run/lantern/tmp/fifo"
        self.call("os.mkfifo(%r)" % fifo)
        first = self.api.invoke("open('/tmp/first', 'w').close(); open(%r).read(); result = sorted(os.listdir('/tmp'))" % fifo)
        first.wait_taken()
        self.assertEqual(self.call("open('/tmp/second', 'w').close(); result = sorted(os.listdir('/tmp'))\nwith open(%r, 'w'): pass" % fifo), ["model", "second"])
        self.assertEqual(first.result().json(), ["first", "model"])


if __name__ == "__main__":
    unittest.main()
