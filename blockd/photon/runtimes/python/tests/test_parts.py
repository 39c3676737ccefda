"""Parts of the runtime without a zygote: HTTP, JSON, scratch directories, slots."""

import mmap
import os
import select
import socket
import sys
import tempfile
import threading
import types
import unittest
from unittest import mock

from harness import HERE

sys.path.append(os.path.dirname(HERE))
from lantern_runtime import config, http, inherited, isolation, payload, post, scratch, slots  # noqa: E402


class Peer:
    """A server that sends given bytes, in given pieces, after each request, and then
    closes; with `breaks` it reads another request before it does."""

    def __init__(self, case, *pieces, breaks=False):
        self.breaks, self.requests = breaks, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        case.addCleanup(self._listener.close)
        self.connection = http.Connection(self._listener.getsockname())
        case.addCleanup(self.connection.close)
        threading.Thread(target=self._serve, args=(pieces,), daemon=True).start()

    def _serve(self, pieces):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                self.requests += len(sock.recv(65536)) > 0
                for piece in pieces:
                    try:
                        sock.sendall(piece)
                    except OSError:
                        break
                if self.breaks:
                    self.requests += len(sock.recv(65536)) > 0


class Http(unittest.TestCase):
    ANSWERS = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 202\r\ncontent-length:0\r\n\r\n", 202, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3;e=1\r\n yo\r\n0\r\nTrailer: 1\r\n\r\n", 200, b"hi yo"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"z" * 100000, 200, b"z" * 100000),
    ]

    def test_answers_whole_and_byte_by_byte(self):
        for data, status, body in self.ANSWERS:
            small = [data[i:i + 1] for i in range(len(data))] if len(data) < 1000 else [data[:50], data[50:]]
            for pieces in ([data], small):
                answer = Peer(self, *pieces).connection.call("GET", "/")
                self.assertEqual((answer.status, answer.body), (status, body))

    def test_every_truncation_is_an_error(self):
        for data, _, _ in self.ANSWERS[:1] + self.ANSWERS[4:5]:
            for length in range(len(data)):
                with self.assertRaises(OSError):
                    Peer(self, data[:length]).connection.call("GET", "/")

    def test_nonsense_is_a_protocol_error(self):
        for data in (b"nonsense\r\n\r\n", b"HTTP/2 200 OK\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nnocolon\r\n\r\n",
                     b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n",
                     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
                     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffff\r\n", b"x" * 200000, b"HTTP/1.1 200 OK\r\na: " + b"y" * 200000):
            connection = Peer(self, data).connection
            with self.assertRaises(http.ProtocolError, msg=data[:60]):
                connection.call("GET", "/")
            self.assertIsNone(connection.sock)

    def test_a_closed_keep_alive_connection_is_opened_again(self):
        connection = Peer(self, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").connection
        for _ in range(3):  # the peer closes after every answer, without saying so
            self.assertEqual(connection.call("GET", "/").body, b"x")

    def test_what_must_not_be_sent_twice_is_not(self):
        """An idle connection that was closed is seen before; a break afterwards is an error."""
        peer = Peer(self, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        for _ in range(3):
            self.assertEqual(peer.connection.call("POST", "/", again=False).body, b"x")
            select.select([peer.connection.sock], [], [])  # the peer has closed
        peer = Peer(self, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", breaks=True)
        peer.connection.call("POST", "/")
        with self.assertRaises(OSError):
            peer.connection.call("POST", "/", again=False)
        self.assertEqual(peer.requests, 2)

    def test_a_stream_does_not_begin_on_a_closed_connection(self):
        connection = Peer(self, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").connection
        connection.call("GET", "/")
        select.select([connection.sock], [], [])
        connection.refresh()
        self.assertIsNone(connection.sock)

    def test_a_refusal_is_read_though_the_request_cannot_be_sent_to_its_end(self):
        """A server that has heard enough answers and closes: what it said is the answer."""
        refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!"
        for again in (False, True):
            peer = Peer(self, refusal)
            answer = peer.connection.call("PUT", "/", body=bytes(64 << 20), again=again)
            self.assertEqual((answer.status, answer.body, peer.requests), (413, b"no!", 1))
            self.assertIsNone(peer.connection.sock)
        streamed = Peer(self, refusal).connection
        streamed.begin_chunks("POST", "/", ())
        for _ in range(64):
            streamed.send_chunk(bytes(1 << 20))
        streamed.end_chunks()
        self.assertEqual(streamed.receive().status, 413)
        silent = Peer(self).connection
        with self.assertRaises(OSError):
            silent.call("PUT", "/", body=bytes(64 << 20), again=False)

    def test_a_stream_that_is_refused_ends(self):
        """Its generator may never end by itself."""
        connection = Peer(self, b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n").connection
        photon = types.SimpleNamespace(connection=connection, stop_if_copy=lambda _: None, settle=lambda: None, last=False,
                                       unanswered=False)
        pieces = iter(lambda: bytes(65536), None)
        post.Post(photon, "id").stream(pieces, "text/plain")
        self.assertTrue(photon.last)
        self.assertFalse(photon.unanswered)
        self.assertIsNone(connection.sock)

    def test_a_connection_that_the_server_ends_is_closed(self):
        connection = Peer(self, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").connection
        connection.call("GET", "/")
        self.assertIsNone(connection.sock)


class Json(unittest.TestCase):
    def test_decimal_marks_cannot_be_forged(self):
        from decimal import Decimal
        encoder = payload.Encoder({})
        with mock.patch("os.urandom", return_value=b"\0" * 16):
            body, _ = encoder.response({"a": Decimal("1"), "b": "0" * 32, "c": '"x'})
        self.assertEqual(body, b'{"a": 1, "b": "%s", "c": "\\"x"}' % (b"0" * 32))

    def test_decimals_in_keys_are_refused(self):
        from decimal import Decimal
        self.assertRaises(payload.Fault, payload.Encoder({}).response, {Decimal(1): 1})

    def test_content_types(self):
        for kind, event in (("application/json", 1), (None, 1), ("application/json; charset=utf-8", 1), ("text/plain", b"1")):
            self.assertEqual(payload.decode_event(b"1", kind), event)


class Directories(unittest.TestCase):
    def setUp(self):
        self.top = tempfile.mkdtemp()
        self.addCleanup(scratch.remove_tree, self.top)

    def test_removes_any_tree(self):
        victim, outside = self.top + "/victim", self.top + "/outside"
        os.makedirs(victim + "/a/b/c")
        open(outside, "w").close()
        for name in ("a/file", "a/b/c/file", "file"):
            open(os.path.join(victim, name), "w").close()
        os.symlink(outside, victim + "/a/link")
        os.symlink(self.top, victim + "/a/directory-link")
        os.mkfifo(victim + "/a/fifo")
        os.chmod(victim + "/a/b", 0)
        scratch.remove_tree(victim)
        self.assertEqual(os.listdir(self.top), ["outside"])

    def test_what_is_left_in_a_slot_is_removed(self):
        world = scratch.Scratch()
        world.root, world.carried, world.by_descriptor = self.top, [], False
        os.makedirs(self.top + "/7/1/left")
        with mock.patch.dict(os.environ):
            scratch.PhotonScratch(world, 7).renew()
        self.assertEqual(os.listdir(self.top + "/7/1"), [])

    def test_removes_trees_deeper_than_a_path_may_be_long(self):
        victim, here = self.top + "/victim", os.getcwd()
        os.mkdir(victim)
        os.chdir(victim)
        try:
            for _ in range(1000):
                os.mkdir("d" * 50)
                os.chdir("d" * 50)
        finally:
            os.chdir(here)
        scratch.remove_tree(victim)
        self.assertEqual(os.listdir(self.top), [])

    def test_what_is_not_there(self):
        scratch.remove_tree(self.top + "/nothing")

    def test_a_link_is_removed_not_followed(self):
        os.mkdir(self.top + "/kept")
        os.symlink(self.top + "/kept", self.top + "/link")
        scratch.remove_tree(self.top + "/link")
        self.assertEqual(os.listdir(self.top), ["kept"])


class Shared(unittest.TestCase):
    def test_states_and_peak(self):
        table = slots.Slots(70)
        for slot in range(70):
            self.assertEqual(table.state(slot), slots.FREE)
        table.prepare(69)
        table.set_state(69, slots.BUSY)
        self.assertEqual(table.census().count(slots.BUSY), 1)
        table.note_peak(70)
        table.note_peak(3)
        self.assertEqual(table.peak(), 70)
        self.assertFalse(table.draining())
        table.drain()
        self.assertTrue(table.draining())
        self.assertEqual(table.state(0), slots.FREE)

    def test_requests_of_any_length(self):
        table = slots.Slots(1)
        table.prepare(0)
        for text in ("", "id", "é" * 10, "x" * 10000):
            table.set_request(0, text)
            self.assertEqual(table.request(0), text[:slots.MOST_ID_BYTES])

    @unittest.skipUnless(hasattr(mmap, "MADV_DONTFORK"), "needs MADV_DONTFORK")
    def test_a_page_is_not_inherited_once_concealed(self):
        table = slots.Slots(2)
        table.prepare(0)
        table.conceal(0)
        table.prepare(1)
        pid = os.fork()
        if pid == 0:
            table.set_request(1, "mine")
            table.request(0)  # not there: SIGSEGV
            os._exit(0)
        self.assertTrue(os.WIFSIGNALED(os.waitpid(pid, 0)[1]))
        self.assertEqual(table.request(1), "mine")


class Settings(unittest.TestCase):
    GOOD = {"AWS_LAMBDA_RUNTIME_API": "h:1"}

    def test_good(self):
        read = config.read(dict(self.GOOD, AWS_LAMBDA_MAX_CONCURRENCY="64", LANTERN_PYTHON_FORK="invocation"))
        self.assertEqual((read.api, read.most_photons, read.per_invocation), (("h", 1), 64, True))
        self.assertEqual(config.read(dict(self.GOOD, AWS_LAMBDA_MAX_CONCURRENCY="99999999")).most_photons, config.MOST_PHOTONS)

    def test_bad(self):
        for name, values in (("AWS_LAMBDA_RUNTIME_API", ("", "h", ":1", "h:", "h:x", "h:0", "h:70000")),
                             ("AWS_LAMBDA_MAX_CONCURRENCY", ("", "0", "-1", "x")), ("LANTERN_PYTHON_FORK", ("", "x"))):
            for value in values:
                with self.assertRaises(config.ConfigError, msg=(name, value)) as caught:
                    config.read(dict(self.GOOD, **{name: value}))
                self.assertIn(name, str(caught.exception))


class Children(unittest.TestCase):
    def test_there_is_an_end_to_killing_them(self):
        """Also when every round reaps some."""
        rounds = iter(range(1000000))
        with mock.patch.multiple(isolation, CHILDREN_SECONDS=0.01, has_children=lambda: True, _reap_some=lambda: next(rounds) >= 0):
            self.assertFalse(isolation.end_children(os.getpgrp()))


class Seeds(unittest.TestCase):
    def test_numpy_is_seeded_if_there(self):
        fake = mock.Mock()
        with mock.patch.dict(sys.modules, {"numpy.random": fake}):
            isolation.reseed()
        fake.seed.assert_called_once_with()


class Inherited(unittest.TestCase):
    def test_how_peers_are_told(self):
        for peer, text in ((("10.0.0.1", 5432), "10.0.0.1:5432"), (("::1", 80, 0, 0), "[::1]:80"), ((2, 5000), "2:5000"),
                           ("/run/socket", "/run/socket"), (b"\0name", "@name"), ("", "no address"), (None, "no address")):
            self.assertEqual(inherited._shown(peer), text)


if __name__ == "__main__":
    unittest.main()
