"""The shared object store of a sandbox, straight from the contract.

One lock and one condition for everything. Values, versions, TTL, get-or-init
leases and named leases; a byte budget with eviction of the least recently used.
"""

import collections
import json
import secrets
import threading
import time
import urllib.parse


class _Entry:
    def __init__(self, value, version, expires):
        self.value, self.version, self.expires = value, version, expires


class Store:
    """`answer` maps a request to (status, headers, body)."""

    def __init__(self, budget_bytes=64 << 20):
        self._changed = threading.Condition()
        self._entries = collections.OrderedDict()
        self._inits = {}  # key -> (token, expires)
        self._leases = {}  # name -> (token, expires)
        self._version = 0
        self._budget = budget_bytes
        self.metrics = dict.fromkeys(("hits", "misses", "evictions", "expired", "inits", "waits"), 0)

    def answer(self, request):
        """Serves one request below /lantern/v1/."""
        parts = [urllib.parse.unquote(part) for part in request.path.split("/")[3:]]
        with self._changed:
            self._expire()
            if parts == ["store"] and request.method == "GET":
                return 200, (), json.dumps(self._all_metrics()).encode()
            if parts[0] == "store" and len(parts) == 2:
                return getattr(self, "_" + request.method.lower())(parts[1], request)
            if parts[0] == "store" and parts[2:] == ["init"]:
                call = self._init if request.method == "POST" else self._give_up
                return call(parts[1], request)
            if parts[0] == "lease" and len(parts) == 2:
                call = self._lease if request.method == "POST" else self._release
                return call(parts[1], request)
        return 404, (), b""

    def _all_metrics(self):
        size = sum(len(entry.value) for entry in self._entries.values())
        return dict(self.metrics, keys=len(self._entries), bytes=size, budget_bytes=self._budget)

    def _expire(self):
        now = time.monotonic()
        for key in [k for k, e in self._entries.items() if e.expires is not None and e.expires <= now]:
            del self._entries[key]
            self.metrics["expired"] += 1
        for table in (self._inits, self._leases):
            for key in [k for k, (_, expires) in table.items() if expires <= now]:
                del table[key]

    def _get(self, key, _request):
        entry = self._entries.get(key)
        self.metrics["misses" if entry is None else "hits"] += 1
        if entry is None:
            return 404, (), b""
        self._entries.move_to_end(key)
        return 200, (("ETag", '"%d"' % entry.version),), entry.value

    def _refused(self, key, request):
        entry = self._entries.get(key)
        present = '"%d"' % entry.version if entry else None
        wanted = request.headers.get("if-match")
        if (wanted and wanted != present) or (request.headers.get("if-none-match") == "*" and entry):
            return 412, (("ETag", present),) if present else (), b""
        return None

    def _put(self, key, request):
        refused = self._refused(key, request)
        if refused:
            return refused
        token = request.headers.get("lantern-lease")
        if token and self._inits.get(key, ("",))[0] != token:
            return 412, (), b""
        if len(request.body) > self._budget:
            return 413, (), b""
        ttl = request.headers.get("lantern-ttl-ms")
        self._version += 1
        self._entries[key] = _Entry(request.body, self._version, time.monotonic() + int(ttl) / 1000 if ttl else None)
        self._entries.move_to_end(key)
        self._evict()
        self._inits.pop(key, None)
        self._changed.notify_all()
        return 200, (("ETag", '"%d"' % self._version),), b""

    def _evict(self):
        while sum(len(entry.value) for entry in self._entries.values()) > self._budget:
            self._entries.popitem(last=False)
            self.metrics["evictions"] += 1

    def _delete(self, key, request):
        refused = self._refused(key, request)
        if refused:
            return refused
        return (204 if self._entries.pop(key, None) else 404), (), b""

    def _init(self, key, request):
        give_up = time.monotonic() + int(request.query["wait_ms"]) / 1000
        while True:
            self._expire()
            if key in self._entries:
                return self._get(key, request)
            if key not in self._inits:
                token = secrets.token_hex(8)
                self._inits[key] = (token, time.monotonic() + int(request.query["lease_ms"]) / 1000)
                self.metrics["inits"] += 1
                return 201, (("Lantern-Lease", token),), b""
            if not self._wait(give_up, self._inits[key][1]):
                return 408, (), b""

    def _wait(self, give_up, expires):
        left = min(give_up, expires) - time.monotonic()
        if give_up <= time.monotonic():
            return False
        self.metrics["waits"] += 1
        self._changed.wait(max(0, left))
        return True

    def _give_up(self, key, request):
        return self._drop(self._inits, key, request)

    def _lease(self, name, request):
        give_up = time.monotonic() + int(request.query["wait_ms"]) / 1000
        while True:
            self._expire()
            if name not in self._leases:
                token = secrets.token_hex(8)
                self._leases[name] = (token, time.monotonic() + int(request.query["ttl_ms"]) / 1000)
                return 200, (("Lantern-Lease", token),), b""
            if not self._wait(give_up, self._leases[name][1]):
                return 408, (), b""

    def _release(self, name, request):
        return self._drop(self._leases, name, request)

    def _drop(self, table, key, request):
        if table.get(key, ("",))[0] != request.headers.get("lantern-lease"):
            return 412, (), b""
        del table[key]
        self._changed.notify_all()
        return 204, (), b""
