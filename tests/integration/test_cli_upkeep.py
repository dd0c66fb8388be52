"""`system check`, `system gc` and `system df` from outside, and an image whose layers were lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

import dockerlab
import sampan as library
from dockerlab import PATIENCE, SOURCES, Result

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]
ENVIRON = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES}


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        data = dockerlab.tar_of(f"{made.base}/rootfs")
        assert call(made, "import", "-", "bb:1", stdin=data).code == 0
        yield made


def call(daemon, *words, stdin=b""):
    done = subprocess.run(
        [sys.executable, "-m", "sampan.cli", "-H", daemon.host, *words],
        env={**ENVIRON, "HOME": daemon.base},
        input=stdin,
        check=False,
        capture_output=True,
        timeout=PATIENCE,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_check_repair_and_a_run_in_between(daemon):
    done = call(daemon, "system", "check")
    assert (done.code, done.out.endswith("no problems\n")) == (0, True), done.err
    snapshots = f"{daemon.base}/root/snapshots"
    for name in os.listdir(snapshots):
        shutil.rmtree(f"{snapshots}/{name}")
    done = call(daemon, "system", "check")
    assert done.code == 1
    assert "snapshot missing" in done.out
    done = call(daemon, "system", "check", "--repair")
    assert (done.code, done.out.count("(mended)")) == (0, 2), done.out
    done = call(daemon, "run", "--rm", "--network", "none", "bb:1", "echo", "x")
    assert (done.code, done.out) == (0, "x\n"), done.err


def test_collection_on_demand(daemon):
    assert call(daemon, "system", "gc").out == "Total reclaimed space: 0B\n"
    done = call(daemon, "system", "gc", "--unused-for", "7x")
    assert (done.code, "is not an age" in done.err) == (1, True)
    done = call(daemon, "system", "gc", "--unused-for", "7d", "--max-size", "100g")
    assert (done.code, call(daemon, "images", "-q").out != "") == (0, True)


def test_space(daemon):
    with library.Engine.open(host=daemon.host) as engine:
        assert engine.check().problems == ()
        assert engine.collect() >= 0
    socket = dockerlab.UnixConnection(daemon.socket)
    socket.request("GET", "/system/df")
    answer = json.loads(socket.getresponse().read())
    socket.close()
    assert answer["LayersSize"] == answer["Store"]["Layers"] + answer["Store"]["Blobs"]
    assert answer["Store"]["Total"] >= answer["LayersSize"]
