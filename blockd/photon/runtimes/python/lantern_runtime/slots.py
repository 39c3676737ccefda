"""Memory shared by the zygote and its photons: who is busy, and with what.

Two kinds of memory, both anonymous and shared, so they need no file:

- The table, which everybody sees: a peak (2 bytes, little endian), one byte
  that says "draining", then one state byte per slot. A photon writes only its own byte and the peak.
- One page per slot, which only that photon and the zygote see: the id of the
  request that the photon has in hand. Request ids are what a forger of answers
  would need; MADV_DONTFORK keeps the page out of every later photon.

A page is written before the state says BUSY and cleared before it says
WAITING, so the zygote that finds a dead photon BUSY finds its id as well.
"""

import mmap

FREE, STARTING, WAITING, BUSY, ENDED = 0, 1, 2, 3, 4
"""ENDED: its photon is dead, but what it left is not cleared up yet."""

_PEAK_BYTES = 2
_HEAD_BYTES = _PEAK_BYTES + 1
MOST_ID_BYTES = 256
"""Longest request id that can be noted. Ids are UUIDs of 36 bytes."""


class Slots:
    """The table and the pages, as the zygote has them before a fork."""

    def __init__(self, count):
        """`count` slots, all FREE."""
        self.count = count
        self.table = mmap.mmap(-1, _HEAD_BYTES + count)
        self.pages = [None] * count

    def prepare(self, slot):
        """Zygote, before the fork for `slot`: a page that the fork inherits."""
        if self.pages[slot] is None:
            self.pages[slot] = mmap.mmap(-1, mmap.PAGESIZE)
        elif hasattr(mmap, "MADV_DOFORK"):
            self.pages[slot].madvise(mmap.MADV_DOFORK)
        self.set_request(slot, "")
        self.set_state(slot, STARTING)

    def conceal(self, slot):
        """Zygote, after the fork for `slot`: no later fork inherits the page."""
        if hasattr(mmap, "MADV_DONTFORK"):
            self.pages[slot].madvise(mmap.MADV_DONTFORK)

    def state(self, slot):
        """State of `slot`."""
        return self.table[_HEAD_BYTES + slot]

    def set_state(self, slot, state):
        """Sets the state of `slot`."""
        self.table[_HEAD_BYTES + slot] = state

    def census(self):
        """The states of all slots as bytes, at one moment."""
        return self.table[_HEAD_BYTES:_HEAD_BYTES + self.count]

    def drain(self):
        """From now on photons end instead of asking for an invocation."""
        self.table[_PEAK_BYTES] = 1

    def draining(self):
        """Whether `drain` was called."""
        return self.table[_PEAK_BYTES] == 1

    def note_peak(self, busy):
        """Remembers that `busy` photons were busy at once. Photons race in here;
        a lost update makes the estimate one too low until the next call."""
        busy = min(busy, 0xFFFF)
        if busy > self.peak():
            self.set_peak(busy)

    def peak(self):
        """Most photons busy at once since `set_peak`."""
        return int.from_bytes(self.table[:_PEAK_BYTES], "little")

    def set_peak(self, busy):
        """Starts a new period with `busy` photons busy."""
        self.table[:_PEAK_BYTES] = min(busy, 0xFFFF).to_bytes(_PEAK_BYTES, "little")

    def set_request(self, slot, request_id):
        """Notes the request that the photon of `slot` has in hand, "" for none."""
        data = request_id.encode("utf-8", "replace")[:MOST_ID_BYTES]
        page = self.pages[slot]
        page[:2] = b"\0\0"
        page[2:2 + len(data)] = data
        page[:2] = len(data).to_bytes(2, "little")

    def request(self, slot):
        """The request that the photon of `slot` has in hand, or ""."""
        page = self.pages[slot]
        length = min(int.from_bytes(page[:2], "little"), MOST_ID_BYTES)
        return page[2:2 + length].decode("utf-8", "replace")
