"""The worker under test: images pushed, `blockd serve`, functions, invocations.

Functions are made through the AWS API with boto3, as anybody would; invocations go over kept
connections with requests that were signed before the clock starts, so that what is measured is
the worker and not a Python SDK.
"""
import asyncio
import json
import os
import socket
import subprocess
import time

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from .services import KEY, SECRET, Process, free_port, wait_for

REGION = "us-east-1"
TIMEOUT_SECONDS = 900


class Reply:
    """What came back of an invocation."""

    __slots__ = ("status", "headers", "body", "seconds")

    def __init__(self, status, headers, body, seconds):
        self.status, self.headers, self.body, self.seconds = status, headers, body, seconds

    @property
    def good(self):
        """Whether the handler answered."""
        return self.status == 200 and "x-amz-function-error" not in self.headers

    def json(self):
        """The payload."""
        return json.loads(self.body)

    @property
    def handler_ms(self):
        """What the handler says it took."""
        return self.json()["ms"]

    def __repr__(self):
        return f"{self.status} {self.headers.get('x-amz-function-error', '')} {self.body[:500]!r}"


class Wire:
    """HTTP/1.1 to one address over kept connections; each is used by one call at a time."""

    def __init__(self, connect):
        self.connect = connect
        self.idle = []

    async def call(self, request):
        """Sends the bytes of a request; the reply."""
        reader, writer = self._kept() or await self.connect()
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        body = await self._body(reader, headers)
        seconds = time.perf_counter() - started
        if headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self.idle.append((reader, writer))
        return Reply(int(lines[0].split(" ")[1]), headers, body, seconds)

    def _kept(self):
        """A connection that is open yet: the worker closes those that were idle for long."""
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    @staticmethod
    async def _body(reader, headers):
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return await reader.readexactly(int(headers.get("content-length", 0)))
        pieces = []
        while size := int((await reader.readline()).split(b";")[0], 16):
            pieces.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        return b"".join(pieces)

    def close(self):
        """Closes what is idle."""
        for _, writer in self.idle:
            writer.close()
        self.idle.clear()


class Worker:
    """A `blockd serve` with its store, in a temporary directory."""

    def __init__(self, directory, binaries, images, extra):
        self.directory = directory
        self.blockd = os.path.join(binaries, "blockd")
        self.flattener = os.path.join(binaries, "flattener")
        self.run_dir = os.path.join(directory, "run")
        self.env = {"LANTERN_STORE": f"file://{directory}/store", "LANTERN_KEYRING": f"{directory}/keyring.toml",
                    "LANTERN_STATE_DIR": f"{directory}/state", "LANTERN_RUN_DIR": self.run_dir}
        for name in ("python", "java"):
            self.command([self.flattener, "push", f"oci:{images}/{name}:latest", "--name", f"bench-{name}"])
        self.port = free_port()
        keys = os.path.join(directory, "keys.toml")
        with open(os.open(keys, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.write(f'[keys.{KEY}]\nsecret = "{SECRET}"\ntenant = "local"\n')
        self.process = Process("blockd", [
            self.blockd, "serve", "--functions-listen", f"127.0.0.1:{self.port}", "--access-keys", keys,
            "--java-runtime", self.java_runtime(), "--init-timeout", "300", *extra], directory, self.env)
        wait_for("blockd", lambda: self.process.check() and socket.create_connection(("127.0.0.1", self.port), 1).close() is None)
        self.api = boto3.client("lambda", endpoint_url=f"http://127.0.0.1:{self.port}", region_name=REGION,
                                aws_access_key_id=KEY, aws_secret_access_key=SECRET,
                                config=Config(retries={"max_attempts": 1}, read_timeout=TIMEOUT_SECONDS))
        self.wire = Wire(lambda: asyncio.open_connection("127.0.0.1", self.port))

    def java_runtime(self):
        """The jars of our Java runtime, built from this source tree."""
        build = os.path.join(os.path.dirname(__file__), "..", "..", "..", "blockd", "photon", "runtimes", "java", "build")
        target = os.path.join(self.directory, "java-runtime")
        self.command(["sh", os.path.realpath(build), target])
        return target

    def command(self, arguments):
        """Runs a command of ours; its output."""
        done = subprocess.run(arguments, env={**os.environ, **self.env}, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def create(self, name, image, handler, variables, memory_mib=2048):
        """Makes a function of one of the pushed images."""
        self.api.create_function(
            FunctionName=name, PackageType="Image", Role="arn:aws:iam::000000000000:role/bench",
            Code={"ImageUri": f"bench-{image}"}, ImageConfig={"Command": [handler]}, Timeout=TIMEOUT_SECONDS,
            MemorySize=memory_mib, Environment={"Variables": variables})
        wait_for(name, lambda: self.api.get_function(FunctionName=name)["Configuration"]["State"] == "Active")

    def delete(self, name):
        """Removes a function and waits until its processes are gone."""
        pids = self.pids(name)
        self.api.delete_function(FunctionName=name)
        wait_for(f"the end of {name}", lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 120)

    def stats(self, name):
        """What `blockd function stats` says of a function."""
        return json.loads(self.command([self.blockd, "function", "stats", name, "--json"]))["function"]

    def sandboxes(self, name):
        """Its sandboxes: `pids` as this host numbers them, `memory_bytes` of the control group, …"""
        return self.stats(name)["each"]

    def pids(self, name):
        """All processes of a function, as seen from this host."""
        return [pid for sandbox in self.sandboxes(name) for pid in sandbox["pids"]]

    def request(self, name, event, **headers):
        """A signed request to invoke a function, as bytes."""
        body = json.dumps(event).encode()
        url = f"http://127.0.0.1:{self.port}/2015-03-31/functions/{name}/invocations"
        request = AWSRequest("POST", url, data=body, headers={"Content-Type": "application/json", **headers})
        SigV4Auth(Credentials(KEY, SECRET), "lambda", REGION).add_auth(request)
        lines = [f"POST /2015-03-31/functions/{name}/invocations HTTP/1.1", f"Host: 127.0.0.1:{self.port}",
                 f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in request.headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def invoke(self, name, event):
        """One invocation, tried again while the worker says that it starts enough sandboxes already."""
        wait = 0.2
        while True:
            reply = await self.wire.call(self.request(name, event))
            if reply.status != 429:
                return reply
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, 2)

    def stop(self):
        """Ends the daemon and removes what it left."""
        self.process.stop()
        subprocess.run([self.blockd, "cleanup"], env={**os.environ, **self.env}, stdout=subprocess.DEVNULL, check=False)
