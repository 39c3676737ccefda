"""Puts what photons write to side by side, before there are any.

A photon's private memory is the pages of 4 KB that it writes to, and what
CPython writes to is small and lies scattered. Two things are done about it in
the zygote, after all that it runs has run and its objects are immortal
(`rehearsal`):

- `gather` copies byte code that ran to one place. Where CPython could not
  specialise an instruction it counts in it each time that it comes by: an S3
  client wrote to 190 KB of code, which lay in 1,700 KB of pages.
- `fill_holes` takes the free memory between the objects that there are, so
  that the objects of a photon come to lie next to each other.

Invariants. A code object that was copied stays as it was, for frames that are
in it and for whoever else holds it; functions, and code around it, refer to the
copy. Both are immortal, so that nothing of them is ever freed, let alone twice.
Where anything is not as it should be (other versions of CPython, a just-in-time
compiler, tools that watch code), nothing is moved.
"""

import gc
import mmap
import os
import sys
from array import array

_FUNCTION = type(lambda: 0)
_CODE = type((lambda: 0).__code__)
_WORD = 8
_ALIGN = 16

_ONE_STEP = 16
"""By so much a counter is smaller after its instruction ran once."""

LARGEST_SMALL = 512
"""Larger objects come from the C library, not from CPython's pools."""
POOL_BYTES, POOL_HEAD_BYTES = 16384, 48
"""A pool holds objects of one size, behind its head."""
MOST_FILL_BYTES = 8 * 1024 * 1024
"""Most memory that `fill_holes` takes from each of the two."""
CHUNK_SIZES = [*(1 << bits for bits in range(16, 9, -1)), *range(512, 16, -_ALIGN)]
"""Sizes of the C library's memory that are taken, in bytes; larger holes stay."""

_caches = None
"""What `_cache_units` returned; None where code cannot be moved."""

_kept = []
"""What must stay where it is for as long as this process and its photons live."""


def prepare():
    """Looks whether code can be moved in this interpreter, and imports what that needs.
    Called before objects are immortal: what comes later costs photons 100 KB."""
    global _caches
    if (3, 12) <= sys.version_info < (3, 14) and sys.maxsize > 2 ** 32 and not hasattr(sys, "gettotalrefcount"):
        try:
            import ctypes  # noqa: F401

            _caches = None if _has_jit() else _cache_units()
        except ImportError:
            pass


def _has_jit():
    """Compiled traces know the address of the code that they are of."""
    if sys.version_info < (3, 13):
        return False
    import sysconfig

    return "experimental-jit" in (sysconfig.get_config_var("CONFIG_ARGS") or "")


class CodeWatch:
    """The code that there is at a moment, and in what state. Empty where code cannot
    be moved. Costs 1.5 ms for 1,000 functions."""

    __slots__ = ("functions", "codes", "states")

    def __init__(self, functions=None):
        """`functions` are all that there are, if somebody has looked already."""
        if _caches is None:
            functions = []
        elif functions is None:
            functions = [item for item in gc.get_objects() if type(item) is _FUNCTION]
        self.functions, self.codes = functions, _codes(functions)
        self.states = self._states()

    def _states(self):
        return {address: hash(code._co_code_adaptive) for address, code in self.codes.items()}

    def ran(self):
        """Addresses of what ran since this was made, in an `array`."""
        now = self._states()
        return array("Q", [address for address, state in self.states.items() if now[address] != state])

    def since(self, earlier):
        """Addresses of what ran or came between `earlier` and this."""
        return {address for address, state in self.states.items() if earlier.states.get(address) != state}


def gather(now, imported, more):
    """Moves what is to be written to together: code at the addresses `more`, and code
    that ran since `imported`, more than once, and in which CPython counts. Behind it
    what it counted in once, then all else that ran until `now`: two `CodeWatch`.
    Returns how many code objects."""
    more = set(more)
    recent = now.since(imported)
    ranked = ([], [], [])
    for address, code in now.codes.items():
        fresh = code.replace()._co_code_adaptive
        if address in more:
            rank = 0
        elif fresh == code._co_code_adaptive:
            continue
        else:
            rank = 2 - _counted(code, fresh) if address in recent else 2
        if _free_of_others(code):
            ranked[rank].append(code)
    places = _copy([code for rank in ranked for code in rank])
    _refer(now, places)
    return len(places)


def _cache_units():
    """Of each instruction that has one: the length of its cache, in units of 2 bytes.
    The first unit is the counter."""
    import opcode

    entries = opcode._inline_cache_entries
    if isinstance(entries, dict):
        return {opcode.opmap[name]: count for name, count in entries.items() if count}
    return {number: count for number, count in enumerate(entries) if count}


def _counted(code, fresh):
    """How often `code` at least ran through an instruction that is not specialised (0,
    1, 2): it counts there, and will again. `fresh` is its byte code as it was made."""
    now, plain = code._co_code_adaptive, code.co_code
    most = place = 0
    while place < len(plain):
        number = plain[place]
        place += 2
        count = _caches.get(number)
        if count:
            if now[place - 2] == number and now[place:place + 2] != fresh[place:place + 2]:
                steps = int.from_bytes(fresh[place:place + 2], "little") - int.from_bytes(now[place:place + 2], "little")
                if steps != _ONE_STEP:
                    return 2
                most = 1
            place += 2 * count
    return most


def watched():
    """Whether there are debuggers, profilers or measurers of coverage: they keep tables
    of code, which must not move then."""
    return bool(sys.gettrace() or sys.getprofile() or any(sys.monitoring.get_tool(number) for number in range(6)))


def _codes(functions):
    """Code objects by address: those of `functions`, and what is nested in these."""
    found = {}
    waiting = [function.__code__ for function in functions]
    while waiting:
        code = waiting.pop()
        if id(code) not in found:
            found[id(code)] = code
            for item in code.co_consts:
                if type(item) is _CODE:
                    waiting.append(item)
    return found


def _free_of_others(code):
    """Whether nothing refers to `code` that could see that it moved, and its
    object is what `_copy` takes it for."""
    from _weakref import getweakrefcount
    from ctypes import c_size_t, c_uint32

    immortal = c_uint32.from_address(id(code)).value >= 0x80000000
    units = c_size_t.from_address(id(code) + 2 * _WORD).value
    return immortal and _CODE.__itemsize__ * units == len(code._co_code_adaptive) and getweakrefcount(code) == 0


def _size(code):
    return _CODE.__basicsize__ + len(code._co_code_adaptive)


def code_of(*owners):
    """Addresses of the code of these functions and of the methods of these classes."""
    functions = [item for owner in owners for item in (vars(owner).values() if isinstance(owner, type) else (owner,))]
    return [id(function.__code__) for function in functions if type(function) is _FUNCTION]


def _copy(codes):
    """Copies them next to each other; returns address -> address of the copy."""
    from ctypes import addressof, c_char, string_at

    room = sum(-(-_size(code) // _ALIGN) * _ALIGN for code in codes)
    if not room:
        return {}
    region = mmap.mmap(-1, room, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _kept.append(region)
    start = addressof(c_char.from_buffer(region))
    places, offset = {}, 0
    for code in codes:
        # Of one moment: unlike `memmove`, this lets no other thread run.
        data = string_at(id(code), _size(code))
        region[offset:offset + len(data)] = data
        places[id(code)] = start + offset
        offset += -(-len(data) // _ALIGN) * _ALIGN
    return places


def _refer(watch, places):
    """Lets functions, and code around code, refer to the copies."""
    from ctypes import c_size_t

    offset = _offset_of_code()
    if offset is None:
        places.clear()
        return
    for function in watch.functions:
        place = places.get(id(function.__code__))
        word = c_size_t.from_address(id(function) + offset)
        if place is not None and word.value == id(function.__code__):
            word.value = place
    for code in watch.codes.values():
        constants = code.co_consts
        for index, item in enumerate(constants):
            place = places.get(id(item))
            if place is not None:
                word = c_size_t.from_address(id(constants) + tuple.__basicsize__ + _WORD * index)
                if word.value == id(item):
                    word.value = place


def _offset_of_code():
    """Where a function refers to its code, in bytes; None if that cannot be told."""
    from ctypes import c_size_t

    def probe():
        pass

    code = id(probe.__code__)
    offsets = range(2 * _WORD, _FUNCTION.__basicsize__, _WORD)
    found = [offset for offset in offsets if c_size_t.from_address(id(probe) + offset).value == code]
    return found[0] if len(found) == 1 else None


def fill_holes(libc):
    """Takes what is free between objects, until memory comes in one piece. `libc` is
    the C library or None. What is taken is not written to."""
    gc.collect()  # empties the interpreter's own lists of free objects
    if os.environ.get("PYTHONMALLOC", "pymalloc") == "pymalloc":
        _fill_pools()
    if hasattr(libc, "gnu_get_libc_version"):
        _fill_chunks(libc)


def _fill_pools():
    """For each size of small objects, until two in a row open a pool."""
    head = sys.getsizeof(b"")
    left = MOST_FILL_BYTES
    for size in range(LARGEST_SMALL, 0, -_ALIGN):
        before = None
        while left >= size:
            if size > head:
                item = b"\0" * (size - head)
            else:
                item = left + 0.5 if size > sys.getsizeof(object()) else object()
            _kept.append(item)
            left -= size
            if before is not None and id(item) == before + size and before % POOL_BYTES == POOL_HEAD_BYTES:
                break
            before = id(item)


def _fill_chunks(libc):
    """For each size, until three in a row lie behind each other."""
    import ctypes

    malloc = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_size_t)(("malloc", libc))
    left = MOST_FILL_BYTES
    for size in CHUNK_SIZES:
        before, row = 0, 0
        while row < 3 and left >= size:
            place = malloc(size - _WORD)
            left -= size
            row = row + 1 if place == before + size else 0
            before = place
