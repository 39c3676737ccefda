"""CPython's own tests, before and after `layout` moved the code that they run.

    python3 cpython_after_move.py [TEST...]

Needs CPython 3.12 or 3.13 with its package `test` (Debian: libpython3.13-testsuite).
Exit code 0: as many run, and none fails after the move that passed before it. `test_dis` is not
in the list: it compares addresses of code that it noted when it was imported.
"""

import gc
import importlib
import io
import os
import sys
import unittest

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lantern_runtime import layout, rehearsal, system  # noqa: E402  (the folder has to be on the path first)

TESTS = """
    ast asyncgen asyncio.test_futures asyncio.test_tasks code collections contextlib copy coroutines dataclasses
    datetime decimal descr dict email enum exceptions functools generators genexps http_cookies inspect itertools json
    list listcomps opcache patma pickle property re scope string super traceback typing urlparse weakref
"""

TOOLS = "bdb cprofile monitoring profile sys_setprofile sys_settrace"
"""Of debuggers and profilers. Only after the move, as code that they have watched
stays where it is; none may fail."""


def run(names, moment):
    """Runs the tests of modules; returns how many there were, and what those that
    failed said."""
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromName(name) for name in names)
    log = io.StringIO()
    result = unittest.TextTestRunner(stream=log, verbosity=0).run(suite)
    failed = {str(test): trace for test, trace in result.failures + result.errors}
    print("%s: %d tests, %d failed, %d skipped" % (moment, result.testsRun, len(failed), len(result.skipped)), file=sys.stderr)
    return result.testsRun, failed


def move():
    """As the zygote does; returns how many code objects were moved."""
    gc.collect()
    gc.disable()
    functions = rehearsal.immortalise()
    watch = layout.CodeWatch(functions)
    moved = layout.move(functions, watch.codes, layout.choose(watch, IMPORTED, []))
    layout.fill_holes(system.libc())
    gc.freeze()
    gc.enable()
    return moved


names = ["test.test_" + name for name in sys.argv[1:] or TESTS.split()]
tools = ["test.test_" + name for name in TOOLS.split()]
for name in names + tools:
    importlib.import_module(name)
system.prepare()
IMPORTED = layout.CodeWatch()
ran_before, before = run(names, "before")
moved = move()
print("moved: %d code objects" % moved, file=sys.stderr)
ran_after, after = run(names, "after")
_, watching = run(tools, "tools after")
after.update(watching)
for test in after.keys() - before.keys():
    print("FAILED only after the move: %s\n%s" % (test, after[test]), file=sys.stderr)
sys.exit(0 if moved and ran_after == ran_before > 100 * len(before) and after.keys() <= before.keys() else 1)
