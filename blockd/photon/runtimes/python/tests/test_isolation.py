"""The leak suite: what one invocation can leave for another, in both modes.

`LeaksInBoth` must hold in both modes. `WhatSlotModeKeeps` states what the next
invocation of the same photon finds in slot mode on purpose, and that it does
not in invocation mode. The README's table says the same.
"""

import os
import select
import unittest

from harness import SHARED_TMP, RuntimeCase, state_of

# Every event is Python source; the response is the value of `result`.
RUN = """
    import builtins, json, os, random, signal, socket, subprocess, sys, tempfile, threading, time, uuid
    shared = []
    def handler(event, context):
        names = {"context": context}
        exec(event, globals(), names)
        return names.get("result")
    """


# Every process forks one that goes on, and ends. %s: a FIFO that all of them hold, what each does.
CHAIN = """
fd = os.open(%r, os.O_WRONLY)
if os.fork() == 0:
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        if os.fork():
            os._exit(0)
        %s
    os._exit(0)
os.close(fd)
"""


def hung_up(fd):
    """Whether nobody has the other end of a FIFO open any more."""
    poller = select.poll()
    poller.register(fd, 0)
    return bool(poller.poll(0))


class LeaksInBoth:
    """Mixed into one class per mode. One photon at a time, so that in slot mode the
    same process takes the next invocation."""

    mode = None

    def setUp(self):
        super().setUp()
        self.runtime = self.start(RUN, mode=self.mode, GIVEN="1")

    def test_environment(self):
        self.call("os.environ['LEAK'] = '1'; os.environ['GIVEN'] = '2'; del os.environ['PATH']")
        self.assertEqual(self.call("result = [os.environ.get('LEAK'), os.environ['GIVEN'], 'PATH' in os.environ]"), [None, "1", True])
        self.call("os.environ = {}")
        self.assertEqual(self.call("result = os.environ['GIVEN']"), "1")
        child = "result = subprocess.check_output(['/bin/sh', '-c', 'echo $LEAK$GIVEN']).decode()"
        self.assertEqual(self.call(child), "1\n")

    def test_trace_id(self):
        self.call("", Lambda_Runtime_Trace_Id="Root=1-first")
        self.assertEqual(self.call("result = os.environ['_X_AMZN_TRACE_ID']", Lambda_Runtime_Trace_Id="Root=1-second"), "Root=1-second")

    def test_working_directory_and_umask(self):
        self.call("os.chdir('/'); os.umask(0)")
        task = os.path.realpath(os.path.join(self.root, "task"))
        self.assertEqual(self.call("result = os.path.realpath(os.getcwd())"), task)
        self.assertNotEqual(self.call("u = os.umask(0); os.umask(u); result = u"), 0)

    def test_signals_and_timers(self):
        self.call("signal.signal(signal.SIGUSR1, lambda *_: None); signal.signal(signal.SIGINT, signal.SIG_IGN); "
                  "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]); signal.setitimer(signal.ITIMER_REAL, 3600)")
        self.assertEqual(self.call("result = [signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, "
                                   "signal.getsignal(signal.SIGINT) == signal.default_int_handler, "
                                   "len(signal.pthread_sigmask(signal.SIG_BLOCK, [])), signal.getitimer(signal.ITIMER_REAL)[0], "
                                   "signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "
                                   "signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL]"),
                         [True, True, 0, 0.0, True, True])

    def test_temporary_files(self):
        first = self.call("tempfile.mkdtemp(); open(tempfile.gettempdir() + '/leak', 'w').close(); "
                          "result = [tempfile.gettempdir(), sorted(os.listdir(tempfile.gettempdir()))]")
        self.assertEqual(len(first[1]), 2)
        self.assertEqual(self.call("result = os.listdir(tempfile.gettempdir())"), [])
        self.until(lambda: not os.path.exists(first[0] + "/leak"), "the directory is gone")

    def test_random_state(self):
        seen = [self.call("random.seed(1); result = random.random()") for _ in range(2)]
        self.assertEqual(seen[0], seen[1])
        drawn = [self.call("result = [random.random(), str(uuid.uuid4()), random.SystemRandom().random()]") for _ in range(8)]
        for values in zip(*drawn):
            self.assertEqual(len(set(values)), 8)

    def test_standard_streams(self):
        self.call("sys.stdout.write('unfinished'); sys.stdout = open(os.devnull, 'w')")
        self.call("sys.stderr.close(); sys.stdin = None")
        invocation = self.api.invoke("print('mine'); print('also', file=sys.stderr)")
        self.assertEqual(invocation.result().log, b"mine\nalso\n")

    def test_logs_do_not_mix(self):
        for text in ("one", "two", "three"):
            invocation = self.api.invoke("print(%r); os.write(2, b'raw'); subprocess.check_call(['echo', 'child']); "
                                         "sys.stdout.write('no end')" % text)
            result = invocation.result()
            self.assertEqual(result.log, text.encode() + b"\nrawchild\nno end")
            self.assertTrue(result.log_closed)

    def test_children_end_with_the_invocation(self):
        start = """
            a = subprocess.Popen(['sleep', '1000'])
            b = subprocess.Popen(['sh', '-c', '(setsid sleep 1000 & echo $!)'], stdout=subprocess.PIPE, start_new_session=True)
            result = [a.pid, int(b.stdout.readline())]
            """
        for pid in self.call("\n".join(line.strip() for line in start.splitlines())):
            self.until(lambda pid=pid: state_of(pid) in (None, "Z"), "child %d ended" % pid)
        self.assertEqual(self.call("result = 5"), 5)

    def test_children_that_fork_and_exit_all_the_time_end_too(self):
        for session in ("", "os.setsid()"):
            with self.subTest(session):
                fifo = os.path.join(self.root, "fifo" + session)
                os.mkfifo(fifo)
                held = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
                self.addCleanup(os.close, held)
                # The time only ends a test that fails.
                self.call(CHAIN % (fifo, session))
                self.until(lambda: hung_up(held), "all of the chain have closed the FIFO")
                self.assertEqual(self.call("result = 5"), 5)

    def test_a_chain_of_children_does_not_outlive_its_photon(self):
        fifo = os.path.join(self.root, "fifo")
        os.mkfifo(fifo)
        held = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, held)
        self.error(CHAIN % (fifo, "os.setsid()") + "os._exit(1)")
        self.until(lambda: hung_up(held), "all of the chain have closed the FIFO")

    def test_a_forked_copy_does_not_answer(self):
        self.assertEqual(self.call("pid = os.fork(); result = 'child' if pid == 0 else (os.waitpid(pid, 0), 'parent')[1]"), "parent")
        self.assertEqual(self.error("pid = os.fork()\nif pid: os.waitpid(pid, 0)\nraise ValueError(pid and 'parent')")["errorMessage"], "parent")
        self.assertEqual(self.call("result = 1"), 1)
        self.assertEqual((self.api.late, self.api.unknown), (0, 0))

    def test_a_lingering_thread_does_not_meet_the_next_invocation(self):
        pid = self.call("threading.Thread(target=time.sleep, args=(1000,), daemon=True).start(); result = os.getpid()")
        self.until(lambda: state_of(pid) in (None, "Z"), "the photon with the thread ended")
        self.assertEqual(self.call("result = threading.active_count()"), 1)

    def test_no_descriptors_of_the_zygote_or_of_others(self):
        counts = {self.call("result = len(os.listdir('/proc/self/fd'))") for _ in range(5)}
        self.assertEqual(len(counts), 1, counts)

    def test_request_ids_of_others_are_not_in_memory(self):
        """Only the shared table and the photon's own page are mapped."""
        maps = self.call("result = [line.split()[1] for line in open('/proc/self/maps') if '/dev/zero' in line]")
        self.assertEqual(len([perms for perms in maps if perms.endswith("s")]), 2, maps)


class SlotLeaks(LeaksInBoth, RuntimeCase):
    mode = "slot"


class InvocationLeaks(LeaksInBoth, RuntimeCase):
    mode = "invocation"


class Merging(RuntimeCase):
    """Equal pages of photons, for the kernel to merge."""

    SOURCE = """
        import ctypes
        PR_GET_MEMORY_MERGE = 68
        def handler(event, context):
            return ctypes.CDLL(None).prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0)
    """

    def test_merged_only_if_told_to(self):
        for told in ("0", "1"):
            with self.subTest(told):
                runtime = self.start(self.SOURCE, LANTERN_PYTHON_MERGE=told)
                answer = self.call({})
                if answer == -1:
                    self.assertEqual("merges no memory" in runtime.log(), told == "1")
                else:
                    self.assertEqual(answer, int(told), runtime.log())
                runtime.stop()


class WhatSlotModeKeeps(RuntimeCase):
    """(name, leave, look, found in slot mode, found in invocation mode)"""

    CASES = [
        ("module globals", "shared.append(1)", "result = len(shared)", 1, 0),
        ("attributes of modules", "json.leak = 1", "result = hasattr(json, 'leak')", True, False),
        ("built-ins", "builtins.leak = 1", "result = hasattr(builtins, 'leak')", True, False),
        ("imported modules", "import colorsys", "result = 'colorsys' in sys.modules", True, False),
        ("sys.path", "sys.path.append('/leak')", "result = '/leak' in sys.path", True, False),
        ("open files", "builtins.leak = open('/dev/full')", "result = any(os.path.realpath('/proc/self/fd/%s' % fd) == '/dev/full' for fd in os.listdir('/proc/self/fd'))", True, False),
        ("recursion limit", "sys.setrecursionlimit(4321)", "result = sys.getrecursionlimit() == 4321", True, False),
    ]

    def test_slot(self):
        self.start(RUN, mode="slot")
        for name, leave, look, kept, _ in self.CASES:
            with self.subTest(name):
                self.call(leave)
                self.assertEqual(self.call(look), kept)
        self.assertEqual(self.call("result = os.getpid()"), self.call("result = os.getpid()"))

    def test_invocation(self):
        self.start(RUN, mode="invocation")
        for name, leave, look, _, kept in self.CASES:
            with self.subTest(name):
                self.call(leave)
                self.assertEqual(self.call(look), kept)
        self.assertNotEqual(self.call("result = os.getpid()"), self.call("result = os.getpid()"))


class BetweenPhotons(RuntimeCase):
    """Two invocations at once never share a process, in either mode."""

    def test_everything_is_private(self):
        for mode in ("slot", "invocation"):
            with self.subTest(mode):
                runtime = self.start(RUN, mode=mode, concurrency=2)
                self.until_waiting(2)
                fifo = os.path.join(self.root, "fifo-" + mode)
                os.mkfifo(fifo)
                first = self.api.invoke("shared.append(1); os.environ['LEAK'] = '1'; os.chdir('/'); "
                                        "open(tempfile.gettempdir() + '/leak', 'w').close(); print('first'); "
                                        "open(%r).read(); print('again'); result = tempfile.gettempdir()" % fifo)
                first.wait_taken()
                second = self.api.invoke("print('second'); result = [shared, os.environ.get('LEAK'), os.getcwd() == '/', "
                                         "os.listdir(tempfile.gettempdir()), tempfile.gettempdir()]").result()
                with open(fifo, "w"):
                    pass
                one = first.result()
                self.assertEqual(second.json()[:4], [[], None, False, []])
                self.assertNotEqual(second.json()[4], one.json())
                self.assertEqual((one.log, second.log), (b"first\nagain\n", b"second\n"))
                runtime.stop()


# A handler that says where it is and waits, or tries what can be done with another process.
SPY = """
    import ctypes, os, subprocess
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    SECRET = ctypes.create_string_buffer(b"secret")

    class Piece(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    def check(result):
        if result < 0:
            raise OSError(ctypes.get_errno(), "")

    def read(pid, name, offset=0):
        with open("/proc/%d/%s" % (pid, name), "rb", buffering=0) as file:
            file.seek(offset)
            file.read(1)

    def process_vm_readv(pid, address):
        buffer = ctypes.create_string_buffer(1)
        ours, theirs = Piece(ctypes.addressof(buffer), 1), Piece(address, 1)
        check(libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0))

    def ptrace(pid, _):
        child = os.fork()  # whose end ends the tracing
        if child == 0:
            os._exit(0 if libc.ptrace(0x4206, pid, None, None) == 0 else ctypes.get_errno())  # PTRACE_SEIZE
        error = os.waitpid(child, 0)[1] >> 8
        if error:
            raise OSError(error, "")

    WAYS = {"mem": lambda pid, address: read(pid, "mem", address), "maps": lambda pid, _: read(pid, "maps"),
            "environ": lambda pid, _: read(pid, "environ"), "fd": lambda pid, _: os.readlink("/proc/%d/fd/0" % pid),
            "root": lambda pid, _: os.listdir("/proc/%d/root" % pid), "process_vm_readv": process_vm_readv, "ptrace": ptrace}

    def handler(event, context):
        if isinstance(event, str):
            program = subprocess.Popen(["sleep", "1000"])
            print(ctypes.addressof(SECRET), program.pid, flush=True)
            open(event).read()
            return
        possible = []
        for name, way in WAYS.items():
            try:
                way(*event)
            except PermissionError:
                continue
            except OSError:
                pass  # allowed, but there is nothing at the address
            possible.append(name)
        return possible
    """


def without_capabilities():
    """As in a sandbox: root too has none of them in the program that comes next."""
    import ctypes

    if os.geteuid() == 0:
        prctl, capability = ctypes.CDLL(None).prctl, 0
        while prctl(23, capability, 0, 0, 0) >= 0:  # PR_CAPBSET_READ
            prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
            capability += 1


class Memory(RuntimeCase):
    """Of another photon and of the zygote, to the same user without capabilities."""

    def spy(self, **environ):
        """What is possible with the zygote, another photon, a program that one started."""
        runtime = self.start(SPY, concurrency=2, before=without_capabilities, **environ)
        self.until_waiting(2)
        fifo = os.path.join(self.root, "fifo%d" % runtime.pid)
        os.mkfifo(fifo)
        other = self.api.invoke(fifo)
        pid = other.wait_taken()
        self.until(lambda: self.api.logs.bytes_of(other.request_id).endswith(b"\n"), "it has said where to look")
        address, program = map(int, self.api.logs.bytes_of(other.request_id).split())
        found = [self.call([target, address]) for target in (runtime.pid, pid, program)]
        with open(fifo, "w"):
            pass
        other.result()
        runtime.stop()
        return found

    def test_is_not_readable(self):
        zygote, other, program = self.spy()
        self.assertEqual((zygote, other), ([], []))
        self.assertIn("environ", program)  # exec opens it again

    def test_is_readable_for_debuggers(self):
        """So it is the runtime that closes it, not the machine."""
        zygote, other, _ = self.spy(LANTERN_PYTHON_DUMPABLE="1")
        for found in (zygote, other):
            self.assertTrue({"mem", "maps", "environ", "fd"} <= set(found), found)


class AfterImport(RuntimeCase):
    def test_files_of_the_import_are_seen_by_all(self):
        self.start("""
            import os, tempfile
            with open(os.path.join(tempfile.gettempdir(), "model"), "w") as file:
                file.write("weights")
            def handler(event, context):
                path = os.path.join(tempfile.gettempdir(), "model")
                text = open(path).read()
                os.unlink(path)
                return text
            """, concurrency=2)
        self.assertEqual([self.call({}) for _ in range(4)], ["weights"] * 4)

    def test_fork_hooks_of_user_code_run(self):
        self.start("""
            import os
            seen = []
            os.register_at_fork(after_in_child=lambda: seen.append("child"))
            def handler(event, context):
                return seen
            """)
        self.assertEqual(self.call({}), ["child"])

    def test_threads_of_the_import_are_warned_of(self):
        runtime = self.start("""
            import threading, time
            threading.Thread(target=time.sleep, args=(1000,), daemon=True, name="poller").start()
            def handler(event, context):
                return threading.active_count()
            """)
        self.assertEqual([self.call({}), self.call({})], [1, 1])
        self.assertEqual(runtime.log().count("the import started threads"), 1)
        self.assertIn("poller", runtime.log())

    def test_children_of_the_import_stay(self):
        self.start("""
            import os, subprocess
            child = subprocess.Popen(["sleep", "1000"])
            def handler(event, context):
                os.kill(child.pid, 0)
                return open("/proc/%d/stat" % child.pid).read().split()[2]
            """, mode="invocation")
        self.assertEqual([self.call({}) for _ in range(3)], ["S"] * 3)

    def test_the_collector_runs_in_photons(self):
        self.start("import gc\ndef handler(event, context):\n    return [gc.isenabled(), gc.get_freeze_count() > 0]\n")
        self.assertEqual(self.call({}), [True, True])

    def test_the_root_logger_is_set_up(self):
        self.start("""
            import logging
            log = logging.getLogger()
            log.setLevel("INFO")
            def handler(event, context):
                log.info("said %s", event)
                return len(log.handlers)
            """)
        for word in ("one", "two"):
            invocation = self.api.invoke(word)
            result = invocation.result()
            self.assertEqual(result.json(), 1)
            self.assertRegex(result.log.decode(), r"^\[INFO\]\t[-0-9T:.]+Z\t%s\tsaid %s\n$" % (invocation.request_id, word))

    def test_json_logs(self):
        import json
        self.start("""
            import logging
            def handler(event, context):
                try:
                    raise ValueError("bad")
                except ValueError:
                    logging.getLogger("mine").error("said", exc_info=True, extra={"more": 1})
            """, AWS_LAMBDA_LOG_FORMAT="JSON")
        invocation = self.api.invoke({})
        line = json.loads(invocation.result().log)
        self.assertEqual((line["level"], line["message"], line["logger"], line["requestId"], line["errorType"], line["more"]),
                         ("ERROR", "said", "mine", invocation.request_id, "ValueError", 1))

    def test_a_default_timeout_of_user_code_is_not_ours(self):
        runtime = self.start("""
            import os, socket
            socket.setdefaulttimeout(3600)
            def handler(event, context):
                print("here")
                return [os.get_blocking(1), socket.getdefaulttimeout()]
            """)
        for _ in range(2):
            result = self.api.invoke({}).result()
            self.assertEqual((result.json(), result.log), ([True, 3600], b"here\n"))
        self.assertEqual(runtime.log(), SHARED_TMP)

    def test_without_a_log_address_the_sandbox_log_gets_all(self):
        runtime = self.start("def handler(event, context):\n    print('here', event)\n", logs=False)
        self.call("x")
        self.assertIn("here x", runtime.log())


if __name__ == "__main__":
    unittest.main()
