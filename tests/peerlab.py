"""Other people's image tools, each with roots of its own below one directory."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager

PATIENCE = 90
_NO_NETWORK = ("--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false")


def missing(*programs: str) -> list[str]:
    """Those that are not installed."""
    return [name for name in programs if shutil.which(name) is None]


def call(*words, **options) -> str:
    """Run to the end; what it printed."""
    done = subprocess.run(
        [str(word) for word in words],
        check=False,
        capture_output=True,
        timeout=PATIENCE,
        **options,
    )
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout.decode().strip()


def podman(base, *words) -> str:
    """podman over plain directories."""
    return _containers("podman", base, *words)


def buildah(base, *words) -> str:
    """buildah over the same."""
    return _containers("buildah", base, *words)


@functools.cache
def _run_root(_base) -> str:
    """A short path: podman refuses one of more than 50 characters."""
    made = tempfile.mkdtemp(prefix="peer-", dir="/tmp")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def _containers(program, base, *words) -> str:
    roots = ("--root", f"{base}/{program}/root", "--runroot", _run_root(f"{base}/{program}"))
    environ = {**os.environ, "XDG_RUNTIME_DIR": f"{base}/{program}/xdg", "HOME": str(base)}
    environ["STORAGE_DRIVER"] = "vfs"
    os.makedirs(environ["XDG_RUNTIME_DIR"], mode=0o700, exist_ok=True)
    return call(program, *roots, *words, env=environ)


@contextmanager
def containerd(base):
    """ctr with a containerd of its own: a function of words."""
    place = base / "containerd"
    place.mkdir()
    address = f"{place}/sock"
    (place / "config.toml").write_text(
        f'version = 2\nroot = "{place}/root"\nstate = "{place}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{address}"\n'
        f'[ttrpc]\naddress = "{address}.ttrpc"\n'
        f'[plugins."io.containerd.internal.v1.opt"]\npath = "{place}/opt"\n'
    )
    argv = ["containerd", "-c", f"{place}/config.toml"]
    with _daemon(argv, address, place):
        yield lambda *words: call("ctr", "-a", address, *words)


@contextmanager
def dockerd(base, *flags, network=False):
    """docker with a dockerd of its own: a function of words. `network`: with its bridge."""
    place = base / "docker"
    place.mkdir()
    with containerd(place) as _:
        address = f"{place}/docker.sock"
        argv = [
            "dockerd",
            *("--data-root", f"{place}/data", "--exec-root", f"{place}/exec"),
            *("-H", f"unix://{address}", "--pidfile", f"{place}/pid"),
            *("--containerd", f"{place}/containerd/sock"),
            *("--storage-driver", "overlay2", *flags, *(() if network else _NO_NETWORK)),
        ]
        with _daemon(argv, address, place):
            environ = {**os.environ, "HOME": str(place)}
            host = f"unix://{address}"
            yield lambda *words: call("docker", "-H", host, *words, env=environ)


@contextmanager
def _daemon(argv, address, place):
    with open(f"{place}/log", "wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait(process, address, place)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _wait(process, address, place) -> None:
    """Until somebody listens. These daemons have no way to say so that does not need a manager."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with open(f"{place}/log", "rb") as log:
            assert process.poll() is None, log.read()[-3000:]
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(address)
                return
            except OSError:
                time.sleep(0.05)  # polls a process of somebody else's
    raise AssertionError(f"{address} does not answer")
