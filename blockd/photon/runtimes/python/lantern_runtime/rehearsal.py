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

Neither is needed for correctness; whatever fails is left out.
"""

import _socket
import gc
import os
import sys

from . import isolation, photon, slots

ROUNDS = 12
"""Invocations of the rehearsal. CPython specialises a function in its eighth
call at the latest (3.11); a round takes about 0.3 ms."""

_NEXT = (b"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: 00000000-0000-0000-0000-000000000000\r\n"
         b"Lambda-Runtime-Deadline-Ms: 4102444800000\r\nLambda-Runtime-Invoked-Function-Arn: arn:aws:lambda\r\n"
         b"Lambda-Runtime-Trace-Id: Root=1-0-0\r\nContent-Type: application/json\r\nContent-Length: 29\r\n\r\n"
         b'{"a": [1, 0.5, null, "b\\n"]}\n')
_ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"

_IMMORTAL = 0xFFFFFFFF
"""Lower half of the reference count of an immortal object: negative as 32 bits
and at its end, which is what 3.12 to 3.14 look for."""


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


def _pair():
    """Connected sockets that block, whatever default timeout the import set."""
    pair = _socket.socketpair()
    for sock in pair:
        sock.settimeout(None)
    return pair


def immortalise():
    """Makes all objects immortal that the collector knows or that such an object
    refers to, and what code refers to. Returns how many, 0 where it cannot be done.

    The price: none of them is ever freed (a photon does not live long), and code
    that looks at reference counts sees a large one."""
    if not ((3, 12) <= sys.version_info < (3, 15)) or sys.byteorder != "little" or _free_threaded():
        return 0
    try:
        from ctypes import c_uint32
    except ImportError:
        return 0
    addresses = _reachable()
    for address in addresses:
        count = c_uint32.from_address(address)
        if count.value < 0x80000000:
            count.value = _IMMORTAL
    return len(addresses)


def _free_threaded():
    return not getattr(sys, "_is_gil_enabled", lambda: True)()


def _reachable():
    """Addresses of all objects, without those that this function makes.

    The collector does not say what code objects refer to, nor the keys of most
    dictionaries: constants and names, which running code touches all the time.
    What is added for them must be held by its owner too, and not be made now."""
    code = type(_reachable.__code__)
    waiting = gc.get_objects()
    seen = set()
    own = {id(waiting), id(seen), id(sys._getframe())}
    while waiting:
        item = waiting.pop()
        address = id(item)
        if address not in seen and address not in own:
            seen.add(address)
            waiting.extend(gc.get_referents(item))
            if isinstance(item, dict):
                waiting.extend(dict.__iter__(item))
            elif type(item) is code:
                waiting.extend((item.co_consts, item.co_names, item.co_name, item.co_qualname, item.co_filename))
    return seen
