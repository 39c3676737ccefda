"""One photon: takes an invocation, calls the handler, answers; in slot mode again
and again.

Order within an invocation, and why: the request id is noted before the state
says busy (the zygote must find it if we die); children are ended before the log
is (nobody may write to it afterwards); the log is ended before the answer is
posted (the answer's log tail must be complete); everything that makes the next
invocation independent is done before the next one is asked for, not after it
arrived. Never returns: ends with `os._exit`, so that no clean-up meant for the
zygote runs here.
"""

import _socket
import gc
import os
import select
import sys
import time

from . import hooks, isolation, payload, rootlogger, slots, system
from .context import Context
from .http import Connection
from .logs import PhotonLog
from .post import API, Post
from .scratch import PhotonScratch

WITHDRAW_SECONDS = 5.0
"""How long a photon that goes waits for the server to notice."""

FIRST_BACKOFF_SECONDS = 0.05
LAST_BACKOFF_SECONDS = 1.0
"""`next` is tried again after 50 ms, 100 ms ... 800 ms; then the photon ends,
and the zygote's own back-off takes over."""

REQUEST_ID = "lambda-runtime-aws-request-id"


class Retired(Exception):
    """The zygote wants one photon less, or none."""


def run(world, slot):
    """Life of a photon, in the forked process. `world` is the zygote's `World`."""
    status = 1
    try:
        home = settle_in()
        if world.gc_enabled:
            gc.enable()
        status = Photon(world, slot, home).live()
    except Retired:
        status = 0
    except BaseException:
        _complain(world)
    finally:
        os._exit(status)


def settle_in():
    """Makes this process one of its own. Returns the process group that it was in."""
    system.adopt_orphans()
    return isolation.lead_group()


def _complain(world):
    try:
        import traceback

        print("lantern: a photon ends:\n%s" % traceback.format_exc(), file=world.streams.stderr, flush=True)
    except BaseException:
        pass


class Photon:
    """The process's state. `world` is shared read-only, by copy-on-write; `home`
    is the process group of the zygote."""

    def __init__(self, world, slot, home):
        self.world = world
        self.slot = slot
        self.home = home
        self.pid = os.getpid()
        self.slots = world.slots
        self.baseline = world.baseline
        self.threads = isolation.threads()
        self.last = world.config.per_invocation
        self.unanswered = False
        self.strays = False
        self.scratch = PhotonScratch(world.scratch, slot)
        self.log = PhotonLog(world.config.log_address, world.streams)
        self.connection = Connection(world.config.api)
        self.next_headers = [("Lantern-Photon-Pid", str(self.pid))]

    def live(self):
        """Takes invocations until it is to end; returns the exit status. One whose
        answer was not taken stays noted: the zygote answers it, and clears up."""
        self.scratch.renew()
        isolation.reseed()
        if self.world.has_hooks and not self._run_hooks():
            return 1
        self.log.connect_ahead()
        while True:
            self._invoke(self._next())
            if self.unanswered:
                return 1
            self.slots.set_request(self.slot, "")
            if self.last:
                if not self.strays:
                    self.scratch.remove()
                return 0
            self._prepare()

    def _run_hooks(self):
        """Those that user code has for each new process. What they leave (variables,
        threads) is this photon's beginning. Returns success; a failure is logged."""
        try:
            hooks.run_after_restore()
            self.baseline = isolation.Baseline()
            self.threads = isolation.threads()
            return True
        except BaseException as error:
            fields = payload.init_error_of(error, "an after_restore hook")
        print(payload.log_line(fields, self.world.config.log_format), flush=True)
        self.world.streams.flush()
        return False

    def _prepare(self):
        """Puts the process back to its beginning, before an invocation is asked for."""
        self.world.streams.restore_objects()
        self.baseline.restore()
        self.scratch.renew()
        rootlogger.set_request("", None)
        self.log.connect_ahead()

    # Taking an invocation.

    def _next(self):
        """Waits for an invocation and marks the photon busy with it."""
        if self.slots.draining():
            raise Retired
        self.slots.set_state(self.slot, slots.WAITING)
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            try:
                self.connection.send("GET", API + "invocation/next", self.next_headers)
                self._wait()
                answer = self.connection.receive()
                if answer.status == 200 and answer.headers.get(REQUEST_ID):
                    break
                problem = "status %d" % answer.status
            except OSError as error:
                problem = str(error)
            if self.last or backoff > LAST_BACKOFF_SECONDS:
                raise OSError("the Runtime API gives no invocation: %s" % problem)
            time.sleep(backoff)
            backoff *= 2
        if self.last:
            self.connection.close()  # half-closed, perhaps: answer on a new one
        self._busy(answer.headers[REQUEST_ID])
        return answer

    def _wait(self):
        """Returns when the server has answered. Raises `Retired` when the zygote
        wants this photon to go, or is gone itself."""
        sock = self.connection.sock.fileno()
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        poller.register(self.world.retire_read, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poller.poll()]
            if sock in ready:
                return
            if _is_retirement(self.world.retire_read):
                return self._withdraw()

    def _withdraw(self):
        """Takes `next` back: half-closes, and goes when the server has closed too.
        An invocation that was on its way is still taken, and is the last one."""
        sock = self.connection.sock
        try:
            sock.shutdown(_socket.SHUT_WR)
            sock.settimeout(WITHDRAW_SECONDS)
            if sock.recv(1, _socket.MSG_PEEK) == b"":
                raise Retired
        except OSError:
            raise Retired from None
        self.last = True

    def _busy(self, request_id):
        """Tells the zygote, waking it only if it has something to do."""
        table = self.slots
        table.set_request(self.slot, request_id)
        table.set_state(self.slot, slots.BUSY)
        states = table.census()
        table.note_peak(states.count(slots.BUSY))
        spare = states.count(slots.WAITING) + states.count(slots.STARTING)
        if spare < self.world.spares and slots.FREE in states:
            try:
                os.write(self.world.notify_write, b"b")
            except OSError:
                pass  # full, so the zygote is awake; or closed by user code

    # Working on it.

    def _invoke(self, answer):
        """One invocation from the event to the posted answer."""
        headers = answer.headers
        request_id = headers[REQUEST_ID]
        trace_id = headers.get("lambda-runtime-trace-id")
        if trace_id is not None:
            os.environ["_X_AMZN_TRACE_ID"] = trace_id
        rootlogger.set_request(request_id, headers.get("lambda-runtime-aws-tenant-id"))
        self.log.begin(request_id)
        post = Post(self, request_id)
        try:
            result = self._call(answer, request_id)
            content_type = getattr(self.world.handler, "lantern_streaming", None)
            if content_type:
                post.stream(result, content_type)
            else:
                post.response(*self.world.encoder.response(result))
        except Exception as error:
            self.stop_if_copy(1)
            post.error(payload.error_of(error, request_id))
        except BaseException as error:
            self._exit(error)

    def _call(self, answer, request_id):
        headers = answer.headers
        deadline = headers.get("lambda-runtime-deadline-ms", "")
        context = Context(
            request_id,
            int(deadline) if deadline.isdigit() else None,
            headers.get("lambda-runtime-invoked-function-arn"),
            payload.decode_header(headers.get("lambda-runtime-client-context"), "Client Context"),
            payload.decode_header(headers.get("lambda-runtime-cognito-identity"), "Cognito Identity"),
            headers.get("lambda-runtime-aws-tenant-id"),
        )
        event = payload.decode_event(answer.body, headers.get("content-type"))
        result = self.world.handler(event, context)
        self.stop_if_copy(0)
        return result

    def stop_if_copy(self, status):
        """A child that the handler forked and that came back here must not answer."""
        if os.getpid() != self.pid:
            self.world.streams.flush()
            os._exit(status)

    def _exit(self, error):
        """SystemExit and its like end the process, as on AWS; the zygote answers."""
        self.stop_if_copy(1)
        if isinstance(error, SystemExit):
            code = error.code
            status = code if isinstance(code, int) else int(code is not None)
        else:
            status = 1
        print("lantern: the handler raised %s" % type(error).__name__, file=sys.stderr)
        self.settle()
        os._exit(status & 0xFF)

    def settle(self):
        """The function's work is done: ends its children, then its log. A thread
        cannot be ended from outside, so it takes the photon with it."""
        if not isolation.end_children(self.home):
            self.last = self.strays = True
        if isolation.threads() > self.threads:
            self.last = True
        if not self.log.end():
            self.last = True


def _is_retirement(fd):
    """Takes one retirement from the pipe. Its end means that the zygote drains or
    died, an error that user code closed it: both end this photon."""
    try:
        os.read(fd, 1)
        return True
    except BlockingIOError:
        return False  # another photon was faster
    except OSError:
        return True
