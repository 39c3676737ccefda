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
    def test_code_that_a_tool_has_watched_stays(self):
        """The tool is gone, and its tables are not: with them shared, a generator that is
        in the old code lost its events when another tool came."""
        told = self.run_code("""
            def generate():
                while True:
                    yield len("a")
                    len("b")
            def lines(generator):
                found = []
                def trace(frame, event, _):
                    found.append(event)
                    return trace
                generator.gi_frame.f_trace = trace
                sys.settrace(trace)
                next(generator), next(generator)
                sys.settrace(None)
                return found.count("line")
            imported = layout.CodeWatch()
            old = generate()
            next(old)
            before = lines(old)
            place = id(generate.__code__)
            move(imported)
            tell([before > 0, id(generate.__code__) == place, lines(old) == before])
        """)
        self.assertEqual(told, [True, True, True])

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
        self.assertEqual(self.run_code("""
            holes = [bytes(200) for n in range(10_000)]
            del holes[::2]
            layout.fill_holes(system.libc())
            new = [id(item) for item in [bytes(200) for _ in range(50)]]
            steps = [later - earlier for earlier, later in zip(new, new[1:])]
            tell([len(layout._kept) >= 5000, steps.count(240) > 40])
        """), [True, True])
        for allocator in ("malloc", "pymalloc_debug"):
            os.environ["PYTHONMALLOC"] = allocator
            try:
                self.assertEqual(self.run_code(source), [True, 5000])
            finally:
                del os.environ["PYTHONMALLOC"]


class InTheRuntime(RuntimeCase):
    HANDLER = """
        import os
        text = "".join("def f%d(x):\\n    return x[1] + x[2] + len(str(x))\\n" % n for n in range(8000))
        exec(compile(text, "made.py", "exec"), space := {})
        functions = [space["f%d" % n] for n in range(8000)]
        def work():
            for one in functions[::40]:
                one(range(5))  # not specialised, so counted
        for _ in range(5):
            work()
        def handler(event, context):
            work()
            with open("/proc/self/smaps_rollup") as file:
                return [int(line.split()[1]) for line in file if line.startswith("Private_Dirty")][0]
    """

    @unittest.skipUnless(MOVES, "this interpreter's code is not moved")
    def test_photons_write_to_fewer_pages(self):
        """Two hundred functions, each in a page of its own: 800 KB, or 80 KB side by side.
        With one photon at a time there is nobody to share with, and they stay."""
        written = []
        for concurrency in (2, 1):
            runtime = self.start(self.HANDLER, concurrency=concurrency)
            written.append(self.call({}))
            self.assertEqual(runtime.stop(), 0)
        self.assertLess(written[0], written[1] - 500)

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

    def test_hooks_that_wait_or_leave_helpers_stop_nothing(self):
        for hook in ("os.fork() or time.sleep(60)", "first[0] and time.sleep(60)"):
            runtime = self.start("""
                import os, time
                first, main = [True], os.getpid()
                def parent():
                    first[0] = False
                def child():
                    if os.getppid() == main and first[0] and LAID_OUT:
                        HOOK
                os.register_at_fork(after_in_child=child, after_in_parent=parent)
                def handler(event, context):
                    return "here"
            """.replace("HOOK", hook).replace("LAID_OUT", str(MOVES)), concurrency=2)
            self.assertEqual(self.call({}), "here")
            self.assertEqual(runtime.stop(), 0)

    def test_a_fork_that_raises_in_the_child_makes_no_second_zygote(self):
        runtime = self.start("""
            import os
            fork, calls = os.fork, []
            def wrapper():
                calls.append(1)
                pid = fork()
                if pid == 0 and len(calls) == 1:
                    raise ValueError("in the child")
                return pid
            os.fork = wrapper
            def handler(event, context):
                return "here"
        """, concurrency=2)
        self.assertEqual(self.call({}), "here")
        self.assertEqual(runtime.stop(), 0)

    def test_a_handler_of_signals_that_ends_the_process_is_not_for_the_scout(self):
        runtime = self.start("""
            import signal, sys
            signal.signal(signal.SIGCHLD, lambda *_: sys.exit("a worker died"))
            def handler(event, context):
                return "here"
        """, concurrency=2)
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
