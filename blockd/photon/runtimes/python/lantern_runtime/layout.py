"""Puts what photons write to side by side, before there are any.

A photon's private memory is the pages of 4 KB that it writes to, and what
CPython writes to is small and lies scattered. Two things are done about it in
the zygote, after all that it runs has run and its objects are immortal
(`rehearsal`):

- `move` copies byte code that ran to one place. Where CPython could not
  specialise an instruction it counts in it each time that it comes by: an S3
  client wrote to 190 KB of code, which lay in 1,700 KB of pages. What to move
  and in what order is for `choose`, in a forked process (`rehearsal.scout`):
  it sees what runs after a fork, and what it needs of memory goes with it.
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

CACHE_UNITS = {
    (3, 12): {25: 1, 60: 1, 92: 1, 93: 1, 95: 4, 106: 9, 107: 1, 116: 4, 122: 1, 123: 1, 141: 1, 171: 3},
    (3, 13): {5: 1, 39: 1, 40: 3, 45: 1, 53: 3, 58: 1, 59: 1, 72: 1, 77: 1, 82: 9, 91: 4, 93: 1, 97: 1, 98: 1, 99: 1, 100: 1,
              104: 1, 108: 4, 117: 1},
}
"""Of each instruction that has one: the length of its cache, in units of 2 bytes,
of which the first is the counter. As `opcode` has it, whose import costs memory."""

TABLES = {(3, 12): (-8, -24), (3, 13): (-8, -24, -48)}
"""Where a code object refers to its `co_extra`, `_co_monitoring` and `co_executors`,
in bytes from the end of what all code objects have."""

_JUMP_BACKWARD = 77
"""The instruction in 3.13 that a just-in-time compiler replaces."""

_ONE_STEP = 16
"""By so much a counter is smaller after its instruction ran once."""

LARGEST_SMALL = 512
"""Larger objects come from the C library, not from CPython's pools."""
POOL_BYTES, POOL_HEAD_BYTES = 16384, 48
"""A pool holds objects of one size, behind its head."""
MOST_FILL_BYTES = 8 * 1024 * 1024
"""Most memory that `fill_holes` takes from each of the two."""
CHUNK_SIZES = [*(1 << bits for bits in range(13, 9, -1)), *range(512, 16, -_ALIGN)]
"""Sizes of the C library's memory that are taken, in bytes; larger holes stay."""

_kept = []
"""What must stay where it is for as long as this process and its photons live, also
while the interpreter ends: the list is immortal, so what is in it is never freed."""


def can_move():
    """Whether code can be moved in this interpreter."""
    if sys.version_info[:2] not in CACHE_UNITS or sys.maxsize < 2 ** 32 or hasattr(sys, "gettotalrefcount"):
        return False
    try:
        import ctypes  # noqa: F401
    except ImportError:
        return False
    return not (watched() or _has_jit())


def _has_jit():
    """Compiled traces know the address of the code that they are of."""
    if sys.version_info < (3, 13):
        return False

    def loop():
        for _ in range(10_000):
            pass

    loop()
    place = loop.__code__.co_code.find(_JUMP_BACKWARD)
    return place < 0 or loop.__code__._co_code_adaptive[place] != _JUMP_BACKWARD


def watched():
    """Whether there are debuggers, profilers or measurers of coverage: they keep tables
    of code. Those that are gone have left theirs, see `_free_of_others`."""
    return bool(sys.gettrace() or sys.getprofile() or any(sys.monitoring.get_tool(number) for number in range(6)))


class CodeWatch:
    """The code of functions, and what is nested in it, with its state at a moment.
    Costs 1.5 ms and 16 KB for 1,000 functions."""

    __slots__ = ("codes", "states")

    def __init__(self, functions=None):
        """`functions` are all that there are, if somebody has looked already."""
        if functions is None:
            functions = [item for item in gc.get_objects() if type(item) is _FUNCTION]
        codes = self.codes = [function.__code__ for function in functions]
        around = set()
        for code in codes:  # grows meanwhile; code of several functions is in it several times
            nested = [item for item in code.co_consts if type(item) is _CODE]
            if nested and id(code) not in around:
                around.add(id(code))
                codes += nested
        self.states = array("q", (hash(code._co_code_adaptive) for code in codes))


def choose(now, imported, start):
    """What to move: places in the list `now.codes`, in an `array`, in the order in
    which it is to lie. First code that is about to run: `start`, and what ran since
    `now`. Then what ran since `imported`, more than once, and CPython counts in. Then
    what it counted in once, then all else that ran."""
    then = dict(zip(map(id, imported.codes), imported.states))
    start = set(map(id, start))
    ranked, seen = ([], [], []), set()
    for place, (code, state) in enumerate(zip(now.codes, now.states)):
        address, adaptive = id(code), code._co_code_adaptive
        if address in seen:
            continue
        seen.add(address)
        if address in start or hash(adaptive) != state:
            rank = 0
        else:
            fresh = code.replace()._co_code_adaptive
            if fresh == adaptive:
                continue  # never ran
            rank = 2 if then.get(address) == state else 2 - _counted(code, fresh)
        if _free_of_others(code):
            ranked[rank].append(place)
    return array("I", [place for rank in ranked for place in rank])


def _counted(code, fresh):
    """How often `code` at least ran through an instruction that is not specialised (0,
    1, 2): it counts there, and will again. Jumps of 3.13, which note where they went,
    are taken for twice. `fresh` is its byte code as it was made."""
    caches = CACHE_UNITS[sys.version_info[:2]]
    now, plain = code._co_code_adaptive, code.co_code
    most = place = 0
    while place < len(plain):
        number = plain[place]
        place += 2
        count = caches.get(number)
        if count:
            if now[place - 2] == number and now[place:place + 2] != fresh[place:place + 2]:
                steps = int.from_bytes(fresh[place:place + 2], "little") - int.from_bytes(now[place:place + 2], "little")
                if steps != _ONE_STEP:
                    return 2
                most = 1
            place += 2 * count
    return most


def _free_of_others(code):
    """Whether nothing belongs to `code` that its copy must not share, and its object
    is what `_copy` takes it for. Tables of tools and of the just-in-time compiler
    are freed or made larger for one of the two, behind the other's back."""
    from _weakref import getweakrefcount
    from ctypes import c_size_t, c_uint32

    def word(offset):
        return c_size_t.from_address(id(code) + offset).value

    immortal = c_uint32.from_address(id(code)).value >= 0x80000000
    right_size = _CODE.__itemsize__ * word(2 * _WORD) == len(code._co_code_adaptive)
    tables = [word(_CODE.__basicsize__ + offset) for offset in TABLES[sys.version_info[:2]]]
    return immortal and right_size and not any(tables) and getweakrefcount(code) == 0


def _size(code):
    return _CODE.__basicsize__ + len(code._co_code_adaptive)


def code_of(*owners):
    """The code of these functions and of the methods of these classes."""
    functions = [item for owner in owners for item in (vars(owner).values() if isinstance(owner, type) else (owner,))]
    return [function.__code__ for function in functions if type(function) is _FUNCTION]


def move(functions, codes, chosen):
    """Copies `codes`, those at the places `chosen`, next to each other, and lets all
    `functions` and `codes` refer to the copies. Returns how many were moved."""
    offset = _offset_of_code()
    if offset is None or watched():
        return 0
    places = _copy([codes[place] for place in chosen if place < len(codes)])
    _refer(functions, codes, places, offset)
    return len(places)


def _copy(codes):
    """Returns address -> address of the copy."""
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


def _refer(functions, codes, places, offset):
    from ctypes import c_size_t

    for function in functions:
        word = c_size_t.from_address(id(function) + offset)
        place = places.get(word.value)
        if place is not None:
            word.value = place
    for code in codes:
        constants = code.co_consts
        for index, item in enumerate(constants):
            if type(item) is _CODE and id(item) in places:
                word = c_size_t.from_address(id(constants) + tuple.__basicsize__ + _WORD * index)
                if word.value == id(item):
                    word.value = places[id(item)]


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
    the C library or None."""
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

    libc.malloc_trim(0)  # what is free and was used before would stay for good
    malloc = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_size_t)(("malloc", libc))
    left = MOST_FILL_BYTES
    for size in CHUNK_SIZES:
        before, row = 0, 0
        while row < 3 and left >= size:
            place = malloc(size - _WORD)
            left -= size
            row = row + 1 if place == before + size else 0
            before = place
