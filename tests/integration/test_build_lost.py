"""Builds that lose their daemon: nothing is left, and the next build goes on from what was done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from glob import glob
from pathlib import Path

import pytest

import dockerlab
from netdocker import eventually

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]
TEXT = (
    "FROM bb:1\nRUN echo done > /done\nRUN --mount=type=secret,id=s echo begun; sleep 1000\n"
    "COPY --link Dockerfile /linked\n"
)
SAMPAN = "import sys; from sampan.cli.__main__ import main; sys.exit(main(sys.argv[1:]))"
SECRET = "hush-8823"


def test_a_killed_daemon_leaves_nothing_of_a_build(tmp_path):
    (tmp_path / "Dockerfile").write_text(TEXT)
    with dockerlab.daemon() as daemon:
        tar = dockerlab.tar_of(f"{daemon.base}/rootfs")
        assert daemon.exchange("POST", "/images/create?fromSrc=-&repo=bb&tag=1", tar)[0] == 200
        flags = ["build", "-t", "lost:1", "--network", "none", "--secret", "id=s,env=S"]
        argv = [sys.executable, "-c", SAMPAN, "-H", daemon.host, *flags, str(tmp_path)]
        environ = {**daemon.environ, "PYTHONPATH": dockerlab.SOURCES, "S": SECRET}
        with subprocess.Popen(argv, env=environ, stderr=subprocess.PIPE, text=True) as client:
            for line in client.stderr:
                if line.endswith(" begun\n"):
                    break
            deadline = time.monotonic() + dockerlab.PATIENCE
            while not _linked(daemon.base):  # made ahead, beside the command
                assert time.monotonic() < deadline
            daemon.stop(signal.SIGKILL)
            client.stderr.read()
            assert client.wait(dockerlab.PATIENCE) == 1
        daemon.start()
        assert daemon.ask("GET", "/containers/json?all=1")[1] == []
        eventually(lambda: glob(f"{daemon.base}/state/shims/*") == [])
        assert daemon.ask("POST", "/images/prune")[0] == 200  # the collector takes what was begun
        assert _linked(daemon.base) == []
        names = [image["RepoTags"] for image in daemon.ask("GET", "/images/json")[1]]
        assert names == [["bb:1"]]
        assert SECRET.encode() not in _everything(daemon.base)
        (tmp_path / "Dockerfile").write_text(TEXT.replace("sleep 1000", "true"))
        done = subprocess.run(
            argv, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(" CACHED\n") == 1
        assert SECRET.encode() not in _everything(daemon.base)


def _linked(base):
    """The file of the linked copy, wherever it is among the snapshots."""
    return [path for path in Path(base).rglob("linked") if "snapshots" in path.parts]


def _everything(base):
    """All bytes of all files of a daemon: blobs, rows, logs, snapshots."""
    return b"".join(
        path.read_bytes()
        for path in Path(base).rglob("*")
        if path.is_file() and not path.is_symlink()
    )
