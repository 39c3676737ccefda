"""A log connection of its own for every invocation.

Bytes that an invocation or its children write to descriptors 1 and 2 go to a
TCP connection that starts with the request's id and ends before its answer is
posted. Between invocations the descriptors lead to the sandbox's own log.

Invariants. `sys.stdout` and `sys.stderr` are the same objects all the time and
are flushed before the descriptors move, so a handler of `logging` that keeps
one of them never holds bytes of an invocation that is over. The connection is
shut down, not only closed: a process that still has it cannot write more.
"""

import _socket
import os
import sys


class Streams:
    """The standard streams of the zygote, as every invocation finds them."""

    __slots__ = ("stdout", "stderr", "stdin", "_out_fd", "_err_fd")

    def __init__(self):
        """Called in the zygote before the import of the handler. Lines leave at
        once: what is still in a buffer is lost when a photon is killed."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(line_buffering=True, errors="backslashreplace")
        self.stdout, self.stderr, self.stdin = sys.stdout, sys.stderr, sys.stdin
        self._out_fd = _duplicate(1)
        self._err_fd = _duplicate(2)

    def restore_objects(self):
        """Puts back `sys.stdout` and its like if user code replaced or closed them."""
        self.stdout = _usable(self.stdout, 1)
        self.stderr = _usable(self.stderr, 2)
        sys.stdout = sys.__stdout__ = self.stdout
        sys.stderr = sys.__stderr__ = self.stderr
        sys.stdin = self.stdin

    def flush(self):
        """Flushes the streams that user code may have written to."""
        for stream in {id(s): s for s in (sys.stdout, sys.stderr, self.stdout, self.stderr)}.values():
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                pass  # closed, or its reader is gone: nothing to save

    def point_home(self):
        """Descriptors 1 and 2 lead to the sandbox's log again. If user code closed
        the way home, they lead nowhere, and this returns False."""
        try:
            os.dup2(self._out_fd, 1)
            os.dup2(self._err_fd, 2)
            return True
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            os.close(null)
            return False


def _duplicate(fd):
    """A copy of `fd`, above the descriptors that programs like to close."""
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, fd)
        return null


def _usable(stream, fd):
    if stream is not None and not stream.closed:
        return stream
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


class PhotonLog:
    """The log of one photon, invocation after invocation."""

    __slots__ = ("address", "streams", "_sock")

    def __init__(self, address, streams):
        """`address` is (host, port), or None: then all goes to the sandbox's log."""
        self.address = address
        self.streams = streams
        self._sock = None

    def connect_ahead(self):
        """Opens the next invocation's connection while there is nothing else to
        do. A failure is found again, and told, by `begin`."""
        if self.address is None or self._sock is not None:
            return
        sock = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        try:
            # User code may have set a default timeout (`socket.setdefaulttimeout`),
            # with which the descriptor would not block and `_alive` would wait.
            sock.settimeout(None)
            sock.connect(self.address)
            # A line must not wait for the acknowledgement of the line before.
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()
            return
        self._sock = sock

    def use(self, sock):
        """Takes a socket for the next invocation instead of connecting one."""
        self._drop()
        self._sock = sock

    def begin(self, request_id):
        """The invocation starts: its bytes go to its own connection."""
        if self.address is None:
            return
        line = request_id.encode("utf-8", "replace") + b"\n"
        for _ in range(2):
            self.connect_ahead()
            if self._sock is not None and self._alive():
                try:
                    self._sock.sendall(line)
                    fd = self._sock.fileno()
                    os.dup2(fd, 1)
                    os.dup2(fd, 2)
                    return
                except OSError:
                    pass
            self._drop()
        print("lantern: no log connection for request %s" % request_id, file=self.streams.stderr, flush=True)

    def _alive(self):
        """Whether the server still has the connection that was opened ahead."""
        try:
            return self._sock.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def end(self):
        """The invocation is over: everything it wrote is on its way, and nothing
        follows, whoever still holds the connection. False if the photon has no
        log to go on with."""
        self.streams.flush()
        if self._sock is not None:
            try:
                self._sock.shutdown(_socket.SHUT_WR)
            except OSError:
                pass
        home = self.streams.point_home()
        self._drop()
        return home

    def _drop(self):
        if self._sock is not None:
            try:
                self._sock.close()
            except OSError:
                pass  # user code closed it
            self._sock = None
