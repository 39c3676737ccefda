"""/tmp of its own for every invocation, without privileges.

In a sandbox `/tmp` is a symlink to `/proc/self/fd/900` and `ROOT` is the tmpfs
behind it. File descriptor 900 of a process is then its /tmp: the zygote opens
`ROOT/init` there, a photon a directory of its own. Children inherit the
descriptor; `subprocess` closes what it does not know, so `fork_exec` is wrapped.

Outside of such a sandbox a directory per invocation is named by TMPDIR only.

Layout: ROOT/init holds what the import made; ROOT/<slot>/<n> the /tmp of the
present invocation of that slot, with a symlink to each entry of ROOT/init.
Invariant: whoever owns a slot removes ROOT/<slot>; the zygote does it for a
photon that died, and the slot's next photon if something was in the way.
"""

import os

from .imports import when_imported

FD = 900
ROOT = "/run/lantern/tmp"
LINK = "/proc/self/fd/900"


class Scratch:
    """Where the directories are. Made once in the zygote, by `prepare`."""

    __slots__ = ("root", "by_descriptor", "warning", "carried")

    def slot_root(self, slot):
        """The directory that holds the directories of `slot`."""
        return "%s/%d" % (self.root, slot)

    def import_ended(self):
        """Notes what the import left, for symlinks in every photon's /tmp."""
        self.carried = sorted(os.listdir(self.root + "/init"))

    def back_to_import(self):
        """The /tmp of the import becomes the zygote's again."""
        if self.by_descriptor:
            _open_as_tmp(self.root + "/init")
        else:
            os.environ["TMPDIR"] = self.root + "/init"
            _forget_tempdir()

    def remove_slot(self, slot):
        """Removes everything of a slot whose photon is gone."""
        remove_tree(self.slot_root(slot))

    def remove_all(self):
        """At the end of the zygote; only what it made itself."""
        if not self.by_descriptor:
            remove_tree(self.root)


def prepare():
    """First thing in the zygote: gives it a /tmp and returns the `Scratch`.
    In `warning` it says why, if /tmp is not private."""
    scratch = Scratch()
    scratch.carried = []
    scratch.warning = _by_descriptor(scratch)
    scratch.by_descriptor = scratch.warning is None
    if not scratch.by_descriptor:
        parent = os.environ.get("TMPDIR") or "/tmp"
        scratch.root = "%s/lantern-%d-%s" % (parent, os.getpid(), os.urandom(8).hex())
        os.mkdir(scratch.root, 0o700)
        os.mkdir(scratch.root + "/init", 0o700)
        os.environ["TMPDIR"] = scratch.root + "/init"
    return scratch


def _by_descriptor(scratch):
    """Opens ROOT/init as descriptor 900; returns why not, or None."""
    try:
        if os.readlink("/tmp") != LINK:
            return "/tmp is not a link to %s" % LINK
    except OSError:
        return "/tmp is not a link to %s" % LINK
    scratch.root = os.path.realpath(ROOT)
    path = scratch.root + "/init"
    try:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        _allow_descriptor()
        _open_as_tmp(path)
    except OSError as error:
        return "%s cannot be opened as descriptor %d: %s" % (path, FD, error)
    keep_in_children()
    return None


def _allow_descriptor():
    """Descriptor 900 needs a limit above it; 1,024 is usual."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft <= FD:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard) if hard >= 0 else 1024, hard))


def _open_as_tmp(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.dup2(fd, FD, inheritable=True)
    finally:
        os.close(fd)


def keep_in_children():
    """Makes `subprocess` and `multiprocessing` leave descriptor 900 open in the
    children that they start: they close all that is not in the fourth argument,
    a sorted tuple. `os.fork`, `os.posix_spawn` and `os.system` inherit it."""
    import _posixsubprocess

    fork_exec = _posixsubprocess.fork_exec

    def fork_exec_with_tmp(*args):
        keep = tuple(sorted({*args[3], FD}))
        return fork_exec(*args[:3], keep, *args[4:])

    def patch_subprocess(module):
        if getattr(module, "_fork_exec", None) is fork_exec:
            module._fork_exec = fork_exec_with_tmp
        # From 3.13 on it may use posix_spawn to close everything: not so here.
        if hasattr(module, "_HAVE_POSIX_SPAWN_CLOSEFROM"):
            module._HAVE_POSIX_SPAWN_CLOSEFROM = False

    _posixsubprocess.fork_exec = fork_exec_with_tmp
    when_imported("subprocess", patch_subprocess)


class PhotonScratch:
    """The /tmp of one photon: `renew` before each invocation."""

    __slots__ = ("scratch", "slot", "count", "path")

    def __init__(self, scratch, slot):
        self.scratch = scratch
        self.slot = slot
        self.count = 0
        self.path = None
        try:
            os.mkdir(scratch.slot_root(slot), 0o700)
        except FileExistsError:
            self.remove()
            os.mkdir(scratch.slot_root(slot), 0o700)

    def renew(self):
        """Gives the photon an empty /tmp. Keeps the present one if nothing was
        ever made in it."""
        if self.path is None or not self._unused():
            self._replace()
        if not self.scratch.by_descriptor:
            os.environ["TMPDIR"] = self.path
            _forget_tempdir()

    def _replace(self):
        if self.path is not None:
            remove_tree(self.path)
        self.count += 1
        self.path = "%s/%d" % (self.scratch.slot_root(self.slot), self.count)
        os.mkdir(self.path, 0o700)
        for name in self.scratch.carried:
            os.symlink("%s/init/%s" % (self.scratch.root, name), "%s/%s" % (self.path, name))
        if self.scratch.by_descriptor:
            _open_as_tmp(self.path)

    def _unused(self):
        if self.scratch.carried:
            return False  # a link may have been replaced: not worth a look at each
        try:
            if self.scratch.by_descriptor and not os.path.samestat(os.fstat(FD), os.stat(self.path)):
                return False  # somebody closed or replaced the descriptor
            return not os.listdir(self.path)
        except OSError:
            return False

    def remove(self):
        """At the end of the photon."""
        self.scratch.remove_slot(self.slot)


def _forget_tempdir():
    """`tempfile` remembers the directory that it found first."""
    import sys

    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = None


def remove_tree(top):
    """Removes `top` and all below it, as far as permissions allow. `shutil` would
    load half the library. Directories are moved up before their content is
    removed, so a tree of any depth needs neither recursion nor long paths."""
    serial = 0
    if os.path.islink(top) or not os.path.isdir(top):
        _try(os.unlink, top)
        return
    while True:
        directories = _remove_files(top)
        if not directories:
            break
        removed = False
        for directory in directories:
            for inner in _remove_files(directory):
                serial += 1
                _try(os.chmod, inner, 0o700)  # moving a directory writes to it
                removed |= _try(os.rename, inner, "%s/.lantern-moved-%d-%d" % (top, os.getpid(), serial))
            removed |= _try(os.rmdir, directory)
        if not removed:
            return  # not ours to remove: leave it rather than spin
    _try(os.rmdir, top)


def _remove_files(directory):
    """Unlinks what is no directory in `directory`; returns its directories."""
    found = []
    _try(os.chmod, directory, 0o700)
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found.append(entry.path)
                else:
                    _try(os.unlink, entry.path)
    except OSError:
        pass
    return found


def _try(call, *args):
    try:
        call(*args)
        return True
    except OSError:
        return False
