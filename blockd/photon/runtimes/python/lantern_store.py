"""The shared object store of a sandbox, for handlers: `import lantern_store`.

    model = lantern_store.get_or_init("model", load)   # `load` runs once per sandbox
    value, version = lantern_store.get_versioned("counter")
    lantern_store.compare_and_swap("counter", b"2", version)
    with lantern_store.lease("rebuild", wait_seconds=5):
        ...

All invocations of a function that share a sandbox share its store; it lives as
long as the sandbox and may evict. Values are bytes, keys are str of at most
1 KiB as UTF-8. Every thread has a connection of its own, none survives a fork.
Errors are `StoreError`; `TooLarge`, `Timeout` and `LeaseLost` are its kinds.
Only reads are repeated when a connection breaks: after a `StoreError` of another
call nobody knows whether it was carried out.
"""

import os
import threading

MOST_KEY_BYTES = 1024

_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

_local = threading.local()


class StoreError(Exception):
    """The store refused, or could not be reached."""


class TooLarge(StoreError):
    """The value does not fit: it is larger than the budget, or nothing can go for it."""


class Timeout(StoreError):
    """What was waited for did not come in time."""


class LeaseLost(StoreError):
    """The lease had expired when it was used or given back."""


def get(key, default=None):
    """The value of `key`, or `default`."""
    return get_versioned(key, default)[0]


def get_versioned(key, default=None):
    """(value, version) of `key`, or (default, None). A version is an opaque str."""
    answer = _call("GET", _path(key))
    if answer.status == 404:
        return default, None
    _expect(answer, 200)
    return answer.body, answer.headers.get("etag")


def put(key, value, ttl_seconds=None):
    """Sets `key`; returns the new version. Without TTL it stays until evicted."""
    return _put(key, value, ttl_seconds)


def add(key, value, ttl_seconds=None):
    """Sets `key` if it has no value; returns the version, or None if it has one."""
    return _put(key, value, ttl_seconds, [("If-None-Match", "*")])


def compare_and_swap(key, value, version, ttl_seconds=None):
    """Sets `key` if it still has `version` (None: no value); returns the new
    version, or None if it has not."""
    if version is None:
        return add(key, value, ttl_seconds)
    return _put(key, value, ttl_seconds, [("If-Match", version)])


def delete(key, version=None):
    """Removes `key`, if `version` is given only at that one. Returns whether it did."""
    answer = _call("DELETE", _path(key), [] if version is None else [("If-Match", version)])
    _expect(answer, 204, 404, 412)
    return answer.status == 204


def get_or_init(key, function, ttl_seconds=None, wait_seconds=60.0, lease_seconds=60.0):
    """The value of `key`; if there is none, exactly one of all that ask at once
    calls `function()` and stores what it returns, bytes, while the others wait.

    `lease_seconds` is how long `function` may take: then another one is asked.
    If it raises, the next one is asked, and the exception goes to this caller.
    `Timeout` after `wait_seconds` without a value."""
    path = _path(key)
    query = "?wait_ms=%d&lease_ms=%d" % (wait_seconds * 1000, lease_seconds * 1000)
    answer = _call("POST", path + "/init" + query)
    if answer.status == 200:
        return answer.body
    if answer.status == 408:
        raise Timeout("no value for %r after %.1f s" % (key, wait_seconds))
    _expect(answer, 201)
    token = [("Lantern-Lease", answer.headers.get("lantern-lease", ""))]
    try:
        value = function()
        if _put(key, value, ttl_seconds, token) is None:
            raise LeaseLost("the value for %r took longer than the lease of %.1f s" % (key, lease_seconds))
        return value
    except BaseException:
        try:
            _call("DELETE", path + "/init", token)
        except StoreError:
            pass  # the lease expires by itself
        raise


class lease:
    """Context manager: at most one holder of `name` at a time in the sandbox.

    `Timeout` if it is not free within `wait_seconds`. After `ttl_seconds` it is
    free again even if the holder hangs or died; leaving then raises `LeaseLost`,
    unless an exception is on its way already."""

    def __init__(self, name, ttl_seconds=60.0, wait_seconds=60.0):
        self.name = name
        self._path = _path(name, "lease")
        self._query = "?ttl_ms=%d&wait_ms=%d" % (ttl_seconds * 1000, wait_seconds * 1000)
        self._token = None

    def __enter__(self):
        answer = _call("POST", self._path + self._query)
        if answer.status == 408:
            raise Timeout("the lease %r was not free in time" % self.name)
        _expect(answer, 200)
        self._token = answer.headers.get("lantern-lease", "")
        return self

    def __exit__(self, kind, error, trace):
        answer = _call("DELETE", self._path, [("Lantern-Lease", self._token)])
        _expect(answer, 204, 404, 412)
        if answer.status != 204 and kind is None:
            raise LeaseLost("the lease %r expired before it was given back" % self.name)
        return False


def metrics():
    """The store's counters as a dict."""
    import json

    answer = _call("GET", "/lantern/v1/store")
    _expect(answer, 200)
    return json.loads(answer.body)


def _put(key, value, ttl_seconds, headers=()):
    """The new version, or None if a condition in `headers` did not hold."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("a value is bytes, not %s" % type(value).__name__)
    headers = list(headers)
    if ttl_seconds is not None:
        headers.append(("Lantern-Ttl-Ms", str(max(1, int(ttl_seconds * 1000)))))
    answer = _call("PUT", _path(key), headers, bytes(value))
    if answer.status in (413, 507):
        raise TooLarge("%d bytes for %r do not fit into the store: status %d" % (len(value), key, answer.status))
    _expect(answer, 200, 204, 412)
    return None if answer.status == 412 else answer.headers.get("etag", "")


def _path(key, kind="store"):
    data = key.encode("utf-8")
    if not 0 < len(data) <= MOST_KEY_BYTES:
        raise ValueError("a key has 1 to %d bytes, not %d" % (MOST_KEY_BYTES, len(data)))
    text = "".join(chr(byte) if byte in _SAFE else "%%%02X" % byte for byte in data)
    if text in (".", ".."):  # else taken for a step in the path
        text = text.replace(".", "%2E")
    return "/lantern/v1/%s/%s" % (kind, text)


def _call(method, path, headers=(), body=None):
    connection = _connection()
    if method in ("POST", "PUT") and body is None:
        body = b""
    try:
        # A second copy of a write would meet the first: a compare-and-swap that was
        # done would say that it was not, a lease would wait for itself.
        return connection.call(method, path, headers, body, again=method == "GET")
    except OSError as error:
        raise StoreError("%s %s: %s" % (method, path.partition("?")[0], error)) from error


def _connection():
    """This thread's connection; a copy that came through a fork is not used."""
    from lantern_runtime.http import Connection

    connection = getattr(_local, "connection", None)
    if connection is None or _local.pid != os.getpid():
        host, _, port = os.environ["AWS_LAMBDA_RUNTIME_API"].rpartition(":")
        connection = _local.connection = Connection((host, int(port)))
        _local.pid = os.getpid()
    return connection


def _expect(answer, *statuses):
    if answer.status not in statuses:
        raise StoreError("the store answered %d: %s" % (answer.status, answer.body[:200].decode("utf-8", "replace")))
