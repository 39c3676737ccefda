"""Makes photons cheap before there are any: rehearsal and immortal objects.

A photon's private memory is the pages that it writes, and CPython writes to
what it merely reads. Two things are done about it in the zygote, before the
first fork:

- `rehearse` runs a photon's whole loop on prepared answers and a handler that
  does nothing. Byte code is specialised, caches are filled and lazily made
  things are made once, in shared memory, instead of once in every photon.
- `immortalise` (Python 3.12 to 3.14, see PEP 683) marks every object that
  exists as one whose reference count is not kept. Photons then use all of the
  zygote's objects without writing to them.

For `layout`, `scout` looks at what a fork runs, in a process that takes no
invocation, whatever hooks of forks do in it: it is ended after SCOUT_SECONDS.

None of it is needed for correctness; whatever fails is left out.
"""

import _signal
import _socket
import gc
import os
import select
import sys
import time

from . import isolation, photon, slots

ROUNDS = 12
"""Invocations of the rehearsal. CPython specialises a function in its eighth
call at the latest (3.11); a round takes about 0.3 ms."""

SCOUT_SECONDS = 2.0
"""How long the scout may take: 0.05 s for 10,000 functions. Longer means that a hook
that runs after a fork waits for something."""

_LENGTH_BYTES = 4

_NEXT = (b"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: 00000000-0000-0000-0000-000000000000\r\n"
         b"Lambda-Runtime-Deadline-Ms: 4102444800000\r\nLambda-Runtime-Invoked-Function-Arn: arn:aws:lambda\r\n"
         b"Lambda-Runtime-Trace-Id: Root=1-0-0\r\nContent-Type: application/json\r\nContent-Length: 29\r\n\r\n"
         b'{"a": [1, 0.5, null, "b\\n"]}\n')
_ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"

_IMMORTAL = 0xFFFFFFFF
"""Lower half of the reference count of an immortal object: negative as 32 bits
and at its end, which is what 3.12 to 3.14 look for."""

_FIRST, _END = 4096, 1 << 56
"""Where objects can lie: the most that a process can have on any 64-bit Linux."""


def rehearse(world):
    """Runs `ROUNDS` invocations in the zygote. `world` is a copy with no other
    use: its handler is replaced. Skipped if the import left children, which the
    end of an invocation would kill."""
    if isolation.has_children():
        return
    ours, theirs = _pair()
    world.handler = lambda event, context: theirs.sendall(_ACCEPTED) or {"a": [1, 0.5, None, "b"]}
    world.slots.prepare(0)
    actor = photon.Photon(world, 0, os.getpgrp())
    try:
        actor.connection.sock = ours
        actor.scratch.renew()
        for _ in range(ROUNDS):
            log, reader = _pair()
            actor.log.use(log)
            theirs.sendall(_NEXT)
            actor._invoke(actor._next())
            actor._prepare()
            theirs.recv(65536)
            reader.close()
    finally:
        actor.scratch.remove()
        world.scratch.back_to_import()
        world.slots.set_request(0, "")
        world.slots.set_state(0, slots.FREE)
        world.slots.set_peak(0)
        ours.close()
        theirs.close()


def scout(inherited, look):
    """Forks a photon that settles in, and then only calls `look` and ends. Returns the
    bytes of what that returned, an `array`; none if they did not come in SCOUT_SECONDS."""
    before = _signal.getsignal(_signal.SIGCHLD)
    if before is None:
        return b""  # set by no Python code, so Python could not set it again
    ours, theirs = os.pipe()
    # A handler of the import's is for children of the import's.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    try:
        pid = inherited.fork(os.fork)
        if pid == 0:
            _look_around(look, theirs)
        try:
            return _received(ours)
        finally:
            isolation.kill_with_group(pid, (os.getpgrp(),))
            os.waitpid(pid, 0)
    finally:
        _signal.signal(_signal.SIGCHLD, before)
        os.close(ours)
        os.close(theirs)


def _look_around(look, fd):
    try:
        home = photon.settle_in()
        isolation.reseed()
        data = look().tobytes()
        isolation.end_children(home)  # of hooks
        data = memoryview(len(data).to_bytes(_LENGTH_BYTES, "little") + data)
        while data:
            data = data[os.write(fd, data):]
    except BaseException as error:
        print("lantern: the scout failed: %r" % error, file=sys.stderr, flush=True)
    finally:
        os._exit(0)


def _received(fd):
    """What was sent, whoever else has the pipe's other end; nothing if not all of it."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    ends = time.monotonic() + SCOUT_SECONDS
    data = b""
    while len(data) < _LENGTH_BYTES or len(data) < _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little"):
        pause = max(0, int((ends - time.monotonic()) * 1000))
        part = os.read(fd, 65536) if poller.poll(pause) else b""
        if not part:
            print("lantern: the scout did not come back, photons will need more memory", file=sys.stderr, flush=True)
            return b""
        data += part
    return data[_LENGTH_BYTES:]


def _pair():
    """Connected sockets that block, whatever default timeout the import set."""
    pair = _socket.socketpair()
    for sock in pair:
        sock.settimeout(None)
    return pair


def immortalise():
    """Makes all objects immortal that the collector knows or that such an object
    refers to, and what code refers to. Returns the functions among them; none where
    it cannot be done.

    The price: none of them is ever freed (a photon does not live long), and code
    that looks at reference counts sees a large one."""
    if not ((3, 12) <= sys.version_info < (3, 15)) or sys.byteorder != "little" or sys.maxsize < 2 ** 32 or _free_threaded():
        return []
    try:
        from ctypes import c_char
    except ImportError:
        return []
    # All of a process's memory as words of 32 bits: half the time of an object of `ctypes` each.
    words = memoryview((c_char * (_END - _FIRST)).from_address(_FIRST)).cast("B").cast("I")
    functions, function, code = [], type(immortalise), type(immortalise.__code__)
    waiting = gc.get_objects()
    seen = {id(waiting), id(functions), id(words), id(sys._getframe())}
    seen.add(id(seen))
    add, extend, referents = seen.add, waiting.extend, gc.get_referents
    while waiting:
        item = waiting.pop()
        address = id(item)
        if address in seen:
            continue
        add(address)
        index = (address - _FIRST) >> 2
        if words[index] < 0x80000000:
            words[index] = _IMMORTAL
        extend(referents(item))
        # The collector does not say what code objects refer to, nor the keys of most
        # dictionaries: constants and names, which running code touches all the time.
        # What is added for them must be held by its owner too, and not be made now.
        kind = type(item)
        if kind is function:
            functions.append(item)
        elif kind is code:
            extend((item.co_consts, item.co_names, item.co_name, item.co_qualname, item.co_filename))
        elif issubclass(kind, dict):
            # `isinstance` would ask each for its class, and fill the interpreter's cache of
            # attributes with that, which 16 pages of a photon's are spent to put right.
            extend(dict.__iter__(item))
    return functions


def _free_threaded():
    return "t" in sys.abiflags  # also where the GIL is on
