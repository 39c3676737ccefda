"""Holds an invocation at the point where it has all the memory that it will have."""
import socket


def wait(event):
    """Connects to the event's `gate`, if any, and returns when the other side closes."""
    if "gate" not in event:
        return
    host, port = event["gate"].rsplit(":", 1)
    # no lookup of names: that would import `encodings.idna`, a megabyte of what is not measured
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as gate:
        gate.connect((host, int(port)))
        gate.sendall(b"1")
        while gate.recv(1):
            pass
