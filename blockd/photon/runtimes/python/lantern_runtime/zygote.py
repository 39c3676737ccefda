"""The zygote: imports the handler once, then keeps the right number of photons.

It never works on invocations, so it never waits for anything but: photons that
became busy (`notify` pipe), photons that died (SIGCHLD), SIGTERM, and the tick
at which idle photons are given up. All of it arrives in one `poll`; every
round then makes the world right again from the slot table (`_Keeper`).

Invariants. At most `limit` photons live. Two photons more than are busy wait or
start, if the limit allows: a fork is never on the path of an invocation that
finds a spare. A photon that died with a request in hand is answered for. The
zygote's memory is the memory of all photons: after the import it allocates
next to nothing and its collector is off.
"""

import _signal
import gc
import os
import select
import sys
import time
from array import array

from . import config as configuration
from . import hooks, inherited, isolation, layout, loader, payload, photon, rehearsal, rootlogger, slots, system
from . import logs, scratch as scratches
from .http import Connection
from .post import API, ERROR_CONTENT, ERROR_TYPE, header_value

SPARES = 2
"""Photons kept waiting beyond the busy ones. One would be forked away while its
successor starts; more is idle memory."""

SHRINK_SECONDS = 10.0
"""Length of the period whose peak decides how many photons are still needed.
Each period gives up half of the surplus, so 64 become few within a minute."""

FIRST_BACKOFF_SECONDS = 0.05
MOST_BACKOFF_SECONDS = 2.0
"""Pause after a failed fork, or after a photon that died before it was ready;
doubled each time. Without it, a full pid limit would make the zygote spin."""

OOM_SCORE = 500
"""Of photons: between 0 (usually the zygote's) and 1000 (always first)."""

MOST_PEERS_SHOWN = 8
"""Of connections that the import opened, in the log."""

POST_SECONDS = 2.0
"""How long the Runtime API may take to hear of a dead photon."""


class World:
    """What photons inherit. Read-only for them."""

    __slots__ = ("config", "scratch", "streams", "inherited", "imported", "has_hooks", "baseline", "handler", "encoder",
                 "slots", "spares", "own_children", "gc_enabled", "notify_read", "notify_write", "retire_read", "retire_write")


def main():
    """Runs until SIGTERM, or a failed import; returns the exit status."""
    world = World()
    scratch = world.scratch = scratches.prepare()
    world.streams = logs.Streams()
    world.inherited = inherited.Inherited()
    try:
        config = world.config = configuration.read(os.environ)
    except configuration.ConfigError as error:
        tell("bad environment: %s" % error)
        scratch.remove_all()
        return 2
    if scratch.warning:
        tell("%s: /tmp is shared by all invocations, only TMPDIR is private" % scratch.warning)
    try:
        return _serve(world) if _import(world) else 1
    finally:
        scratch.remove_all()


def tell(text):
    """A line in the sandbox's log."""
    print("lantern: %s" % text, file=sys.stderr, flush=True)


def _import(world):
    """Imports the handler and runs the hooks that are to run once. A failure is told
    to the Runtime API; returns success."""
    config = world.config
    rootlogger.install(config.log_format, config.log_level)
    system.prepare()
    try:
        world.handler = loader.load(config.handler, config.task_root)
    except BaseException as error:
        return _failed(config, payload.init_error_of(error, "the handler module"))
    world.imported = _try("byte code was not looked at", _watch_code, config)
    try:
        hooks.run_before_snapshot()
    except BaseException as error:
        # As awslambdaric: the class of the exception in the body, this in the header.
        return _failed(config, payload.init_error_of(error, "a before_snapshot hook"), payload.Fault.BEFORE_SNAPSHOT)
    return True


def _failed(config, fields, kind=None):
    print(payload.log_line(fields, config.log_format), flush=True)
    post_error(config, "init/error", fields, kind)
    return False


def post_error(config, path, fields, kind=None):
    """Tells the Runtime API of an error, of type `kind` if that is not in `fields`;
    a failure is only logged."""
    headers = [("Content-Type", ERROR_CONTENT), (ERROR_TYPE, header_value(kind or fields["errorType"]))]
    connection = Connection(config.api, POST_SECONDS)
    try:
        connection.call("POST", API + path, headers, payload.encode_error(fields))
    except OSError as error:
        tell("POST %s%s: %s" % (API, path, error))
    finally:
        connection.close()


def _serve(world):
    """From the import to the end."""
    config = world.config
    _warn_of_threads()
    world.gc_enabled = gc.isenabled()
    world.has_hooks = hooks.any_after_restore()
    world.scratch.import_ended()
    world.encoder = payload.Encoder(os.environ)
    # With a fork per invocation, the successor must exist before its predecessor
    # has ended, even when all the concurrency that is allowed is in use.
    extra = SPARES if config.per_invocation else 0
    world.spares = min(SPARES, config.most_photons)
    world.slots = slots.Slots(config.most_photons + extra)
    world.notify_read, world.notify_write = os.pipe()
    world.retire_read, world.retire_write = os.pipe()
    for fd in (world.notify_read, world.notify_write, world.retire_read, world.retire_write):
        os.set_blocking(fd, False)
    world.baseline = isolation.Baseline()
    world.own_children = frozenset(system.children())
    gc.collect()
    gc.disable()
    # After the collector, which may have closed something, and before the rehearsal,
    # or photons would write to 40 KB more.
    _warn_of_connections(world.inherited.import_ended())
    world.streams.flush()
    stage = _stage(world)
    _try("the loop was not rehearsed", rehearsal.rehearse, stage)
    keeper = _Keeper(world, system.adopt_orphans())
    if not config.readable_memory:
        system.hide_memory()
    if config.immortal:
        functions = _try("objects are not immortal", rehearsal.immortalise)
        if functions and world.imported is not None:
            _try("memory was not laid out", _lay_out, world, stage, functions)
        del functions
    if config.merge and not system.merge_memory():
        tell("this kernel or sandbox merges no memory")
    gc.freeze()
    system.trim_heap()
    return keeper.run()


def _stage(world):
    """A copy of the world for `rehearsal`, which keeps its handler out of the world."""
    stage = World()
    for name in World.__slots__:
        if name != "imported" and hasattr(world, name):
            setattr(stage, name, getattr(world, name))
    stage.config = world.config.for_rehearsal()
    return stage


def _try(failure, step, *arguments):
    """Runs what only makes photons smaller; returns None if it fails."""
    try:
        return step(*arguments)
    except Exception as error:
        tell("%s, photons will need more memory: %r" % (failure, error))
        return None


def _watch_code(config):
    """None where code is not to be moved. With one photon at a time there is nobody
    to share with."""
    return layout.CodeWatch() if config.immortal and config.most_photons > 1 and layout.can_move() else None


def _lay_out(world, stage, functions):
    """See `layout`. `functions` are all that there are."""
    start = layout.code_of(_Keeper, system.VictimScore, _empty, photon.run, photon.Photon.live, world.handler)
    watch = layout.CodeWatch(functions)
    chosen = array("I")
    chosen.frombytes(rehearsal.scout(world.inherited, lambda: layout.choose(watch, world.imported, start)))
    world.imported = None
    if layout.move(functions, watch.codes, chosen):
        # What is made here must be gone before, or it would leave the holes that are to be filled.
        del watch, chosen, start
        # Again: what was run for all this has displaced what the interpreter knew of the loop.
        rehearsal.rehearse(stage)
        layout.fill_holes(system.libc())


def _warn_of_threads():
    """Threads do not survive a fork: say so while somebody may listen."""
    threading = sys.modules.get("threading")
    if threading is None:
        return
    names = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    if names:
        tell("the import started threads that no invocation will have: %s" % ", ".join(names))


def _warn_of_connections(peers):
    """Photons do not have them: say what to do instead."""
    if not peers:
        return
    shown = ", ".join(peers[:MOST_PEERS_SHOWN])
    if len(peers) > MOST_PEERS_SHOWN:
        shown += " and %d more" % (len(peers) - MOST_PEERS_SHOWN)
    tell("connections that the import opened: %d, to %s. They are closed in each photon, because invocations at the "
         "same time would write to the same one. Clients such as boto3's open another by themselves; with others "
         "connect in the handler when it first needs it, or in a function given to "
         "snapshot_restore_py.register_after_restore" % (len(peers), shown))


class _Dead:
    """A photon that has ended, until its slot is free again."""

    __slots__ = ("slot", "state", "status", "patience_ends")

    def __init__(self, slot, state, status):
        self.slot, self.state, self.status = slot, state, status
        self.patience_ends = time.monotonic() + isolation.CHILDREN_SECONDS


class _Keeper:
    """Keeps the photons. One object, one thread, no locks."""

    def __init__(self, world, adopts):
        """`adopts` says that orphans come here from dead photons only."""
        self.world = world
        self.adopts = adopts
        self.slots = world.slots
        self.own_children = set(world.own_children)
        self.group = os.getpgrp()
        self.photons = {}  # pid -> slot
        self.dead = []
        self.draining = False  # SIGTERM came
        self.drained = False  # and the photons were told
        self.backoff = 0.0
        self.not_before = 0.0
        self.period_ends = None
        self.victim = system.VictimScore(OOM_SCORE)

    def run(self):
        """The loop; returns the exit status."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        _signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        before = [_signal.getsignal(number) for number in (_signal.SIGTERM, _signal.SIGCHLD)]
        # None: set by no Python code, so Python cannot set it again.
        self.handlers = [_signal.SIG_DFL if handler is None else handler for handler in before]
        _signal.signal(_signal.SIGCHLD, _ignore)
        _signal.signal(_signal.SIGTERM, self._on_term)
        poller = select.poll()
        poller.register(wake_read, select.POLLIN)
        poller.register(self.world.notify_read, select.POLLIN)
        self.fds = (wake_read, wake_write)
        while True:
            self._reap()
            if self.draining and not self.photons and not self.dead:
                return 0
            self._drain()
            self._grow()
            self._shrink()
            poller.poll(self._pause_ms())
            _empty(wake_read)
            _empty(self.world.notify_read)

    def _on_term(self, _number, _frame):
        """Only notes it: the loop may be about to write to what is to be closed."""
        self.draining = True

    def _drain(self):
        """Photons that wait see the end of the pipe and go; busy ones after their answer."""
        if self.draining and not self.drained:
            self.drained = True
            self.slots.drain()
            os.close(self.world.retire_write)

    # More photons.

    def _grow(self):
        while not self.draining and self._wanted() > 0:
            if time.monotonic() < self.not_before or not self._fork():
                return

    def _wanted(self):
        states = self.slots.census()
        spare = states.count(slots.WAITING) + states.count(slots.STARTING)
        return min(self.world.spares - spare, states.count(slots.FREE))

    def _fork(self):
        slot = self.slots.census().index(slots.FREE)
        self.slots.prepare(slot)
        self.victim.raise_for_fork()
        try:
            pid = self.world.inherited.fork(os.fork)
        except OSError as error:
            self.victim.lower()
            self.slots.set_state(slot, slots.FREE)
            self.slots.conceal(slot)
            self._back_off("no photon could be forked: %s" % error)
            return False
        if pid == 0:
            self._become_photon(slot)
        self.victim.lower()
        self.photons[pid] = slot
        self.slots.conceal(slot)
        return True

    def _become_photon(self, slot):
        """In the child. Leaves the zygote's descriptors and handlers behind."""
        world = self.world
        if world.inherited.failure is not None:
            tell("a photon could not be parted from what the import opened: %r" % world.inherited.failure)
            os._exit(1)
        try:
            _signal.set_wakeup_fd(-1)
            _signal.signal(_signal.SIGTERM, self.handlers[0])
            _signal.signal(_signal.SIGCHLD, self.handlers[1])
            for fd in (*self.fds, world.notify_read):
                os.close(fd)
            if self.victim.fd is not None:
                os.close(self.victim.fd)  # it is the zygote's score
            if not self.drained:
                os.close(world.retire_write)
        except BaseException:
            os._exit(1)
        photon.run(world, slot)

    def _back_off(self, why):
        self.backoff = min(max(2 * self.backoff, FIRST_BACKOFF_SECONDS), MOST_BACKOFF_SECONDS)
        self.not_before = time.monotonic() + self.backoff
        tell("%s; next try in %.2f s" % (why, self.backoff))

    # Fewer photons.

    def _shrink(self):
        """At the end of each period gives up half of what its peak did not need."""
        if self.draining or len(self.photons) <= self.world.spares:
            self.period_ends = None
            return
        now = time.monotonic()
        if self.period_ends is not None and now >= self.period_ends:
            surplus = len(self.photons) - self.slots.peak() - self.world.spares
            if surplus > 0:
                _empty(self.world.retire_read)  # what nobody took in the last period
                os.write(self.world.retire_write, b"r" * ((surplus + 1) // 2))
            self.period_ends = None
        if self.period_ends is None:
            self.slots.set_peak(self.slots.census().count(slots.BUSY))
            self.period_ends = now + SHRINK_SECONDS

    def _pause_ms(self):
        """How long to sleep if nothing happens; None is for ever."""
        ends = [t for t in (self.period_ends, self.not_before if self._wanted() > 0 and not self.draining else None) if t]
        ends += [dead.patience_ends for dead in self.dead]
        if not ends:
            return None
        return max(0, int((min(ends) - time.monotonic()) * 1000) + 1)

    # Dead photons.

    def _reap(self):
        """Photons that ended are buried when the processes that they left are gone
        too: these could still write to the log and to /tmp."""
        orphans = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            slot = self.photons.pop(pid, None)
            if slot is not None:
                self.dead.append(_Dead(slot, self.slots.state(slot), status))
                self.slots.set_state(slot, slots.ENDED)
            elif pid in self.own_children:
                self.own_children.remove(pid)
            else:
                orphans = True
        # An orphan that was reaped may have left one of its own behind.
        if self.dead or (orphans and self.adopts):
            self._bury_dead(self._end_strays())

    def _bury_dead(self, strays):
        """With `strays` left only those whose patience is over."""
        now = time.monotonic()
        ready = [dead for dead in self.dead if not strays or now >= dead.patience_ends]
        self.dead = [dead for dead in self.dead if dead not in ready]
        for dead in ready:
            self._bury(dead)

    def _bury(self, dead):
        slot, request_id = dead.slot, self.slots.request(dead.slot)
        if request_id:
            self._answer_for(request_id, dead.status)
        retired = dead.status == 0 and (dead.state == slots.WAITING or self.draining)
        if dead.state in (slots.STARTING, slots.WAITING) and not retired:
            self._back_off("a photon ended before it took an invocation: %s" % describe(dead.status))
        else:
            self.backoff = 0.0
        self.world.scratch.remove_slot(slot)
        self.slots.set_request(slot, "")
        self.slots.set_state(slot, slots.FREE)

    def _answer_for(self, request_id, status):
        """The invocation's photon is dead. If blockd killed it, blockd has answered
        and refuses this; that is fine."""
        message = "RequestId: %s Error: Runtime exited with error: %s" % (request_id, describe(status))
        tell(message)
        fields = payload.error(message, payload.Fault.EXIT, None, request_id)
        post_error(self.world.config, "invocation/%s/error" % request_id, fields)

    def _end_strays(self):
        """Descendants of dead photons are our children now: kill them. They are
        reaped like photons. What the import started is ours too and stays.
        Returns whether there were any."""
        strays = [pid for pid in system.children() if pid not in self.photons and pid not in self.own_children]
        if not strays:
            return False
        spared = {self.group, *self.photons, *map(_group_of, self.own_children)}
        for pid in strays:
            isolation.kill_with_group(pid, spared)
        return True


def describe(status):
    """A wait status in AWS's words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "signal: %s" % (_signal.strsignal(number) or number).lower()
    return "exit status %d" % os.WEXITSTATUS(status)


def _group_of(pid):
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def _ignore(_number, _frame):
    """Only has to exist: the wake-up descriptor gets the byte."""


def _empty(fd):
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass
