"""Photons: how many there are, how they die, how they are replaced, how all ends."""

import os
import signal
import unittest

from harness import RuntimeCase, living_children, state_of

WAIT = """
    import os, signal, sys
    def handler(event, context):
        if event.get("kill"):
            os.kill(os.getpid(), event["kill"])
        if "exit" in event:
            os._exit(event["exit"])
        if "shell" in event:
            os.system(event["shell"])
        if "raise" in event:
            sys.exit(event["raise"])
        print("in", flush=True)
        if event.get("fifo"):
            open(event["fifo"]).read()
        return os.getpid()
    """


class Fifo:
    """Holds invocations until it is opened: no test has to sleep."""

    def __init__(self, case, name="fifo"):
        self.path = os.path.join(case.root, name)
        os.mkfifo(self.path)

    def release(self):
        """All readers that are there, and all that come, go on."""
        self._fd = os.open(self.path, os.O_RDWR)
        os.close(self._fd)


class Growth(RuntimeCase):
    def hold(self, count):
        """Starts `count` invocations that stay; returns them and what ends them."""
        held = []
        for number in range(count):
            fifo = Fifo(self, "fifo-%d-%d" % (len(os.listdir(self.root)), number))
            held.append((self.api.invoke({"fifo": fifo.path}), fifo.path))
        for invocation, _ in held:
            invocation.wait_taken()
        return held

    def let_go(self, held):
        for _, path in held:
            with open(path, "w"):
                pass
        return [invocation.result().json() for invocation, _ in held]

    def check(self, mode, concurrency, spares):
        runtime = self.start(WAIT, mode=mode, concurrency=concurrency)
        self.until_waiting(min(2, concurrency))
        self.assertLessEqual(len(runtime.photons()), spares)
        held = self.hold(concurrency)
        self.assertEqual(len({invocation.pid for invocation, _ in held}), concurrency)
        self.assertLessEqual(len(runtime.photons()), concurrency + (2 if mode == "invocation" else 0))
        self.assertEqual(sorted(self.let_go(held)), sorted(invocation.pid for invocation, _ in held))
        self.assertEqual(runtime.stop(), 0)

    def test_slot(self):
        for concurrency in (1, 2, 5, 64):
            with self.subTest(concurrency=concurrency):
                self.check("slot", concurrency, 2)

    def test_invocation(self):
        for concurrency in (1, 2, 5, 64):
            with self.subTest(concurrency=concurrency):
                self.check("invocation", concurrency, 4)

    def test_more_invocations_than_photons_wait(self):
        self.start(WAIT, concurrency=3)
        pids = {i.result().json() for i in [self.api.invoke({}) for _ in range(50)]}
        self.assertLessEqual(len(pids), 3)

    def test_idle_photons_are_given_up(self):
        from_lantern = "import lantern_runtime.zygote as z\nz.SHRINK_SECONDS = 0.05\n"
        runtime = self.start(from_lantern + "import os\ndef handler(event, context):\n    open(event['fifo']).read()\n    return os.getpid()\n", concurrency=16)
        self.let_go(self.hold(16))
        self.until(lambda: len(runtime.photons()) <= 2, "two photons left")
        self.until(lambda: len(self.api.waiting()) == 2, "two waiting")
        self.let_go(self.hold(8))  # and it can grow again
        self.assertEqual(runtime.stop(), 0)
        self.assertEqual(self.api.problems, [])

    def test_nothing_is_lost_while_photons_come_and_go(self):
        source = "import lantern_runtime.zygote as z\nz.SHRINK_SECONDS = 0.01\ndef handler(event, context):\n    return event\n"
        self.start(source, concurrency=8)
        for round in range(30):
            batch = [self.api.invoke([round, i]) for i in range(8)]
            self.assertEqual([i.result().json() for i in batch], [[round, i] for i in range(8)])

    def test_a_photon_of_an_invocation_serves_one(self):
        self.start(WAIT, mode="invocation", concurrency=2)
        pids = [self.call({}) for _ in range(20)]
        self.assertEqual(len(set(pids)), 20)


class Death(RuntimeCase):
    """The death of one photon is answered, and its neighbour goes on."""

    def die(self, event, message, mode="slot"):
        runtime = self.start(WAIT, concurrency=2, mode=mode)
        self.until_waiting(2)
        fifo = Fifo(self, "fifo-%d" % len(os.listdir(self.root)))
        neighbour = self.api.invoke({"fifo": fifo.path})
        neighbour.wait_taken()
        invocation = self.api.invoke(event)
        error = invocation.result()
        self.assertEqual(error.kind, "error")
        self.assertEqual(error.json()["errorType"], "Runtime.ExitError")
        self.assertEqual(error.json()["errorMessage"], "RequestId: %s Error: Runtime exited with error: %s" % (invocation.request_id, message))
        self.assertNotEqual(self.call({}), invocation.pid)
        with open(fifo.path, "w"):
            pass
        self.assertEqual(neighbour.result().json(), neighbour.pid)
        self.assertEqual(runtime.stop(), 0)

    def test_segfault(self):
        self.die({"kill": signal.SIGSEGV}, "signal: segmentation fault")
        self.die({"kill": signal.SIGSEGV}, "signal: segmentation fault", "invocation")

    def test_kill(self):
        self.die({"kill": signal.SIGKILL}, "signal: killed")

    def test_killing_all_of_the_process_group(self):
        self.die({"shell": "kill -9 0"}, "signal: killed")

    def test_os_exit(self):
        self.die({"exit": 7}, "exit status 7")
        self.die({"exit": 0}, "exit status 0", "invocation")

    def test_sys_exit(self):
        self.die({"raise": 3}, "exit status 3")
        self.die({"raise": "words"}, "exit status 1")
        self.die({"raise": None}, "exit status 0")

    def test_killed_from_outside_at_the_deadline(self):
        runtime = self.start(WAIT, concurrency=2)
        fifo = Fifo(self)
        invocation = self.api.invoke({"fifo": fifo.path})
        pid = invocation.wait_taken()
        self.until(lambda: self.api.logs.bytes_of(invocation.request_id), "the handler runs")
        self.api.expire(invocation)
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: self.api.late == 1, "the zygote's report was refused")
        self.assertNotEqual(self.call({}), pid)
        self.assertEqual(runtime.stop(), 0)

    def test_the_log_of_the_dead_is_complete_and_its_files_are_gone(self):
        runtime = self.start("""
            import os, subprocess, tempfile
            def handler(event, context):
                path = tempfile.gettempdir()
                os.makedirs(path + "/a/b/c")
                open(path + "/a/b/file", "w").close()
                child = subprocess.Popen(["sleep", "1000"])
                print("pid", child.pid, path)
                os._exit(1)
            """)
        result = self.api.invoke({}).result()
        self.assertTrue(result.log_closed)
        _, pid, path = result.log.decode().split()
        self.until(lambda: state_of(int(pid)) in (None, "Z"), "the child of the dead ended")
        self.until(lambda: not os.path.exists(path + "/a"), "the files of the dead are gone")
        self.assertEqual(runtime.stop(), 0)

    def test_what_the_dead_left_is_gone_before_its_slot_is_used_again(self):
        runtime = self.start("""
            import os, subprocess, tempfile
            def handler(event, context):
                if event:
                    loop = "while :; do mkdir -p %s/a/b; done 2>/dev/null" % tempfile.gettempdir()
                    for _ in range(3):
                        subprocess.Popen(["sh", "-c", loop], start_new_session=True)
                    subprocess.Popen(["sh", "-c", loop])
                    os._exit(1)
                return os.listdir(tempfile.gettempdir())
            """)
        for _ in range(10):
            self.assertEqual(self.error(True)["errorType"], "Runtime.ExitError")
            self.assertEqual(self.call(False), [])
        self.assertNotIn("ended before it took", runtime.log())

    def test_photons_that_die_before_they_are_ready_are_not_replaced_in_a_hurry(self):
        runtime = self.start("""
            import os
            os.register_at_fork(after_in_child=lambda: os._exit(9))
            def handler(event, context):
                pass
            """, wait=False)
        self.until(lambda: runtime.log().count("next try in") >= 4, "four tries")
        self.assertRegex(runtime.log(), r"exit status 9; next try in 0\.[48]0 s")
        self.assertEqual(runtime.stop(), 0)

    def test_a_zygote_that_cannot_fork_backs_off(self):
        runtime = self.start("""
            import errno, os
            fork, left = os.fork, [3]
            def refuse():
                left[0] -= 1
                if left[0] >= 0:
                    raise OSError(errno.EAGAIN, "no more processes")
                return fork()
            os.fork = refuse
            def handler(event, context):
                return "here"
            """)
        self.assertEqual(self.call({}), "here")
        self.assertEqual(runtime.log().count("no photon could be forked"), 3)

    def test_photons_are_killed_before_the_zygote(self):
        runtime = self.start("def handler(event, context):\n    return int(open('/proc/self/oom_score_adj').read())\n")
        with open("/proc/%d/oom_score_adj" % runtime.pid) as file:
            self.assertLess(int(file.read()), self.call({}))


class Ending(RuntimeCase):
    def test_sigterm_lets_the_busy_finish(self):
        for mode in ("slot", "invocation"):
            with self.subTest(mode):
                runtime = self.start(WAIT, concurrency=3, mode=mode)
                fifo = Fifo(self, "fifo-" + mode)
                invocation = self.api.invoke({"fifo": fifo.path})
                pid = invocation.wait_taken()
                runtime.process.send_signal(signal.SIGTERM)
                self.until(lambda: runtime.photons() == [pid], "the idle photons went")
                with open(fifo.path, "w"):
                    pass
                self.assertEqual(invocation.result().json(), pid)
                self.assertEqual(runtime.wait(), 0)
                self.until(lambda: not self.api.waiting(), "no call waits")

    def test_sigterm_while_photons_are_given_up(self):
        """The pipe that is written to for that must not be closed under it."""
        runtime = self.start("""
            import lantern_runtime.zygote as z, os, signal, sys
            z.SHRINK_SECONDS = 0.05
            empty = z._empty
            def empty_and_end(fd):
                empty(fd)
                if sys._getframe(1).f_code.co_name == "_shrink":
                    os.kill(os.getpid(), signal.SIGTERM)
            z._empty = empty_and_end
            def handler(event, context):
                open(event).read()
                return os.getpid()
            """, concurrency=8)
        fifos = [Fifo(self, "fifo-%d" % number) for number in range(5)]
        held = [self.api.invoke(fifo.path) for fifo in fifos]
        for invocation in held:
            invocation.wait_taken()
        for fifo, invocation in list(zip(fifos, held))[1:]:
            with open(fifo.path, "w"):
                pass
            invocation.result()
        self.until(lambda: runtime.photons() == [held[0].pid], "the idle photons went")
        with open(fifos[0].path, "w"):
            pass
        self.assertEqual(held[0].result().json(), held[0].pid)
        self.assertEqual(runtime.wait(), 0)

    def test_nothing_is_left_of_the_files(self):
        runtime = self.start(WAIT, concurrency=3)
        self.call({})
        self.assertEqual(runtime.stop(), 0)
        self.assertEqual(os.listdir(runtime.root), [])

    def test_photons_end_when_the_zygote_is_killed(self):
        runtime = self.start(WAIT, concurrency=2)
        self.until_waiting(2)
        photons = runtime.photons()
        runtime.process.kill()
        runtime.process.wait()
        for pid in photons:
            self.until(lambda pid=pid: state_of(pid) in (None, "Z"), "photon %d ended" % pid)

    def test_no_zombies(self):
        runtime = self.start(WAIT, mode="invocation", concurrency=2)
        for _ in range(10):
            self.call({})
        everybody = lambda: [p for p in os.listdir("/proc") if p.isdigit() and state_of(int(p), runtime.pid) == "Z"]
        self.until(lambda: not everybody(), "all are reaped")
        self.assertTrue(living_children(runtime.pid))


if __name__ == "__main__":
    unittest.main()
