"""A real daemon in a place of its own, the real docker CLI, and a plain HTTP client.

The daemon is `python -m sampan.daemon` with root, state and configuration below one temporary
directory and its cgroups below `/sampan-test`. It says that it is ready as it would to systemd, so
nothing sleeps. `close` proves that it leaves in order and takes everything with it.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path

DOCKER = shutil.which("docker")
BUSYBOX = shutil.which("busybox")
APPLETS = (
    "sh echo cat true false sleep ls ps stty tty kill env id head dd yes pwd hostname wc seq "
    "ln mkdir rm mv touch find grep mkfifo chmod stat httpd wget nc ip ping"
).split()
PATIENCE = 60
SOURCES = str(Path(__file__).parents[1] / "src")


@dataclass
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self):
        return self.out.splitlines()


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.path)


class Daemon:
    """One daemon at a time over one root."""

    def __init__(self, base, **settings):
        self.base = base
        self.cgroup = f"/sampan-test/docker-api-{os.getpid()}-{time.monotonic_ns()}"
        self.socket = f"{base}/state/docker.sock"
        self.host = f"unix://{self.socket}"
        self.process = None
        table = {"cgroup_parent": self.cgroup, **settings}
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in table.items()]
        Path(f"{base}/config.toml").write_text("".join(lines))
        Path(f"{base}/config.toml").chmod(0o600)

    def command(self, *flags):
        """The argument vector of a daemon for this place."""
        return [
            sys.executable,
            "-m",
            "sampan.daemon",
            "--root",
            f"{self.base}/root",
            "--state",
            f"{self.base}/state",
            "--config",
            f"{self.base}/config.toml",
            *flags,
        ]

    def start(self, *flags):
        """Start, and return when it says that it is ready."""
        name = f"{self.base}/notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(name)
            manager.settimeout(PATIENCE)
            environ = {**os.environ, "PYTHONPATH": SOURCES, "NOTIFY_SOCKET": name}
            with open(f"{self.base}/daemon.log", "ab") as log:
                self.process = subprocess.Popen(
                    self.command(*flags), env=environ, stdin=subprocess.DEVNULL, stderr=log
                )
            try:
                self._await(manager)
            finally:
                os.unlink(name)

    def _await(self, manager):
        """Wait for READY, or for the end."""
        ended = os.pidfd_open(self.process.pid)
        try:
            ready, _, _ = select.select([manager, ended], [], [], PATIENCE)
            assert ready == [manager], self.log
            assert manager.recv(100) == b"READY=1"
        finally:
            os.close(ended)

    @property
    def log(self):
        """Everything that it logged."""
        return Path(f"{self.base}/daemon.log").read_text()

    def run(self, *flags):
        """Run one to its end; for those that are refused."""
        environ = {**os.environ, "PYTHONPATH": SOURCES}
        done = subprocess.run(
            self.command(*flags), env=environ, check=False, capture_output=True, timeout=PATIENCE
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def stop(self, number=signal.SIGTERM):
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def ask(self, method, path, body=None):
        """One request on a connection of its own: (status, decoded body)."""
        connection = UnixConnection(self.socket)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            return answer.status, _decoded(answer)
        finally:
            connection.close()

    def exchange(self, method, path, body=None, **headers):
        """One request of raw bytes: (status, headers, body)."""
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def docker(self, *words, stdin=b""):
        """The docker CLI against this daemon."""
        done = subprocess.run(
            [DOCKER, *words],
            env=self.environ,
            input=stdin,
            check=False,
            capture_output=True,
            timeout=PATIENCE,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    @property
    def environ(self):
        """The environment of a client."""
        return {"PATH": os.environ["PATH"], "HOME": self.base, "DOCKER_HOST": self.host}

    def close(self):
        """Remove the containers, stop, and see that nothing is left."""
        for container in self.ask("GET", "/containers/json?all=1")[1]:
            self.ask("DELETE", f"/containers/{container['Id']}?force=1")
        assert self.stop() == 0, self.log
        assert not os.path.exists(self.socket)
        assert "Traceback" not in self.log, self.log
        # runsc makes plain directories where the host has no hierarchy mounted.
        assert not glob(f"/sys/fs/cgroup/*{self.cgroup}/*/cgroup.procs"), "cgroups are left"
        with open("/proc/self/mountinfo") as mounts:
            assert self.base not in mounts.read(), "mounts are left"


def _decoded(answer):
    content = answer.read()
    if answer.headers.get("Content-Type") == "application/json" and content:
        return json.loads(content)
    return content


@contextmanager
def daemon(**settings):
    """A daemon with an image `bb:1` of busybox, removed with everything at the end."""
    base = tempfile.mkdtemp(prefix="sampan-", dir="/tmp")
    made = Daemon(base, **settings)
    try:
        make_root(f"{base}/rootfs")
        made.start()
        try:
            yield made
        finally:
            if made.process.poll() is None:
                made.close()
    finally:
        for path in glob(f"/sys/fs/cgroup/*{made.cgroup}/"):
            for left in glob(f"{path}*/"):  # those of runsc; a cgroup would have been told
                os.rmdir(left)
            os.rmdir(path)
        shutil.rmtree(base)


def make_root(path):
    """The smallest root file system that can do something."""
    for name in ("bin", "proc", "sys", "dev", "tmp", "etc"):
        os.makedirs(f"{path}/{name}")
    shutil.copy(BUSYBOX, f"{path}/bin/busybox")
    for name in APPLETS:
        os.symlink("busybox", f"{path}/bin/{name}")
    Path(f"{path}/etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    Path(f"{path}/etc/group").write_text("root:x:0:\n")
    Path(f"{path}/bin/refused").write_text("not a program")


def tar_of(path):
    """The root as a tar."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        tar.add(path, ".")
    return target.getvalue()
