"""What photons have in place of what the import left open, and runtime hooks."""

import os
import socket
import threading
import unittest

from harness import RuntimeCase
from mock.api import DEADLINE_SECONDS

BOTH = ("slot", "invocation")

# As the package of AWS has it: what matters is its name and what is in its lists.
HOOKS = ("snapshot_restore_py.py", """
    before, after = [], []
    def register_before_snapshot(func, *args, **kwargs):
        before.append((func, args, kwargs))
        return func
    def register_after_restore(func, *args, **kwargs):
        after.append((func, args, kwargs))
        return func
    def get_before_snapshot():
        return before
    def get_after_restore():
        return after
    """)

# Talks to `Peer`: a byte of greeting, then what the event says, at once in all photons.
TALK = """
    import os, socket
    connection = socket.create_connection(("127.0.0.1", int(os.environ["PEER"])))
    assert connection.recv(1) == b"+"
    def attempt(call, *args):
        try:
            return repr(call(*args))
        except OSError as error:
            return type(error).__name__
    def handler(event, context):
        open(event["fifo"]).read()
        return [attempt(connection.sendall, event["say"].encode()), attempt(connection.recv, 10),
                os.get_inheritable(connection.fileno())]
    """


class Peer:
    """A server that greets, notes what it hears, and speaks when told to."""

    def __init__(self, case):
        self.listener = socket.create_server(("127.0.0.1", 0))
        case.addCleanup(self.listener.close)
        self.port = self.listener.getsockname()[1]
        self.heard = []  # per connection
        self.connections = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            self.heard.append(b"")
            connection.sendall(b"+")
            threading.Thread(target=self._listen, args=(connection, len(self.heard) - 1), daemon=True).start()

    def _listen(self, connection, number):
        with connection:
            while True:
                try:
                    data = connection.recv(1000)
                except ConnectionResetError:
                    return
                if not data:
                    return
                self.heard[number] += data


class Together(RuntimeCase):
    def at_once(self, events):
        """Answers of invocations that were all taken before the first went on."""
        held = []
        for event in events:
            fifo = self.fifo("fifo%d" % len(os.listdir(self.root)))
            held.append((fifo, self.api.invoke({"fifo": fifo, **event})))
        self.assertEqual(len({invocation.wait_taken() for _, invocation in held}), len(events))
        for fifo, _ in held:
            with open(fifo, "w"):
                pass
        results = [invocation.result() for _, invocation in held]
        self.assertEqual({result.kind for result in results}, {"response"}, [result.body for result in results])
        return [result.json() for result in results]

    def fifo(self, name):
        path = os.path.join(self.root, name)
        os.mkfifo(path)
        return path


class Connections(Together):
    """Of the import."""

    def test_are_dead_in_photons(self):
        for mode in BOTH:
            with self.subTest(mode):
                peer = Peer(self)
                runtime = self.start(TALK, mode=mode, concurrency=2, PEER=str(peer.port))
                self.until_waiting(2)
                peer.connections[0].sendall(b"for another")
                for one in self.at_once([{"say": "first"}, {"say": "second"}]):
                    self.assertEqual(one, ["BrokenPipeError", "b''", False])
                self.assertEqual(peer.heard, [b""])
                warning = "connections that the import opened: 1, to 127.0.0.1:%d. They are closed" % peer.port
                self.assertEqual(runtime.log().count(warning), 1, runtime.log())
                runtime.stop()

    def test_are_dead_for_hooks_of_user_code(self):
        peer = Peer(self)
        self.start(TALK + """
    seen = []
    os.register_at_fork(after_in_child=lambda: seen.append(attempt(connection.send, b"hook")))
    def handler(event, context):
        return seen
    """, PEER=str(peer.port))
        self.assertEqual(self.call({}), ["BrokenPipeError"])
        self.assertEqual(peer.heard, [b""])

    def test_are_dead_without_the_interpreters_hooks(self):
        """A fork that runs none, as user code may put in place of `os.fork`."""
        self.start(TALK + """
    import ctypes
    os.fork = ctypes.CDLL(None).fork
    def handler(event, context):
        return attempt(connection.send, b"x")
    """, PEER=str(Peer(self).port))
        self.assertEqual(self.call({}), "BrokenPipeError")

    def test_a_photon_that_cannot_be_parted_from_them_ends(self):
        runtime = self.start(TALK + """
    import resource
    limits = [(3, 3), resource.getrlimit(resource.RLIMIT_NOFILE)]
    def before():
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0][0], limits[1][1]))
    def after():
        resource.setrlimit(resource.RLIMIT_NOFILE, limits[1])
        limits[0] = limits[1]
    os.register_at_fork(before=before, after_in_parent=after)
    def handler(event, context):
        return attempt(connection.send, b"x")
    """, PEER=str(Peer(self).port))
        self.assertEqual(self.call({}), "BrokenPipeError")
        self.assertRegex(runtime.log(), "a photon could not be parted from what the import opened: OSError.*\\n"
                                        ".*a photon ended before it took an invocation: exit status 1; next try")

    def test_of_a_thread_that_goes_on_in_the_zygote(self):
        """It opens connections while photons are forked, and keeps its own."""
        peer = Peer(self)
        runtime = self.start("""
            import os, socket, threading
            connections = []
            def work():
                with open(os.environ["FIFO"]) as fifo:
                    for _ in fifo:
                        connections.append(socket.create_connection(("127.0.0.1", int(os.environ["PEER"]))))
                        connections[0].sendall(b"z")
            threading.Thread(target=work, daemon=True).start()
            def handler(event, context):
                found = []
                for connection in connections:
                    try:
                        found.append(connection.send(b"photon"))
                    except BrokenPipeError:
                        found.append(None)
                return found
            """, mode="invocation", PEER=str(peer.port), FIFO=self.fifo("thread"))
        with open(os.path.join(self.root, "thread"), "w", buffering=1) as fifo:
            for count in (1, 2):
                fifo.write("\n")
                self.until(lambda count=count: peer.heard and peer.heard[0] == b"z" * count, "the thread has said it")
                while len(found := self.call({})) < count:
                    pass  # a photon that was forked before
                self.assertEqual(found, [None] * count)
        self.assertEqual(peer.heard, [b"zz", b""])
        self.assertIn("the import started threads", runtime.log())

    def test_a_client_connects_again(self):
        """As urllib3 does: asks whether the connection has something to read, which
        its end is, before it is used again."""
        self.start("""
            import http.client, json, os, select
            host, port = os.environ["LANTERN_TEST_SERVER"].split(":")
            connection = http.client.HTTPConnection(host, int(port))
            def get():
                connection.request("GET", "/lantern/v1/store/absent")
                answer = connection.getresponse()
                answer.read()
                return answer.status
            assert get() == 404
            def handler(event, context):
                opened = connection.sock is not None and bool(select.select([connection.sock], [], [], 0)[0])
                if opened:
                    connection.close()
                return [opened, get(), get()]
            """, LANTERN_TEST_SERVER="%s:%d" % self.api.address)
        self.assertEqual(self.call({}), [True, 404, 404])
        self.assertEqual(self.call({}), [False, 404, 404])

    def test_kinds(self):
        """Which sockets are connections, and who is at their other end."""
        path = os.path.join(self.root, "listens")
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        server.bind(path)
        server.listen()
        runtime = self.start("""
            import os, socket, subprocess
            unix = socket.socket(socket.AF_UNIX)
            unix.connect(os.environ["SERVER"])
            mine, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            child = subprocess.Popen(["sleep", "1000"], stdin=childs)
            childs.close()
            fresh = socket.socket()
            copy = os.dup(unix.fileno())
            os.set_inheritable(copy, True)
            listening = socket.create_server(("127.0.0.1", 0))
            datagrams = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            datagrams[0].send(b"kept")
            socket.setdefaulttimeout(5)
            pipe = os.pipe()
            def handler(event, context):
                ends = [sock.recv(1) for sock in (unix, mine, fresh)] + [os.read(copy, 1)]
                accepting = listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                return [ends == [b""] * 4, os.get_inheritable(copy), unix.gettimeout(), os.get_blocking(pipe[0]),
                        accepting, datagrams[1].recv(9).decode()]
            """, SERVER=path)
        self.assertEqual(self.call({}), [True, True, None, True, 1, "kept"])
        self.assertIn("opened: 3, to %s, no address, no address. " % path, runtime.log())


class EventLoops(Together):
    LOOP = """
        import asyncio, os, time
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(asyncio.sleep(0))
        """

    def test_of_the_import_wake_up_in_their_photon_only(self):
        """What runs in a thread ends by a byte to the loop's own socket pair."""
        runtime = self.start(self.LOOP + """
        def handler(event, context):
            open(event["fifo"]).read()
            async def work():
                for number in range(100):
                    assert number == await loop.run_in_executor(None, lambda: number)
                return "done"
            return loop.run_until_complete(asyncio.wait_for(work(), 30))
        """, concurrency=2)
        self.until_waiting(2)
        self.assertEqual(self.at_once([{}, {}]), ["done", "done"])
        self.assertNotIn("connections that the import opened", runtime.log())

    def test_tell_their_transports_that_the_connection_is_lost(self):
        peer = Peer(self)
        self.start(self.LOOP + """
        class Protocol(asyncio.Protocol):
            lost = loop.create_future()
            def connection_lost(self, error):
                self.lost.set_result("lost")
        loop.run_until_complete(loop.create_connection(Protocol, "127.0.0.1", int(os.environ["PEER"])))
        def handler(event, context):
            return loop.run_until_complete(asyncio.wait_for(Protocol.lost, 30))
        """, PEER=str(peer.port))
        self.assertEqual(self.call({}), "lost")

    def test_epoll_knows_the_photons_descriptors(self):
        """Not those of others that have the same number."""
        self.start("""
            import os, select
            pipe = os.pipe()
            epoll = select.epoll()
            epoll.register(pipe[0], select.EPOLLIN | select.EPOLLET)
            def handler(event, context):
                own = os.pipe()
                epoll.register(own[0], select.EPOLLIN)
                os.write(own[1], b"x")
                open(event["fifo"]).read()
                epoll.modify(pipe[0], select.EPOLLIN)
                return [epoll.poll(0) == [(own[0], select.EPOLLIN)], os.get_inheritable(epoll.fileno())]
            """, concurrency=2)
        self.until_waiting(2)
        self.assertEqual(self.at_once([{}, {}]), [[True, False]] * 2)


class Files(Together):
    def start_with_files(self):
        path = os.path.join(self.root, "data")
        with open(path, "w") as file:
            file.write("0123456789")
        self.start("""
            import fcntl, os
            path = os.environ["DATA"]
            read, both = os.open(path, os.O_RDONLY), os.open(path, os.O_RDWR | os.O_APPEND)
            write, locked = os.open(path + ".log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), os.open(path, os.O_RDONLY)
            os.write(write, b"import\\n")
            fcntl.flock(locked, fcntl.LOCK_EX)
            os.set_inheritable(both, True)
            os.lseek(read, 3, os.SEEK_SET)
            unlinked = os.open(path + ".gone", os.O_RDWR | os.O_CREAT)
            os.write(unlinked, b"gone")
            os.lseek(unlinked, 1, os.SEEK_SET)
            os.unlink(path + ".gone")
            def handler(event, context):
                if event.get("fifo"):
                    open(event["fifo"]).read()
                fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.write(write, b"photon\\n")
                return [os.read(read, 2).decode(), os.read(unlinked, 2).decode(), os.get_inheritable(read),
                        os.get_inheritable(both), bool(fcntl.fcntl(both, fcntl.F_GETFL) & os.O_APPEND),
                        os.lseek(locked, 1, os.SEEK_CUR)]
            """, concurrency=2, DATA=path)
        self.until_waiting(2)
        return path

    def test_have_a_place_of_each_photon(self):
        path = self.start_with_files()
        found = self.at_once([{}, {}])
        for one in found:
            self.assertEqual(one[:5], ["34", "on", False, True, True])
        self.assertEqual(sorted(one[5] for one in found), [1, 2])  # locked: not opened again
        with open(path + ".log") as file:
            self.assertEqual(file.read(), "import\nphoton\nphoton\n")


class Hooks(RuntimeCase):
    """Of snapshot_restore_py."""

    HEAD = """
        import os, signal, sys, threading, time
        from snapshot_restore_py import register_after_restore, register_before_snapshot
        log = []
        """

    def start(self, source, **more):
        return super().start(self.HEAD + source, files=[HOOKS], **more)

    def test_run_in_the_order_of_awslambdaric(self):
        for mode in BOTH:
            with self.subTest(mode):
                runtime = self.start("""
        def note(*words, mark=""):
            log.append([*words, mark, os.getpid()])
        register_before_snapshot(note, "before", "first", mark="!")
        register_before_snapshot(note, "before", "last")
        register_after_restore(note, "after", "first")
        register_after_restore(note, "after", "last", mark="!")
        log.append("import")
        def handler(event, context):
            return [log, os.getpid()]
        """, mode=mode)
                for _ in range(2):
                    found, pid = self.call({})
                    self.assertEqual(found, ["import", ["before", "last", "", runtime.pid], ["before", "first", "!", runtime.pid],
                                             ["after", "first", "", pid], ["after", "last", "!", pid]])
                runtime.stop()

    def test_what_they_leave_is_the_beginning(self):
        """Of all photons, and of one photon."""
        self.start("""
        @register_before_snapshot
        def before():
            os.environ["BEFORE"] = "1"
            os.chdir("/")
        @register_after_restore
        def after():
            os.environ["AFTER"] = str(os.getpid())
            os.umask(0o077)
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        def handler(event, context):
            found = [os.environ.get("BEFORE"), os.getcwd(), int(os.environ["AFTER"]), os.umask(0),
                     signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN, threading.active_count()]
            os.environ["BEFORE"] = os.environ["AFTER"] = "2"
            os.chdir("/usr")
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            return found
        """)
        found = [self.call({}) for _ in range(2)]
        self.assertEqual(found[0], ["1", "/", found[0][2], 0o077, True, 2])
        self.assertEqual(found[0], found[1])

    def test_a_connection_for_each_photon(self):
        peer = Peer(self)
        self.start("""
        import socket
        @register_before_snapshot
        @register_after_restore
        def connect():
            global connection
            connection = socket.create_connection(("127.0.0.1", int(os.environ["PEER"])))
            assert connection.recv(1) == b"+"
        def handler(event, context):
            connection.sendall(event.encode())
        """, PEER=str(peer.port))
        for word in ("one", "two"):
            self.call(word)
        self.until(lambda: peer.heard == [b"", b"onetwo"], "the photon has a connection of its own")

    def test_an_error_before_is_one_of_the_start(self):
        runtime = self.start("""
        @register_before_snapshot
        def fails():
            raise ValueError("no such model")
        def handler(event, context):
            pass
        """, wait=False)
        self.assertEqual(runtime.wait(), 1)
        (headers, error), = self.api.init_errors
        self.assertEqual(headers["lambda-runtime-function-error-type"], "Runtime.BeforeSnapshotError")
        self.assertEqual((error["errorType"], error["errorMessage"]), ("ValueError", "no such model"))
        self.assertIn("in fails", error["stackTrace"][0])
        self.assertIn("[ERROR] ValueError: no such model", runtime.log())

    def test_an_error_after_ends_the_photon_and_the_next_one_tries_again(self):
        for way, said in (("raise ValueError('no database')", "[ERROR] ValueError: no database"),
                          ("sys.exit(3)", "[ERROR] Runtime.ExitError: an after_restore hook ended the process: exit status 3")):
            with self.subTest(way):
                path = os.path.join(self.root, "tried-%d" % len(way))
                runtime = self.start("""
        @register_after_restore
        def fails_once():
            try:
                os.close(os.open(%r, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            %s
        def handler(event, context):
            return 1
        """ % (path, way))
                self.assertEqual(self.call({}), 1)
                self.assertIn(said, runtime.log())
                self.assertIn("a photon ended before it took an invocation: exit status 1; next try in 0.05 s", runtime.log())
                runtime.stop()

    def test_a_module_of_user_code_with_that_name_is_left_alone(self):
        super().start("import snapshot_restore_py\ndef handler(event, context):\n    return 1\n",
                      files=[("snapshot_restore_py.py", "")])
        self.assertEqual(self.call({}), 1)


if __name__ == "__main__":
    unittest.main()
