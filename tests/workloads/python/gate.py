"""Holds an invocation at the point where it has all the memory that it will have."""
import socket


def wait(event):
    """Connects to the event's `gate`, if any, and returns when the other side closes."""
    if "gate" not in event:
        return
    host, port = event["gate"].rsplit(":", 1)
    with socket.create_connection((host, int(port))) as gate:
        gate.sendall(b"1")
        while gate.recv(1):
            pass
