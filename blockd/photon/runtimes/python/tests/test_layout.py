"""What `lantern_runtime.layout` moves, and that nothing but its place changes."""

import json
import os
import subprocess
import sys
import textwrap
import unittest

from harness import HERE, RuntimeCase

sys.path.append(os.path.dirname(HERE))
from lantern_runtime import layout  # noqa: E402

MOVES = (3, 12) <= sys.version_info < (3, 14)
"""Whether this interpreter's code is moved."""

PRELUDE = """
    import gc, json, sys, weakref
    sys.path.append(%r)
    from lantern_runtime import layout, rehearsal, system
    system.prepare()

    def move(imported, start=()):
        gc.collect()
        functions = rehearsal.immortalise()
        watch = layout.CodeWatch(functions)
        moved = layout.move(functions, watch.codes, layout.choose(watch, imported, start))
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
            found = [layout.can_move()]
            sys.settrace(lambda *_: None)
            found.append(layout.can_move())
            sys.settrace(None)
            sys.setprofile(lambda *_: None)
            found.append(layout.can_move())
            sys.setprofile(None)
            sys.monitoring.use_tool_id(sys.monitoring.COVERAGE_ID, "a tool")
            found.append(layout.can_move())
            tell(found)
        """), [True, False, False, False])

    @unittest.skipUnless(MOVES, "this interpreter's code is not moved")
    def test_lengths_of_caches_are_the_interpreters(self):
        import opcode

        entries = opcode._inline_cache_entries
        if isinstance(entries, dict):
            entries = {opcode.opmap[name]: count for name, count in entries.items()}
            self.assertEqual(layout._JUMP_BACKWARD, opcode.opmap["JUMP_BACKWARD"])
        else:
            entries = dict(enumerate(entries))
        self.assertEqual(layout.CACHE_UNITS[sys.version_info[:2]], {number: count for number, count in entries.items() if count})

    def test_only_versions_that_were_tried_are_moved(self):
        self.assertIs(self.run_code("tell(layout.can_move())"), MOVES)

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
            runtime = self.start(self.HANDLER, concurrency=2, LANTERN_PYTHON_IMMORTAL=immortal)
            written.append(self.call({}))
            self.assertEqual(runtime.stop(), 0)
        self.assertLess(written[0], written[1] - 300)

    @unittest.skipUnless(MOVES, "this interpreter's code is not moved")
    def test_one_photon_at_a_time_has_nothing_to_share(self):
        written = []
        for concurrency in (2, 1):
            runtime = self.start(self.HANDLER, concurrency=concurrency)
            written.append(self.call({}))
            self.assertEqual(runtime.stop(), 0)
        self.assertLess(written[0], written[1] - 200)

    def test_hooks_of_forks_that_fail_stop_nothing(self):
        for failure in ("raise ValueError('from a hook')", "os._exit(3)", "os.kill(os.getpid(), 9)"):
            runtime = self.start("""
                import os
                forks = [0]
                def count():
                    forks[0] += 1
                def note():
                    if forks[0] == 1 and LAID_OUT:
                        FAILURE
                os.register_at_fork(before=count, after_in_child=note)
                def handler(event, context):
                    return "here"
            """.replace("FAILURE", failure).replace("LAID_OUT", str(MOVES)), concurrency=2)
            self.assertEqual(self.call({}), "here")
            self.assertEqual(runtime.stop(), 0)

    def test_a_handler_of_signals_that_takes_the_scout_stops_nothing(self):
        runtime = self.start("""
            import os, signal
            def reap(number, frame):
                try:
                    os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    pass
            signal.signal(signal.SIGCHLD, reap)
            def handler(event, context):
                return "here"
        """, concurrency=2)
        self.assertEqual(self.call({}), "here")
        self.assertEqual(runtime.stop(), 0)
