"""The Runtime API 2018-06-01 as blockd serves it inside a sandbox.

`MockApi.invoke` puts an invocation into the queue; a waiting `next` takes it;
`Invocation.result` is what was posted. Only for as many invocations as there
are waiting `next` calls is anything handed out, to the call that came last. A client that half-closes or
closes its connection takes its `next` back: an invocation is handed out or the
`next` is withdrawn, never both (`_Waiter`, under one lock).
"""

import collections
import json
import select
import socket
import threading
import time
import uuid

from . import wire
from .logs import LogPort
from .store import Store

DEADLINE_SECONDS = 60
"""How long a test waits for what must happen. Generous: it only ends failures."""


class Result:
    """What was posted for an invocation. `kind` is "response" or "error"."""

    def __init__(self, kind, request, log, log_closed):
        self.kind = kind
        self.body = request.body
        self.headers = request.headers
        self.trailers = request.trailers
        self.log = log
        self.log_closed = log_closed

    def json(self):
        """The body, parsed."""
        return json.loads(self.body)


class Invocation:
    """One invocation on its way through the mock."""

    def __init__(self, body, headers):
        self.request_id = str(uuid.uuid4())
        self.body = body
        self.headers = headers
        self.pid = None
        self.taken = threading.Event()
        self.answered = threading.Event()
        self.posted = None

    def wait_taken(self):
        """Waits until a photon has it; returns the photon's pid."""
        assert self.taken.wait(DEADLINE_SECONDS), "no photon took the invocation"
        return self.pid

    def result(self):
        """Waits for the answer."""
        assert self.answered.wait(DEADLINE_SECONDS), "the invocation was not answered"
        return self.posted


class _Waiter:
    def __init__(self, pid):
        self.pid = pid
        self.ready = threading.Event()
        self.invocation = None


class MockApi:
    """The servers. Close it at the end."""

    def __init__(self):
        """Set `with_logs` to False for a runtime that knows nothing of the log port,
        `most_bytes` to bound answers, `status` to have all answers refused with it,
        `lose_answers` to the count of store calls whose connection breaks behind them."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = self._listener.getsockname()
        self.logs = LogPort()
        self.store = Store()
        self.with_logs = True
        self.most_bytes = None
        self.status = None
        self.lose_answers = 0
        self._changed = threading.Condition()
        self._queue = collections.deque()
        self._waiters = []
        self._expired = set()
        self._known = {}  # request id -> Invocation, as long as an answer is accepted
        self.init_errors = []
        self.late = 0
        self.unknown = 0
        self.problems = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        """Stops listening."""
        self._listener.close()
        self.logs.close()

    # For the tests.

    def invoke(self, event=None, body=None, deadline_ms=None, **headers):
        """Queues an invocation. `headers` are further headers of `next`, with _ for -."""
        sent = {"Content-Type": "application/json",
                "Lambda-Runtime-Deadline-Ms": str(deadline_ms or int(time.time() * 1000) + 60000),
                "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:local:0:function:f",
                "Lambda-Runtime-Trace-Id": "Root=1-%s" % uuid.uuid4().hex}
        sent.update((name.replace("_", "-"), value) for name, value in headers.items())
        invocation = Invocation(json.dumps(event).encode() if body is None else body, sent)
        with self._changed:
            self._known[invocation.request_id] = invocation
            self._queue.append(invocation)
            self._hand_out()
        return invocation

    def expire(self, invocation):
        """Answers the caller as blockd does at a deadline: later answers get 410."""
        with self._changed:
            self._known.pop(invocation.request_id, None)
            self._expired.add(invocation.request_id)

    def waiting(self):
        """Pids of the photons whose `next` waits."""
        with self._changed:
            return [waiter.pid for waiter in self._waiters]

    def wait_until(self, condition, what):
        """Waits until `condition(api)` holds."""
        give_up = time.monotonic() + DEADLINE_SECONDS
        with self._changed:
            while not condition(self):
                assert time.monotonic() < give_up, "never happened: " + what
                self._changed.wait(0.05)

    # The server.

    def _hand_out(self):
        while self._queue and self._waiters:
            waiter = self._waiters.pop()
            waiter.invocation = self._queue.popleft()
            waiter.ready.set()
        self._changed.notify_all()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        with sock, sock.makefile("rb") as file:
            try:
                while True:
                    request = wire.read_request(file)
                    if request is None or not self._answer(sock, request):
                        return
            except OSError:
                pass
            except Exception as error:
                self.problems.append(repr(error))

    def _answer(self, sock, request):
        """Answers one request; False ends the connection."""
        parts = request.path.split("/")[1:]
        if parts[0] == "lantern":
            answer = self.store.answer(request)
            if self.lose_answers:
                self.lose_answers -= 1
                return False
            wire.answer(sock, *answer)
        elif parts[:3] != ["2018-06-01", "runtime", parts[2]]:
            wire.answer(sock, 404)
        elif parts[2:] == ["invocation", "next"]:
            return self._next(sock, request)
        elif parts[2:] == ["init", "error"]:
            self.init_errors.append((request.headers, json.loads(request.body)))
            wire.answer(sock, 202)
        elif len(parts) == 5 and parts[4] in ("response", "error"):
            wire.answer(sock, self._post(parts[3], parts[4], request))
        else:
            wire.answer(sock, 404)
        return True

    def _next(self, sock, request):
        pid = request.headers.get("lantern-photon-pid")
        waiter = _Waiter(int(pid) if pid else None)
        with self._changed:
            self._waiters.append(waiter)
            self._hand_out()
        while not waiter.ready.wait(0.05):
            if select.select([sock], [], [], 0)[0] and self._withdraw(waiter):
                return False
        invocation = waiter.invocation
        headers = [("Lambda-Runtime-Aws-Request-Id", invocation.request_id), *invocation.headers.items()]
        invocation.pid = waiter.pid
        wire.answer(sock, 200, headers, invocation.body)
        invocation.taken.set()
        return True

    def _withdraw(self, waiter):
        with self._changed:
            if waiter.invocation is not None:
                return False
            self._waiters.remove(waiter)
            self._changed.notify_all()
            return True

    def _post(self, request_id, kind, request):
        """As blockd: an error that is too large is nobody's answer, a response that
        is too large is answered for."""
        too_large = self.most_bytes is not None and len(request.body) > self.most_bytes
        with self._changed:
            if request_id in self._known and (self.status or (too_large and kind == "error")):
                return self.status or 413
            invocation = self._known.pop(request_id, None)
            if invocation is None:
                late = request_id in self._expired
                self.late += late
                self.unknown += not late
                return 410 if late else 400
        if too_large:
            kind, request.body = "error", b'{"errorType": "Function.ResponseSizeTooLarge"}'
        # The log's end was sent before the answer, on another connection: what
        # is on its way is waited for.
        closed = self.with_logs and self.logs.wait_closed(request_id, DEADLINE_SECONDS)
        invocation.posted = Result(kind, request, self.logs.bytes_of(request_id), closed)
        with self._changed:
            invocation.answered.set()
            self._changed.notify_all()
        return 413 if too_large else 202
