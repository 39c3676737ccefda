"""`lantern_store` against the reference store, alone and from many photons."""

import os
import sys
import threading
import unittest

from harness import HERE, RuntimeCase
from mock.api import MockApi

sys.path.append(os.path.dirname(HERE))
import lantern_store as store  # noqa: E402  (the folder has to be on the path first)


class Client(unittest.TestCase):
    def setUp(self):
        self.api = MockApi()
        self.addCleanup(self.api.close)
        os.environ["AWS_LAMBDA_RUNTIME_API"] = "%s:%d" % self.api.address
        store._local.__dict__.clear()

    def test_get_put_delete(self):
        for key in ("k", "a/b?c=d#e", "é ü", ".", "..", "%2F", "x" * 1024):
            self.assertIsNone(store.get(key))
            self.assertEqual(store.get(key, b"d"), b"d")
            version = store.put(key, key.encode())
            self.assertEqual(store.get_versioned(key), (key.encode(), version))
            self.assertTrue(store.delete(key))
            self.assertFalse(store.delete(key))
        self.assertEqual(store.metrics()["keys"], 0)

    def test_empty_and_large_values(self):
        for value in (b"", os.urandom(3 << 20)):
            store.put("k", value)
            self.assertEqual(store.get("k"), value)
        self.assertRaises(store.TooLarge, store.put, "k", bytes((64 << 20) + 1))

    def test_what_is_no_key_or_value(self):
        self.assertRaises(ValueError, store.get, "")
        self.assertRaises(ValueError, store.get, "é" * 513)
        self.assertRaises(TypeError, store.put, "k", "text")

    def test_compare_and_swap(self):
        one = store.compare_and_swap("k", b"1", None)
        self.assertIsNone(store.compare_and_swap("k", b"x", None))
        two = store.compare_and_swap("k", b"2", one)
        self.assertIsNone(store.compare_and_swap("k", b"x", one))
        self.assertEqual(store.get_versioned("k"), (b"2", two))
        self.assertFalse(store.delete("k", one))
        self.assertTrue(store.delete("k", two))

    def test_time_to_live(self):
        store.put("k", b"1", ttl_seconds=0.001)
        self.api.wait_until(lambda _: store.get("k") is None, "expired")

    def test_get_or_init_runs_once(self):
        calls, results = [], []

        def load():
            calls.append(1)
            return b"value"

        threads = [threading.Thread(target=lambda: results.append(store.get_or_init("k", load))) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((calls, results), ([1], [b"value"] * 30))

    def test_get_or_init_that_fails_asks_the_next(self):
        self.assertRaises(ZeroDivisionError, store.get_or_init, "k", lambda: 1 / 0)
        self.assertEqual(store.get_or_init("k", lambda: b"second"), b"second")

    def test_get_or_init_waits_no_longer_than_said(self):
        inside, leave = threading.Event(), threading.Event()
        holder = threading.Thread(target=lambda: store.get_or_init("k", lambda: (inside.set(), leave.wait(), b"v")[2]))
        holder.start()
        inside.wait()
        self.assertRaises(store.Timeout, store.get_or_init, "k", lambda: b"mine", wait_seconds=0.01)
        leave.set()
        holder.join()
        self.assertEqual(store.get("k"), b"v")

    def test_get_or_init_after_its_lease(self):
        def slow():
            self.assertEqual(store.get_or_init("k", lambda: b"other"), b"other")
            return b"late"

        self.assertRaises(store.LeaseLost, store.get_or_init, "k", slow, lease_seconds=0.01)
        self.assertEqual(store.get("k"), b"other")

    def test_leases_exclude(self):
        with store.lease("l"):
            self.assertRaises(store.Timeout, store.lease("l", wait_seconds=0).__enter__)
        with store.lease("l", wait_seconds=0):
            pass
        with self.assertRaises(store.LeaseLost), store.lease("l", ttl_seconds=0.001):
            with store.lease("l"):  # waits until the outer one has expired
                pass
        with self.assertRaises(KeyError), store.lease("l"):
            raise KeyError

    def test_a_write_whose_answer_is_lost_is_not_repeated(self):
        """The connection breaks behind the commit: nobody may be told "it was not done"."""
        version = store.put("k", b"1")
        for call in (lambda: store.compare_and_swap("k", b"2", version), lambda: store.add("new", b"1"), lambda: store.put("p", b"1"),
                     lambda: store.delete("k"), lambda: store.lease("l").__enter__(), lambda: store.get_or_init("i", lambda: b"1")):
            self.api.lose_answers = 1
            self.assertRaises(store.StoreError, call)
            self.assertEqual(self.api.lose_answers, 0)
        self.assertEqual(store.get("new"), b"1")
        self.api.lose_answers = 1
        self.assertEqual(store.get("new"), b"1")

    def test_no_server(self):
        os.environ["AWS_LAMBDA_RUNTIME_API"] = "127.0.0.1:1"
        self.assertRaises(store.StoreError, store.get, "k")


class FromPhotons(RuntimeCase):
    def test_one_initialisation_for_all_photons(self):
        self.start("""
            import lantern_store, os
            def handler(event, context):
                value = lantern_store.get_or_init("model", lambda: str(os.getpid()).encode())
                with lantern_store.lease("count"):
                    lantern_store.put("n", b"%d" % (int(lantern_store.get("n", b"0")) + 1))
                return value.decode()
            """, concurrency=16)
        values = {i.result().json() for i in [self.api.invoke({}) for _ in range(60)]}
        self.assertEqual(len(values), 1)
        self.assertEqual(self.api.store.metrics["inits"], 1)
        self.assertEqual(self.api.store._entries["n"].value, b"60")


if __name__ == "__main__":
    unittest.main()
