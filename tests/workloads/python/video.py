"""Transforms ten seconds of video with ffmpeg, below /tmp."""
import os
import signal
import subprocess
import tempfile
import time

import gate
from s3 import client

HALF_US = 5_000_000


def handler(event, _context):
    """`bucket` and `key` of the input; without them, the one in the image."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        source, target = os.path.join(directory, "in.mp4"), os.path.join(directory, "out.mp4")
        if "bucket" in event:
            client.download_file(event["bucket"], event["key"], source)
        else:
            source = "/var/task/chunk.mp4"
        transform(source, target, event)
        size = os.path.getsize(target)
    return {"bytes": size, "ms": (time.monotonic() - started) * 1e3}


def transform(source, target, event):
    """1280x720 to 640x480; one thread each for decoding and encoding."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-progress", "pipe:1", "-stats_period", "0.1",
               "-threads", "1", "-filter_threads", "1", "-i", source, "-vf", "scale=640:480",
               "-c:v", "libx264", "-preset", "veryfast", "-threads", "1", target]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    held = "gate" not in event
    for line in process.stdout:
        name, _, value = line.strip().partition("=")
        if not held and name == "out_time_us" and value.isdigit() and int(value) >= HALF_US:
            process.send_signal(signal.SIGSTOP)
            gate.wait(event)
            held = True
            # what it held has been seen; the rest would only take time
            process.kill()
    if not held:
        raise RuntimeError("ffmpeg was done before it could be held")
    if process.wait() != 0 and "gate" not in event:
        raise RuntimeError(f"ffmpeg ended with {process.returncode}")
