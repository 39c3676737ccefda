"""A minimal HTTP/1.1 keep-alive client for the Runtime API.

`http.client` parses headers with the e-mail package, which costs every photon
hundreds of dirtied kilobytes and every call several hundred microseconds; the
Runtime API needs a status, a dozen headers and a body. `_socket` instead of
`socket` for the same reason.

Invariants: what a server sends is bounded (`MOST_HEAD_BYTES`,
`MOST_BODY_BYTES`); anything that is not understood is a `ProtocolError` and
closes the connection, so that no byte of one answer is read as the next.
"""

import _socket

MOST_HEAD_BYTES = 64 * 1024
"""Status line and headers of one answer. AWS bounds the client context to
3,583 bytes and trace ids to less; the rest of a head is below 1 KiB."""

MOST_BODY_BYTES = 256 * 1024 * 1024
"""One answer's body. blockd bounds events far below; this only keeps a
confused peer from taking all memory."""

RECEIVE_BYTES = 16 * 1024
"""One `recv`. Small, because the buffer is a photon's private memory."""

JOIN_BYTES = 16 * 1024
"""Bodies up to this are copied behind the head, so that they leave in one
packet; larger ones are sent on their own, without the copy."""


class ProtocolError(OSError):
    """The peer sent what is no HTTP/1.1 answer, or one beyond the bounds."""


class Answer:
    """Status (int), headers (dict, names in lower case), body (bytes)."""

    __slots__ = ("status", "headers", "body")

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body


class Connection:
    """One keep-alive connection, opened when first needed. Not thread safe."""

    __slots__ = ("address", "timeout", "sock", "cut", "_rest")

    def __init__(self, address, timeout=None):
        """`address` is (host, port); `timeout` in seconds, None waits for ever."""
        self.address = address
        self.timeout = timeout
        self.sock = None
        self._rest = b""
        self.cut = False
        """Whether the server answered before it had read the whole request, and reads no more."""

    def open(self):
        """Connects if not connected."""
        if self.sock is not None:
            return
        sock = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self.address)
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        self.sock = sock
        self._rest = b""
        self.cut = False

    def close(self):
        """Closes the connection, if there is one."""
        if self.sock is not None:
            try:
                self.sock.close()
            except OSError:
                pass
            self.sock = None
        self._rest = b""

    def __del__(self):
        self.close()

    def send(self, method, path, headers=(), body=None):
        """Sends one request. `headers` are (name, value) pairs of str; `body`
        is bytes or None. Closes the connection when that fails."""
        head = self._request(method, path, headers, "" if body is None else "Content-Length: %d\r\n" % len(body))
        if body and len(body) > JOIN_BYTES:
            self._send(head)
            self._send(body)
        else:
            self._send(head + body if body else head)

    def begin_chunks(self, method, path, headers):
        """Starts a request whose body follows by `send_chunk`, then `end_chunks`."""
        self._send(self._request(method, path, headers, "Transfer-Encoding: chunked\r\n"))

    def send_chunk(self, data):
        """Sends one piece of the body. An empty one is no piece: it would end it. After
        it `cut` says whether more makes sense."""
        if data:
            self._send(b"%x\r\n%b\r\n" % (len(data), data))

    def end_chunks(self, trailers=()):
        """Ends the body, with trailers as (name, value) pairs."""
        self._send(("0\r\n%s\r\n" % "".join("%s: %s\r\n" % pair for pair in trailers)).encode("latin-1", "replace"))

    def _request(self, method, path, headers, framing):
        fields = "".join("%s: %s\r\n" % pair for pair in headers)
        text = "%s %s HTTP/1.1\r\nHost: %s:%d\r\n%s%s\r\n" % (method, path, *self.address, fields, framing)
        return text.encode("latin-1", "replace")

    def _send(self, data):
        try:
            self.open()
            self.sock.sendall(data)
        except BaseException as error:
            if isinstance(error, ConnectionError) and self._answered():
                self.cut = True
                return
            self.close()
            raise

    def _answered(self):
        """Whether a server that takes no more, because a request is too large for it
        or comes too late, had said so before it closed: `receive` then tells."""
        try:
            return self.sock is not None and self.sock.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT) != b""
        except OSError:
            return False

    def receive(self):
        """Reads one answer. Closes the connection when that fails, or when the
        server asks for it."""
        try:
            while True:
                status, headers = self._head()
                if status >= 200:
                    break
            body = self._body(status, headers)
        except BaseException:
            self.close()
            raise
        if self.cut or headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, headers, body)

    def refresh(self):
        """Drops a connection that the server closed while it was idle, as it may.
        For requests that cannot be sent again when sending them shows it."""
        if self.sock is None:
            return
        try:
            self.sock.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return  # open, and nothing to read: as it should be
        except OSError:
            pass
        self.close()

    def call(self, method, path, headers=(), body=None, again=True):
        """Sends one request and reads its answer. A keep-alive connection that
        the server (or user code: it can close any descriptor) closed meanwhile
        is opened again, once. With `again` a second copy of the request does no
        harm, so this is tried, the quickest way; without, a connection that
        breaks under the request is an error: it may have been carried out."""
        if not again:
            self.refresh()
        fresh = self.sock is None
        try:
            self.send(method, path, headers, body)
            return self.receive()
        except ProtocolError:
            raise
        except OSError:
            if fresh or not again:
                raise
        self.send(method, path, headers, body)
        return self.receive()

    def _more(self):
        data = self.sock.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError("the Runtime API closed the connection within an answer")
        return data

    def _head(self):
        data = self._rest
        while True:
            end = data.find(b"\r\n\r\n")
            if end >= 0:
                break
            if len(data) > MOST_HEAD_BYTES:
                raise ProtocolError("the head of an answer is longer than %d bytes" % MOST_HEAD_BYTES)
            data += self._more()
        self._rest = data[end + 4:]
        return parse_head(data[:end])

    def _body(self, status, headers):
        if status in (204, 304):
            return b""
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return self._chunks()
        text = headers.get("content-length", "0")
        if not text.isdigit() or int(text) > MOST_BODY_BYTES:
            raise ProtocolError("content-length %r of an answer is no length up to %d" % (text[:32], MOST_BODY_BYTES))
        return self._exactly(int(text))

    def _exactly(self, length):
        if len(self._rest) >= length:
            body, self._rest = self._rest[:length], self._rest[length:]
            return body
        parts, have = [self._rest], len(self._rest)
        self._rest = b""
        while have < length:
            data = self.sock.recv(min(max(RECEIVE_BYTES, length - have), 1024 * 1024))
            if not data:
                raise ConnectionResetError("the Runtime API closed the connection within an answer")
            parts.append(data)
            have += len(data)
        body = b"".join(parts)
        self._rest = body[length:]
        return body[:length]

    def _line(self):
        while True:
            line, found, rest = self._rest.partition(b"\r\n")
            if found:
                self._rest = rest
                return line
            if len(self._rest) > MOST_HEAD_BYTES:
                raise ProtocolError("a line of an answer is longer than %d bytes" % MOST_HEAD_BYTES)
            self._rest += self._more()

    def _chunks(self):
        parts, total = [], 0
        while True:
            text = self._line().split(b";")[0].strip()
            try:
                length = int(text, 16)
            except ValueError:
                raise ProtocolError("%r is no length of a chunk" % text[:32]) from None
            total += length
            if length < 0 or total > MOST_BODY_BYTES:
                raise ProtocolError("a chunked answer is longer than %d bytes" % MOST_BODY_BYTES)
            if length == 0:
                while self._line():
                    pass
                return b"".join(parts)
            parts.append(self._exactly(length))
            self._line()


def parse_head(head):
    """Status and headers of `head`: bytes up to, without, the empty line."""
    lines = head.decode("utf-8", "replace").split("\r\n")
    first = lines[0].split(" ", 2)
    if len(first) < 2 or not first[0].startswith("HTTP/1.") or not first[1].isdigit():
        raise ProtocolError("%r is no status line" % lines[0][:64])
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise ProtocolError("%r is no header" % line[:64])
        headers[name.strip().lower()] = value.strip()
    return int(first[1]), headers
