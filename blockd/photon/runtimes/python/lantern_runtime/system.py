"""The kernel calls that the standard library lacks, and /proc.

`ctypes` may be missing from a small Python; then each function says so by its
return value and the runtime goes on with less (the README's table says what
is lost). Nothing in here raises for a refusal of the kernel.
"""

import os

PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_MEMORY_MERGE = 67
M_ARENA_MAX = -8

_libc = None


def prepare():
    """Loads the C library's calls. Called once, in the zygote, before any fork:
    what `ctypes` allocates is then shared by all photons."""
    global _libc
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=False)
        libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
        libc.prctl.restype = ctypes.c_int
        _libc = libc
    except (ImportError, OSError, AttributeError):
        _libc = None


def libc():
    """The C library for `ctypes`, or None."""
    return _libc


def _prctl(option, value):
    return _libc is not None and _libc.prctl(option, value, 0, 0, 0) == 0


def adopt_orphans():
    """Makes this process the parent of its descendants' orphans, so that none
    escapes `end_children`. The setting is not inherited. False if refused."""
    return _prctl(PR_SET_CHILD_SUBREAPER, 1)


def hide_memory():
    """Closes /proc/PID/mem, environ and fd of this process, and ptrace, to other
    processes of the same user. Inherited by fork, not by exec."""
    return _prctl(PR_SET_DUMPABLE, 0)


def merge_memory():
    """Lets the kernel merge equal pages of this process, of its forks, and of all others
    that let it (KSM, from Linux 6.4 on). False if refused, or if it knows no such thing."""
    return _prctl(PR_SET_MEMORY_MERGE, 1)


def trim_heap():
    """Gives free memory at the top and inside of malloc's heap back to the
    kernel (glibc only)."""
    try:
        _libc.malloc_trim(0)
    except AttributeError:
        pass


class VictimScore:
    """The out-of-memory score with which photons start: the kernel kills a photon
    before the zygote. The zygote raises its own for the moment of a fork and
    lowers it to what it was, both without privileges. Its file is opened before
    `hide_memory`, which gives all of /proc/PID to root."""

    def __init__(self, score):
        try:
            self.fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
            self._own = os.read(self.fd, 16).strip()
            self._raised = b"%d" % max(score, int(self._own))
        except (OSError, ValueError):
            self.fd = None

    def raise_for_fork(self):
        """Zygote, before a fork."""
        self._write(True)

    def lower(self):
        """Zygote, after it."""
        self._write(False)

    def _write(self, raised):
        if self.fd is not None:
            try:
                os.pwrite(self.fd, self._raised if raised else self._own, 0)
            except OSError:
                pass


def children():
    """Process ids of this process's children, those of all its threads."""
    found = []
    try:
        for thread in os.listdir("/proc/self/task"):
            try:
                with open("/proc/self/task/%s/children" % thread, "rb", buffering=0) as file:
                    found += [int(word) for word in file.readall().split()]
            except FileNotFoundError:
                if not os.path.exists("/proc/self/task/%s" % thread):
                    continue  # the thread ended meanwhile
                return _children_by_parent()
    except OSError:
        return _children_by_parent()
    return found


def _children_by_parent():
    """`children` for kernels without CONFIG_PROC_CHILDREN: asks every process."""
    found, me = [], b"%d" % os.getpid()
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return found
    for name in names:
        try:
            with open("/proc/%s/stat" % name, "rb", buffering=0) as file:
                # The name of the program is in brackets and may hold anything.
                if file.readall().rpartition(b")")[2].split()[1] == me:
                    found.append(int(name))
        except (OSError, IndexError):
            continue
    return found
