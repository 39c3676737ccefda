"""The log port: a connection says a request id, then carries that request's bytes."""

import socket
import threading


class LogPort:
    """Collects logs. `bytes_of` and `wait_closed` are for the tests."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = self._listener.getsockname()
        self._changed = threading.Condition()
        self._logs = {}  # request id -> bytearray
        self._open = {}  # request id -> connections that are open
        self.refused = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        """Stops listening."""
        self._listener.close()

    def bytes_of(self, request_id):
        """What has arrived for a request so far."""
        with self._changed:
            return bytes(self._logs.get(request_id, b""))

    def wait_closed(self, request_id, seconds):
        """Waits until the request's connection came and went; False if it did not."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open.get(request_id) == 0, seconds)

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(sock,), daemon=True).start()

    def _read(self, sock):
        with sock, sock.makefile("rb", buffering=0) as file:
            request_id = file.readline().decode().strip()
            if not request_id:
                return
            with self._changed:
                self._logs.setdefault(request_id, bytearray())
                self._open[request_id] = self._open.get(request_id, 0) + 1
            while True:
                try:
                    data = sock.recv(65536)
                except OSError:
                    data = b""
                with self._changed:
                    if data:
                        self._logs[request_id] += data
                    else:
                        self._open[request_id] -= 1
                        self._changed.notify_all()
                        return
