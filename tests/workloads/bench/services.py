"""What the workloads talk to: PostgreSQL, an S3 server, and the gate that holds invocations.

Everything runs from a temporary directory and ends with the bench.
"""
import asyncio
import glob
import os
import socket
import subprocess
import time
import urllib.request

import boto3
from botocore.config import Config

BUCKET = "workloads"
OBJECT_BYTES = 2 * 1024 * 1024
ROWS = 10_000
KEY, SECRET = "BENCHPHOTONS", "no-secret-of-anybody"


def free_port():
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, probe, seconds=60):
    """Until `probe` returns something true; errors count as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = probe()
            if answer:
                return answer
            last = "not ready"
        except Exception as error:  # whatever it is, it is not ready
            last = error
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come up in {seconds} s: {last}")
        time.sleep(0.1)


class Process:
    """A child with its output in a file, ended by `stop`."""

    def __init__(self, name, command, directory, env=None):
        self.name = name
        self.log = os.path.join(directory, f"{name}.log")
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                          env=None if env is None else {**os.environ, **env})

    def check(self):
        """Raises if it has ended."""
        if self.child.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                tail = log.read()[-2000:]
            raise RuntimeError(f"{self.name} ended with {self.child.returncode}: {tail}")
        return True

    def stop(self):
        """SIGTERM, then SIGKILL."""
        self.child.terminate()
        try:
            self.child.wait(60)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Postgres:
    """A database cluster of its own with one table, `users`."""

    def __init__(self, directory):
        binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        data = os.path.join(directory, "postgres")
        os.mkdir(data, 0o700)
        user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
        subprocess.run(["chown", "postgres:postgres", data], check=True)
        # the directories above are private to root; PostgreSQL runs as another user
        os.chmod(directory, 0o711)
        subprocess.run([*user, f"{binaries}/initdb", "-D", data, "--auth=trust", "-U", "bench", "--no-sync"],
                       check=True, stdout=subprocess.DEVNULL, cwd="/")
        with open(os.path.join(data, "pg_hba.conf"), "a", encoding="utf-8") as rules:
            rules.write("host all all samenet trust\n")
        self.port = free_port()
        self.process = Process("postgresql", [
            *user, f"{binaries}/postgres", "-D", data, "-p", str(self.port), "-c", "listen_addresses=*",
            "-c", f"unix_socket_directories={data}", "-c", "max_connections=300", "-c", "fsync=off"], directory)
        psql = [f"{binaries}/psql", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "bench", "-d", "postgres"]
        wait_for("postgresql", lambda: self.process.check() and subprocess.run(
            [*psql, "-c", "select 1"], capture_output=True, check=False).returncode == 0)
        subprocess.run([*psql, "-c", f"""
            CREATE TABLE users AS SELECT n AS id, 'user ' || n AS name, n || '@example.com' AS mail
            FROM generate_series(1, {ROWS}) AS n; ALTER TABLE users ADD PRIMARY KEY (id); ANALYZE users;"""], check=True)

    def stop(self):
        """Ends it."""
        self.process.stop()


class ObjectStore:
    """moto's S3 with the object to hash and the video to transform."""

    def __init__(self, directory, moto_server, chunk):
        self.port = free_port()
        self.process = Process("s3", [moto_server, "-H", "0.0.0.0", "-p", str(self.port)], directory)
        wait_for("the S3 server", lambda: self.process.check() and urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/moto-api/", timeout=5).status == 200)
        client = self.client("127.0.0.1")
        client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key="object", Body=os.urandom(OBJECT_BYTES))
        with open(chunk, "rb") as body:
            client.put_object(Bucket=BUCKET, Key="chunk.mp4", Body=body.read())

    def client(self, host):
        """A client as if from `host`: presigned addresses name the host."""
        return boto3.client("s3", endpoint_url=f"http://{host}:{self.port}", aws_access_key_id=KEY,
                            aws_secret_access_key=SECRET, region_name="us-east-1",
                            config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"))

    def presigned(self, host, key):
        """An address of an object that needs no credentials."""
        return self.client(host).generate_presigned_url(
            "get_object", Params={"Bucket": BUCKET, "Key": key}, ExpiresIn=12 * 3600)

    def stop(self):
        """Ends it."""
        self.process.stop()


class Gate:
    """Where invocations arrive when they hold all that they will hold; see the workloads' README."""

    def __init__(self):
        self.port = None
        self.server = None
        self.waiting = set()
        self.changed = asyncio.Event()

    async def start(self):
        """Listens."""
        self.server = await asyncio.start_server(self._arrived, "0.0.0.0", 0, backlog=512)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _arrived(self, _reader, writer):
        self.waiting.add(writer)
        self.changed.set()

    async def full(self, count, calls, seconds):
        """Until `count` invocations wait here. Fails as soon as one of the `calls` has ended."""
        deadline = time.monotonic() + seconds
        while len(self.waiting) < count:
            self.changed.clear()
            ended = [call for call in calls if call.done()]
            if ended:
                raise RuntimeError(f"an invocation ended before the gate: {ended[0].result()}")
            left = deadline - time.monotonic()
            if left <= 0:
                raise RuntimeError(f"{len(self.waiting)} of {count} invocations at the gate after {seconds} s")
            try:
                await asyncio.wait_for(self.changed.wait(), min(left, 1))
            except asyncio.TimeoutError:
                continue

    def release(self):
        """Lets all go on."""
        for writer in self.waiting:
            writer.close()
        self.waiting.clear()
