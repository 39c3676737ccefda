"""What the import left open, and what a photon has in its place.

A fork shares open descriptors, and with them what the kernel keeps for them:
the bytes of a connection, the place in a file, who waits for what. Invocations
at the same time would meet there, so each photon gets its own:

- Connection (a stream socket that does not listen): a dead one. Reading finds
  its end, writing fails, so that a client opens another. Only the zygote keeps
  the real one, for threads of the import that may use it.
- Two sockets that are each other's peers (an event loop wakes itself with such
  a pair): a new pair.
- epoll: a new one that waits for the same.
- Regular file that can be read: opened again, at the same place in it. Not if
  it is locked, as the lock would stay behind.

All else stays shared: pipes, eventfds, timerfds and inotify; datagram and
listening sockets, of which the kernel gives each datagram or connection to one
process; files that are only written, where each adds behind the other.

`Inherited.fork` does this within `os.fork`, before any other code of the photon:
its hook is registered before the import can register others.
"""

import _socket
import os
import select
import stat
import sys

_FAMILIES = (_socket.AF_INET, _socket.AF_INET6, _socket.AF_UNIX, getattr(_socket, "AF_VSOCK", -1))
_TYPES = (_socket.SOCK_STREAM, _socket.SOCK_SEQPACKET)

_FILE_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_DSYNC | os.O_SYNC | os.O_DIRECT
"""Flags with which a file is opened again. The others act only on opening, or
are the descriptor's."""

REHEARSALS = 12
"""Calls of the fork without a fork. Otherwise the first call, in each photon,
would write to 80 KB (CPython 3.11; see `rehearsal`)."""


class Inherited:
    """The plan, and the fork that carries it out. One object, in the zygote."""

    __slots__ = ("failure", "_plan", "_needed", "_pid", "_armed")

    def __init__(self):
        """Called before the import: hooks run in the order in which they came."""
        self.failure = None
        """In a photon: why it must not live."""
        self._plan = None
        self._needed = False
        self._pid = os.getpid()
        self._armed = False
        os.register_at_fork(after_in_child=self._after_fork)

    def import_ended(self):
        """Looks at what is open. Returns who is at the other end of connections."""
        for _ in range(REHEARSALS):
            self.fork(self._after_fork)
        plan = Plan(self._pid)
        self._take(plan)
        return plan.peers

    def _take(self, plan):
        """Other threads may open and close more at any time. While there are any, each
        photon looks for itself, which costs it 170 KB: it has one thread only."""
        self._plan = plan if len(os.listdir("/proc/self/task")) == 1 else None
        self._needed = self._plan is None or not plan.empty()

    def fork(self, call):
        """Calls `os.fork`, which user code may have replaced. A child in which `failure`
        is set must end at once."""
        if self._needed and self._plan is None:
            self._take(Plan(self._pid))  # OpenBLAS ends its threads at the first fork
        self._armed = self._needed
        zygote = os.getpid()
        try:
            pid = call()
            if pid == 0:
                self._after_fork()  # what user code has there may run no hooks
            return pid
        except BaseException:
            if os.getpid() != zygote:
                os._exit(1)  # it would become a second zygote
            raise
        finally:
            self._armed = False

    def _after_fork(self):
        """In every child, also of the import and of handlers. What it raised would
        only be logged by the interpreter."""
        if not self._armed:
            return
        self._armed = False
        try:
            plan = Plan(self._pid) if self._plan is None else self._plan
            plan.carry_out()
        except BaseException as error:
            self.failure = error


class Plan:
    """What to put in place of which descriptor."""

    __slots__ = ("peers", "_dead", "_pairs", "_epolls", "_files")

    def __init__(self, zygote):
        """Looks at all descriptors of this process. `zygote` is the pid that the
        kernel has noted on both ends of a pair that the import made."""
        self.peers, self._dead, self._pairs, self._epolls, self._files = [], [], [], [], []
        sockets = {}
        standard = [_identity(fd) for fd in (0, 1, 2)]  # there are copies of these
        for fd in sorted(int(name) for name in os.listdir("/proc/self/fd")):
            try:
                identity = _identity(fd)
                if identity is None or identity in standard:
                    continue
                mode = os.fstat(fd).st_mode
                if stat.S_ISSOCK(mode):
                    _look_at_socket(fd, sockets.setdefault(identity, _Socket()), zygote)
                elif stat.S_ISREG(mode):
                    self._look_at_file(fd)
                elif os.readlink("/proc/self/fd/%d" % fd) == "anon_inode:[eventpoll]":
                    self._look_at_epoll(fd)
            except OSError:
                continue  # gone: the listing's own, or a thread has closed it
        self._look_at_connections([sock for sock in sockets.values() if sock.fds])

    def _look_at_connections(self, sockets):
        for sock in sockets:  # once all have their names
            sock.peer = _peer(sock.fds[0][0])
        by_peer = {sock.peer: sock for sock in sockets if sock.name}
        for sock in sockets:
            other = by_peer.get(sock.name) if sock.name else None
            if other is None or by_peer.get(other.name) is not sock:
                self.peers.append(_shown(sock.peer))
                self._dead += sock.fds
            elif sock.fds < other.fds:
                self._pairs.append((sock.kind, sock.fds, other.fds))

    def _look_at_file(self, fd):
        information = _information(fd)
        if any(name == "lock" and "POSIX" not in value for name, value in information):
            return  # POSIX locks are the process's
        values = dict(information)
        flags = int(values["flags"], 8)
        if flags & os.O_ACCMODE != os.O_WRONLY and not flags & os.O_PATH:
            self._files.append((fd, os.get_inheritable(fd), flags & _FILE_FLAGS, int(values["pos"])))

    def _look_at_epoll(self, fd):
        """Only if what it tells are the numbers of descriptors, as with Python's.
        Addresses, as some C libraries have them, cannot be set from here."""
        waits = []
        for name, value in _information(fd):
            if name == "tfd":
                number, _, events, _, data = value.split()[:5]
                if int(data, 16) & 0xFFFFFFFF != int(number):
                    return
                waits.append((int(number), int(events, 16)))
        self._epolls.append((fd, os.get_inheritable(fd), waits))

    def empty(self):
        """Whether there is nothing to do."""
        return not (self._dead or self._pairs or self._epolls or self._files)

    def carry_out(self):
        """In the photon."""
        if self._dead:
            dead, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
            other.close()
            _put(dead.fileno(), self._dead)
            dead.close()
        for kind, *ends in self._pairs:
            for sock, fds in zip(_socket.socketpair(_socket.AF_UNIX, kind), ends):
                _put(sock.fileno(), fds)
                sock.close()
        for fd, inheritable, flags, offset in self._files:
            _open_again(fd, inheritable, flags, offset)
        for fd, inheritable, waits in self._epolls:
            _wait_again(fd, inheritable, waits)


class _Socket:
    """One socket, `name`d only if its peer may be in this process too."""

    __slots__ = ("kind", "name", "peer", "fds")

    def __init__(self):
        self.kind = self.name = self.peer = None
        self.fds = []  # (number, inheritable, blocking)


def _identity(fd):
    """Equal for descriptors of the same thing; None if it is closed."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _information(fd):
    """(name, value) pairs of what the kernel says of a descriptor."""
    with open("/proc/self/fdinfo/%d" % fd, "rb", buffering=0) as file:
        lines = file.readall().decode("ascii", "replace").splitlines()
    return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]


def _borrow(fd):
    """A socket object for calls on a descriptor; to be detached. The flag keeps a
    default timeout that user code has set from changing the descriptor."""
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK, 0, fd)


def _look_at_socket(fd, found, zygote):
    """Notes it in `found` if it is a connection, or may still become one."""
    sock = _borrow(fd)
    try:
        family, kind, listens = [sock.getsockopt(_socket.SOL_SOCKET, option) for option in
                                 (_socket.SO_DOMAIN, _socket.SO_TYPE, _socket.SO_ACCEPTCONN)]
        if family not in _FAMILIES or kind not in _TYPES or listens:
            return
        found.kind = kind
        if family == _socket.AF_UNIX:
            credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
            if int.from_bytes(credentials[:4], sys.byteorder) == zygote:
                found.name = _named(sock)
        found.fds.append((fd, os.get_inheritable(fd), os.get_blocking(fd)))
    finally:
        sock.detach()


def _named(sock):
    """The address of a Unix socket, by which its peer knows it. One of a pair has
    none: then the kernel gives it one that nobody else has."""
    try:
        sock.bind("")
    except OSError:
        pass  # it has one
    return sock.getsockname()


def _peer(fd):
    """The address at the other end; None if there is none yet, or no more."""
    try:
        sock = _borrow(fd)
    except OSError:
        return None  # a thread has closed it
    try:
        return sock.getpeername()
    except OSError:
        return None
    finally:
        sock.detach()


def _shown(peer):
    if isinstance(peer, tuple):  # host and port, for IPv6 two more; numbers for vsock
        return ("[%s]:%s" if len(peer) == 4 else "%s:%s") % peer[:2]
    if isinstance(peer, bytes):  # an abstract Unix socket
        return "@" + peer[1:].decode("utf-8", "replace")
    return peer or "no address"


def _put(source, fds):
    """Puts what `source` is in the place of all of `fds`."""
    for fd, inheritable, blocking in fds:
        os.dup2(source, fd, inheritable)
        os.set_blocking(fd, blocking)


def _open_again(fd, inheritable, flags, offset):
    """A file that may not be opened again (by its permissions) stays as it is."""
    try:
        new = os.open("/proc/self/fd/%d" % fd, flags | os.O_CLOEXEC)
    except OSError:
        return
    os.lseek(new, offset, os.SEEK_SET)
    os.dup2(new, fd, inheritable)
    os.close(new)


def _wait_again(fd, inheritable, waits):
    new = select.epoll()
    for number, events in waits:
        try:
            new.register(number, events)
        except OSError:
            pass  # closed since: the kernel had forgotten it, or will
    os.dup2(new.fileno(), fd, inheritable)
    new.close()
