"""A daemon with networks, docker's CLI against it, and the small clients of tests of networks."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from contextlib import contextmanager

import dockerlab

SERVE = ["busybox", "httpd", "-f", "-p", "80", "-h", "/etc"]


@contextmanager
def daemon(**settings):
    """A daemon with the image `bb:1`; with it goes everything that was made for networks."""
    with dockerlab.daemon(**settings) as made:
        tar = dockerlab.tar_of(f"{made.base}/rootfs")
        assert made.docker("import", "-", "bb:1", stdin=tar).code == 0
        yield made
    assert "sampan" not in run("nft", "list", "tables")
    assert "sb-" not in run("ip", "link")


@contextmanager
def docker(daemon):
    """The CLI as a function of its words; containers and networks are removed at the end."""

    def call(*words, code=0):
        done = daemon.docker(*words)
        assert done.code == code, f"{words}: {done.out}{done.err}"
        return (done.err if code else done.out).strip()

    call.daemon = daemon
    yield call
    for name in call("ps", "-aq").split():
        call("rm", "-f", name)
    call("network", "prune", "-f")


def sampan(daemon, *words):
    """Our own command against a daemon: (code, output and errors)."""
    command = [sys.executable, "-m", "sampan.cli", *words]
    environ = {**daemon.environ, "PYTHONPATH": dockerlab.SOURCES, "SAMPAN_HOST": daemon.host}
    done = subprocess.run(
        command, check=False, env=environ, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


def run(*command):
    """The output of a command of the host."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def fetch(address, port, path="/hostname"):
    """What a web server says; "" when nobody answers."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode().strip()
    except ConnectionRefusedError:
        return ""
    finally:
        connection.close()


def eventually(condition, patience=30.0):
    """Wait for something that another process brings about."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def serve(docker, name, *words):
    """A container that serves its files, up to the point where it answers in itself."""
    docker("run", "-d", "--name", name, *words, "bb:1", *SERVE)
    listening = ":0050 "
    eventually(lambda: listening in docker("exec", name, "cat", "/proc/net/tcp", "/proc/net/tcp6"))


def inspect(docker, name):
    """What `docker inspect` says of networks."""
    return json.loads(docker("inspect", name))[0]["NetworkSettings"]
