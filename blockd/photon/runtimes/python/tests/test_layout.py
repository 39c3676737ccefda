"""What `lantern_runtime.layout` moves, and that nothing but its place changes."""

import json
import os
import subprocess
import sys
import textwrap
import unittest

from harness import HERE, RuntimeCase

MOVES = (3, 12) <= sys.version_info < (3, 14)
"""Whether this interpreter's code is moved."""

PRELUDE = """
    import gc, json, sys, weakref
    sys.path.append(%r)
    from lantern_runtime import layout, rehearsal, system
    system.prepare()
    layout.prepare()
    CODE = type((lambda: 0).__code__)

    def move(imported, more=()):
        gc.collect()
        moved = layout.gather(layout.CodeWatch(rehearsal.immortalise()), imported, more)
        layout.fill_holes(system.libc())
        return moved

    def tell(value):
        print(json.dumps(value))
""" % os.path.dirname(HERE)


class Moving(unittest.TestCase):
    """In an interpreter of its own: what is immortal stays so."""

    def run_code(self, source, *options):
        """Runs `source` behind the prelude; returns what it told."""
        program = textwrap.dedent(PRELUDE) + textwrap.dedent(source)
        done = subprocess.run([sys.executable, "-X", "faulthandler", *options, "-c", program], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    @unittest.skipUnless(MOVES, "this interpreter's code is not moved")
    def test_what_ran_lies_together_and_the_rest_stays(self):
        told = self.run_code("""
            text = "".join("def f%d(x):\\n    return x.a + x.b + len(str(x))\\n" % n for n in range(300))
            exec(compile(text, "made.py", "exec"), space := {})
            functions = [space["f%d" % n] for n in range(300)]
            class Thing:
                a, b = 1, 2
            imported = layout.CodeWatch()
            ran = functions[::10]
            for _ in range(5):
                for one in ran:
                    one(Thing())
            places = [id(one.__code__) for one in functions]
            moved = move(imported)
            now = [id(one.__code__) for one in functions]
            changed = [n for n in range(300) if places[n] != now[n]]
            span = max(now[n] for n in changed) - min(now[n] for n in changed)
            size = sum(one.__code__.__sizeof__() for one in ran)
            tell([moved >= len(changed), changed, span, size, [one(Thing()) for one in functions] == [functions[0](Thing())] * 300])
        """)
        self.assertEqual(told[:2], [True, list(range(0, 300, 10))])
        self.assertLess(told[2], 4 * told[3])  # with what else ran; 300 of them are ten times as much
        self.assertTrue(told[4])

    @unittest.skipUnless(MOVES, "this interpreter's code is not moved")
    def test_code_does_the_same_in_its_new_place(self):
        told = self.run_code("""
            import asyncio, dataclasses, traceback
            def outer(n):
                def inner(m, *rest, key=3, **more):
                    nonlocal n
                    n += m + key
                    return [x * n for x in range(3)], (lambda y: y + n)(1)
                return inner
            def generate():
                total = 0
                while True:
                    total += (yield total) or 1
            def fails():
                raise KeyError("here")
            @dataclasses.dataclass(order=True)
            class Pair:
                left: int
                right: int = 2
                @property
                def both(self):
                    return self.left + self.right
                def __add__(self, other):
                    return Pair(self.left + other.left, self.right)
            async def wait():
                await asyncio.sleep(0)
                return 7
            def all_of_it(generator):
                found = [outer(1)(2), outer(5)(1, 2, 3, key=9, a=1), (Pair(1) + Pair(5)).both, sorted([Pair(3), Pair(1)])[0].left]
                found += [generator.send(2), next(generator), asyncio.run(wait())]
                try:
                    fails()
                except KeyError:
                    found.append(traceback.format_exc())
                return json.loads(json.dumps(found))
            imported = layout.CodeWatch()
            generator = generate()
            next(generator)
            before = [all_of_it(generator) for _ in range(4)]
            code = all_of_it.__code__
            moved = move(imported)
            after = [all_of_it(generator) for _ in range(20)]
            fresh = generate()
            next(fresh)
            again = [all_of_it(fresh) for _ in range(4)]
            fails.__code__ = (lambda: None).__code__
            gc.collect()
            tell([moved > 0, code is not all_of_it.__code__, code == all_of_it.__code__, before == again,
                  [x[:4] + x[6:] for x in before[:1] * 20] == [x[:4] + x[6:] for x in after], fails()])
        """)
        self.assertEqual(told, [True] * 5 + [None])

    @unittest.skipUnless(MOVES, "this interpreter's code is not moved")
    def test_code_that_others_hold_stays(self):
        told = self.run_code("""
            def held():
                return len(str(held))
            def free():
                return len(str(free))
            imported = layout.CodeWatch()
            for _ in range(5):
                held(), free()
            reference = weakref.ref(held.__code__)
            places = id(held.__code__), id(free.__code__)
            move(imported)
            tell([reference() is held.__code__, id(held.__code__) == places[0], id(free.__code__) == places[1]])
        """)
        self.assertEqual(told, [True, True, False])

    @unittest.skipUnless(MOVES, "this interpreter's code is not moved")
    def test_tools_that_watch_code_are_seen(self):
        self.assertEqual(self.run_code("""
            found = [layout.watched()]
            sys.settrace(lambda *_: None)
            found.append(layout.watched())
            sys.settrace(None)
            sys.setprofile(lambda *_: None)
            found.append(layout.watched())
            sys.setprofile(None)
            sys.monitoring.use_tool_id(sys.monitoring.COVERAGE_ID, "a tool")
            found.append(layout.watched())
            tell(found)
        """), [False, True, True, True])

    @unittest.skipIf(MOVES, "this interpreter's code is moved")
    def test_nothing_is_moved_elsewhere(self):
        self.assertEqual(self.run_code("""
            def ran():
                return len(str(ran))
            imported = layout.CodeWatch()
            ran()
            place = id(ran.__code__)
            watch = layout.CodeWatch()
            tell([watch.codes, len(watch.ran()), layout.gather(watch, imported, []), place == id(ran.__code__)])
        """), [{}, 0, 0, True])

    def test_holes_are_filled_within_bounds(self):
        """Whatever the allocator: what is taken has a limit, and the interpreter goes on."""
        source = """
            holes = [bytes(40 + n % 400) for n in range(100_000)]
            del holes[::2]
            layout.fill_holes(system.libc())
            taken = sum(sys.getsizeof(item) for item in layout._kept if type(item) is bytes)
            tell([taken <= layout.MOST_FILL_BYTES, len([bytes(n) for n in range(5000)])])
        """
        self.assertEqual(self.run_code(source), [True, 5000])
        for allocator in ("malloc", "pymalloc_debug"):
            os.environ["PYTHONMALLOC"] = allocator
            try:
                self.assertEqual(self.run_code(source), [True, 5000])
            finally:
                del os.environ["PYTHONMALLOC"]


class InTheRuntime(RuntimeCase):
    HANDLER = """
        import os
        text = "".join("def f%d(x):\\n    return x.a + x.b + len(str(x))\\n" % n for n in range(4000))
        exec(compile(text, "made.py", "exec"), space := {})
        functions = [space["f%d" % n] for n in range(4000)]
        class Thing:
            a, b = 1, 2
        def work():
            for one in functions[::40]:
                one(Thing())
        for _ in range(5):
            work()
        def handler(event, context):
            work()
            with open("/proc/self/smaps_rollup") as file:
                return [int(line.split()[1]) for line in file if line.startswith("Private_Dirty")][0]
    """

    @unittest.skipUnless(MOVES, "this interpreter's code is not moved")
    def test_photons_write_to_fewer_pages(self):
        """A hundred functions, each in a page of its own: 400 KB, or 40 KB side by side."""
        written = []
        for immortal in ("1", "0"):
            runtime = self.start(self.HANDLER, LANTERN_PYTHON_IMMORTAL=immortal)
            written.append(self.call({}))
            self.assertEqual(runtime.stop(), 0)
        self.assertLess(written[0], written[1] - 300)

    def test_a_fork_hook_that_fails_stops_nothing(self):
        self.start("""
            import os
            pids = []
            def note():
                pids.append(os.getpid())
                raise ValueError("from a hook")
            os.register_at_fork(after_in_child=note)
            def handler(event, context):
                return pids == [os.getpid()]
        """)
        self.assertIs(self.call({}), True)
