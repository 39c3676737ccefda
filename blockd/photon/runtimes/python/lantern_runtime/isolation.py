"""What a photon puts back between two invocations of its own.

Another invocation at the same time is another process, so nothing has to be
done about it here. This is about the next invocation in the same process, in
slot mode: everything that belongs to the process rather than to the Python
program is put back to what the import left: environment, working directory,
umask, signal handlers, timers, random state, children. Python objects (module
globals, caches, open connections) are kept on purpose, as on AWS.
"""

import _signal
import _thread
import os
import sys
import time

from . import system

CHILDREN_SECONDS = 2.0
"""How long killed children may take to go. Longer means that the kernel holds
one (a hung device), or that they fork faster than they are found; the photon then
ends, and the zygote takes over."""

_SIGNALS = [number for number in range(1, _signal.NSIG) if number not in (_signal.SIGKILL, _signal.SIGSTOP)]


class Baseline:
    """The process as the import of the handler and hooks left it; taken in the zygote,
    and again in a photon that has hooks of its own."""

    __slots__ = ("environ", "variables", "cwd", "umask", "handlers", "mask")

    def __init__(self):
        self.environ = os.environ
        self.variables = dict(os.environ._data)
        try:
            self.cwd = os.getcwd()
        except OSError:
            self.cwd = "/"
        self.umask = os.umask(0o022)
        os.umask(self.umask)
        self.handlers = _handlers()
        self.mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())

    def restore(self):
        """Puts everything back. Cheap when nothing was changed."""
        os.environ = self.environ
        if os.environ._data != self.variables:
            self._restore_environment()
        try:
            os.chdir(self.cwd)
        except OSError:
            pass
        os.umask(self.umask)
        self.restore_signals()
        reseed()

    def _restore_environment(self):
        environ = self.environ
        for name in [name for name in environ._data if name not in self.variables]:
            del environ[environ.decodekey(name)]
        for name, value in self.variables.items():
            if environ._data.get(name) != value:
                environ[environ.decodekey(name)] = environ.decodevalue(value)

    def restore_signals(self):
        """Handlers, mask and timers. None stands for a handler that was not set
        by Python and that Python cannot set again."""
        now = _handlers()
        if now != self.handlers:
            for number, handler, before in zip(_SIGNALS, now, self.handlers):
                if handler != before and before is not None:
                    _set_handler(number, before)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self.mask)
        _signal.alarm(0)
        for timer in (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF):
            _signal.setitimer(timer, 0)


def _handlers():
    return [_signal.getsignal(number) for number in _SIGNALS]


def _set_handler(number, handler):
    try:
        _signal.signal(number, handler)
    except (OSError, ValueError):
        pass  # signals that the C library keeps for itself


def reseed():
    """New random state for `random` and `numpy.random`, if they are loaded.
    `os.urandom`, `secrets`, `uuid4` and OpenSSL ask the kernel or notice the
    fork. The seed of string hashes cannot be changed in a running interpreter."""
    random = sys.modules.get("random")
    if random is not None:
        random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        try:
            numpy_random.seed()
        except Exception:
            pass  # a replaced bit generator may take no seed


def threads():
    """Python threads besides the main one."""
    return _thread._count()


def has_children():
    """Whether this process has children, dead or alive: one system call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    except ChildProcessError:
        return False


def lead_group():
    """Makes this process the first of a process group, so that a `kill 0` of user
    code reaches no other photon. Returns the group that it was in."""
    home = os.getpgrp()
    try:
        os.setpgid(0, 0)
    except OSError:
        pass  # it leads a session already
    return home


def end_children(home):
    """Kills and reaps all descendants. Orphans of killed children become our
    children (`system.adopt_orphans`), so the loop ends when none is left. `home`
    is what `lead_group` returned. Returns False if some would not go in
    `CHILDREN_SECONDS`."""
    give_up = time.monotonic() + CHILDREN_SECONDS
    while has_children():
        if time.monotonic() > give_up:
            return False
        _kill_own_group(home)
        spared = (home, os.getpgrp())
        for pid in system.children():
            kill_with_group(pid, spared)
        if not _reap_some():
            time.sleep(0.001)
    return True


def kill_with_group(pid, spared):
    """Kills a process, and its process group if that is none of `spared`. A group
    dies at one moment: who forks and exits in it all the time cannot slip through,
    as it can when processes are listed and then killed."""
    try:
        group = os.getpgid(pid)
        if group > 0 and group not in spared:
            os.killpg(group, _signal.SIGKILL)
        os.kill(pid, _signal.SIGKILL)
    except OSError:
        pass


def _kill_own_group(home):
    """All but this process, which steps aside into the group `home` for it."""
    me = os.getpid()
    if os.getpgrp() != me:
        return
    try:
        os.setpgid(0, home)
        if os.getpgrp() != me:
            os.killpg(me, _signal.SIGKILL)
    except OSError:
        pass  # no such group: nobody is left in it
    lead_group()


def _reap_some():
    reaped = False
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            reaped = True
    except ChildProcessError:
        pass
    return reaped
