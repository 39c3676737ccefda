"""How long a hundred sandboxes take, all at once: of a small image, with nothing made ahead, with
their shells, or prepared up to the first instruction; with an interface on the bridge and without.

Each measurement has a worker of its own, in which one sandbox of the function serves already: the
image is read, the filter of system calls compiled, and what is made ahead is there.
"""
import glob
import hashlib
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time

from .services import Process, wait_for

AT_ONCE = 100
ROUNDS = 3
# so long that the last one starts before the first one is free again
HOLD_SECONDS = 8
# of the bridged ones' median, with nothing made ahead over prepared
TARGET = 2.4
MEMORY = "/dev/shm"
WAYS = ["nothing", "shells", "prepared"]
RUNTIME = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "blockd", "photon", "src", "dispatch", "tests", "runtime.sh")
APPLETS = ["sh", "cat", "echo", "wget", "sed", "seq", "sleep", "true"]


def image(directory):
    """An OCI layout of busybox, as a runtime client that takes every event for a script."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as layer:
        def add(name, data=None, link=None):
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            if data is None:
                entry.type, entry.linkname = (tarfile.SYMTYPE, link) if link else (tarfile.DIRTYPE, "")
            else:
                entry.size = len(data)
            layer.addfile(entry, None if data is None else io.BytesIO(data))
        add("bin")
        with open("/bin/busybox", "rb") as busybox:
            add("bin/busybox", busybox.read())
        with open(RUNTIME, "rb") as runtime:
            add("runtime.sh", runtime.read())
        for applet in APPLETS:
            add(f"bin/{applet}", link="busybox")
    blobs = os.path.join(directory, "blobs", "sha256")
    os.makedirs(blobs)

    def blob(kind, data):
        digest = hashlib.sha256(data).hexdigest()
        with open(os.path.join(blobs, digest), "wb") as file:
            file.write(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    layer = blob("layer.v1.tar", packed.getvalue())
    architecture = {"aarch64": "arm64"}.get(platform.machine(), "amd64")
    config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
              "config": {"Entrypoint": ["/bin/sh", "/runtime.sh"], "Env": ["PATH=/bin"]}}
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": blob("config.v1+json", json.dumps(config).encode()), "layers": [layer]}
    manifest = {**blob("manifest.v1+json", json.dumps(manifest).encode()), "annotations": {"org.opencontainers.image.ref.name": "latest"}}
    for name, content in (("oci-layout", {"imageLayoutVersion": "1.0.0"}), ("index.json", {"schemaVersion": 2, "manifests": [manifest]})):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            json.dump(content, file)


class Site:
    """A store with the image, and workers one after the other."""

    def __init__(self, directory, binaries):
        self.directory, self.binaries = directory, binaries
        # places of sandboxes in memory, as /run is elsewhere: no disk is measured
        self.run_dir = tempfile.mkdtemp(prefix="bench-photons-", dir=MEMORY)
        os.chmod(self.run_dir, 0o755)
        self.env = {"LANTERN_STORE": f"file://{directory}/store", "LANTERN_KEYRING": f"{directory}/keyring.toml",
                    "LANTERN_STATE_DIR": f"{directory}/state", "LANTERN_RUN_DIR": self.run_dir}
        image(os.path.join(directory, "image"))
        self.command("flattener", "push", f"oci:{directory}/image:latest", "--name", "busybox")

    def command(self, program, *arguments):
        """Runs a command of ours; its output."""
        done = subprocess.run([os.path.join(self.binaries, program), *arguments], env={**os.environ, **self.env},
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{program} {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def sandboxes(self):
        """Places of sandboxes, of shells and of what is prepared."""
        return len(glob.glob(os.path.join(self.run_dir, "worker-*", "sandboxes", "*")))

    def stats(self):
        """Of the one function."""
        return json.loads(self.command("blockd", "function", "stats", "burst", "--json"))["function"]

    def measure(self, network, way):
        """One burst in a worker of its own."""
        shutil.rmtree(os.path.join(self.directory, "state"), ignore_errors=True)
        shells, prepared = (AT_ONCE if way == one else 0 for one in ("shells", "prepared"))
        plain, bridged = (0, shells) if network == "bridge" else (shells, 0)
        worker = Process("blockd", [os.path.join(self.binaries, "blockd"), "serve", "--max-starts", str(AT_ONCE), "--max-sandboxes", "300",
                                    "--init-timeout", "120", "--pool", str(plain), "--pool-bridged", str(bridged), "--prepared", str(prepared)],
                         self.directory, self.env)
        try:
            wait_for("blockd", lambda: worker.check() and self.command("blockd", "function", "list") is not None)
            self.command("blockd", "function", "create", "burst", "busybox", "--timeout", "120", "--network", network)
            self.command("blockd", "function", "invoke", "burst", '"true"')
            wait_for("what is made ahead", lambda: self.sandboxes() > shells + prepared and self.stats()["prepared"] == prepared, 120)
            time.sleep(1)
            before = {one["id"] for one in self.stats()["each"]}
            done = json.loads(self.command("blockd", "function", "bench", "burst", f'"sleep {HOLD_SECONDS}"', "--at-once", str(AT_ONCE + 1), "--json"))
            stats = self.stats()
        finally:
            worker.stop()
            subprocess.run([os.path.join(self.binaries, "blockd"), "cleanup"], env={**os.environ, **self.env}, stdout=subprocess.DEVNULL, check=False)
        starts = sorted(one["start_ms"] for one in stats["each"] if one["id"] not in before)
        if done["failed"] or done["refused"] or len(starts) != AT_ONCE:
            raise RuntimeError(f"{len(starts)} sandboxes of {AT_ONCE}, {done['failed']} failed, {done['refused']} refused")
        return {"p50_ms": statistics.median(starts), "max_ms": starts[-1]}

    def remove(self):
        """What is still mounted below is not to be emptied."""
        subprocess.run(["rm", "-rf", "--one-file-system", self.run_dir, self.directory], check=False)


def measure(binaries, rounds, say):
    """All ways, taking turns; a dict for the report."""
    site = Site(tempfile.mkdtemp(prefix="bench-photons-"), binaries)
    rows = [{"network": network, "ahead": way, "runs": []} for network in ("none", "bridge") for way in WAYS]
    try:
        for turn in range(rounds):
            for row in rows if turn % 2 == 0 else reversed(rows):
                seen = site.measure(row["network"], row["ahead"])
                row["runs"].append(seen)
                say(f"{AT_ONCE} sandboxes, network {row['network']}, made ahead: {row['ahead']}: "
                    f"p50 {seen['p50_ms']:.0f} ms, most {seen['max_ms']:.0f} ms")
    finally:
        site.remove()
    for row in rows:
        for figure in ("p50_ms", "max_ms"):
            row[figure] = statistics.median(one[figure] for one in row["runs"])
    for row in rows:
        nothing = next(one for one in rows if (one["network"], one["ahead"]) == (row["network"], "nothing"))
        row["gain"] = nothing["p50_ms"] / row["p50_ms"]
    asked = next(row for row in rows if (row["network"], row["ahead"]) == ("bridge", "prepared"))
    return {"at_once": AT_ONCE, "rounds": rounds, "rows": rows, "gain": asked["gain"], "target": TARGET, "pass": asked["gain"] >= TARGET}
