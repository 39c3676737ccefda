"""Sleeps: what a function costs that only waits."""
import time

import gate


def handler(event, _context):
    """`seconds`, 1 without it."""
    started = time.monotonic()
    gate.wait(event)
    time.sleep(float(event.get("seconds", 1)))
    return {"ms": (time.monotonic() - started) * 1e3}
