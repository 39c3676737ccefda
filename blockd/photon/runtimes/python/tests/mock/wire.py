"""Just enough of an HTTP/1.1 server for the mock: one connection, its requests.

Reads bodies by length and by chunks, and trailers, because streamed responses
end with them.
"""


class Request:
    """method, path (without query), query (dict), headers and trailers (dicts,
    names in lower case), body (bytes)."""

    def __init__(self, method, target, headers, body, trailers):
        self.method = method
        self.path, _, query = target.partition("?")
        self.query = dict(pair.partition("=")[::2] for pair in query.split("&") if pair)
        self.headers = headers
        self.body = body
        self.trailers = trailers


def read_request(file):
    """The next request of a connection, None when the client is done."""
    line = file.readline()
    if not line.strip():
        return None
    method, target, version = line.decode("latin-1").split()
    assert version == "HTTP/1.1", version
    headers, trailers = _fields(file), {}
    if headers.get("transfer-encoding") == "chunked":
        assert "content-length" not in headers, "both framings in one request"
        body = _chunks(file)
        trailers = _fields(file)
    else:
        length = int(headers.get("content-length", "0"))
        body = file.read(length)
        if len(body) < length:
            return None
    return Request(method, target, headers, body, trailers)


def _fields(file):
    fields = {}
    while True:
        line = file.readline().decode("latin-1").rstrip("\r\n")
        if not line:
            return fields
        name, colon, value = line.partition(":")
        assert colon, line
        fields[name.strip().lower()] = value.strip()


def _chunks(file):
    parts = []
    while True:
        length = int(file.readline(), 16)
        if length == 0:
            return b"".join(parts)
        parts.append(file.read(length))
        assert file.read(2) == b"\r\n"


def answer(sock, status, headers=(), body=b""):
    """Sends one answer."""
    lines = ["HTTP/1.1 %d x" % status] + ["%s: %s" % pair for pair in headers]
    if status != 204:
        lines.append("Content-Length: %d" % len(body))
    sock.sendall("\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body)
