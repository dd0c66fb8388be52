"""The whole platform over directories that are copied, in place of overlays."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile

import pytest

import dockerlab
from dockerlab import PATIENCE, SOURCES, Result

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]
NONE = ("--network", "none")


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon(snapshotter="native") as made:
        data = dockerlab.tar_of(f"{made.base}/rootfs")
        assert call(made, "import", "-", "bb:1", stdin=data).code == 0
        yield made


def call(daemon, *words, stdin=b""):
    done = subprocess.run(
        [sys.executable, "-m", "sampan.cli", "-H", daemon.host, *words],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES, "HOME": daemon.base},
        input=stdin,
        check=False,
        capture_output=True,
        timeout=PATIENCE,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


def test_containers_have_files_of_their_own(daemon):
    for name in ("one", "two"):
        script = f"[ ! -e /mark ] && echo {name} >/mark && rm /bin/wc && cat /mark"
        done = call(daemon, "run", "--name", name, *NONE, "bb:1", "sh", "-c", script)
        assert (done.code, done.out, done.err) == (0, f"{name}\n".encode(), "")
    done = call(daemon, "run", "--rm", *NONE, "bb:1", "ls", "/bin/wc")
    assert done.out == b"/bin/wc\n"  # the image's is still there
    assert call(daemon, "rm", "two").code == 0


def test_what_a_container_changed(daemon):
    found = set(call(daemon, "diff", "one").out.splitlines())
    assert {b"A /mark", b"D /bin/wc", b"C /bin"} <= found
    assert not any(line.endswith(b"/bin/busybox") for line in found)
    assert call(daemon, "commit", "one", "made:1").code == 0
    done = call(daemon, "run", "--rm", *NONE, "made:1", "sh", "-c", "cat /mark; ls /bin/wc")
    assert (done.code, done.out) == (1, b"one\n")
    saved = call(daemon, "save", "made:1").out
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        sizes = [one.size for one in tar if one.isfile() and "blobs" in one.name]
    assert min(sizes) < 4096 < max(sizes)  # the new layer has only what is new
    with tarfile.open(fileobj=io.BytesIO(call(daemon, "cp", "one:/mark", "-").out)) as tar:
        assert tar.extractfile("mark").read() == b"one\n"
    names = {name.rstrip("/") for name in exported(daemon, "one")}
    assert "mark" in names
    assert "bin/wc" not in names


def exported(daemon, name):
    with tarfile.open(fileobj=io.BytesIO(call(daemon, "export", name).out)) as tar:
        return tar.getnames()


def test_what_a_container_wrote_is_counted(daemon):
    for name, script in (("idle", "true"), ("busy", "echo x >/written")):
        assert call(daemon, "run", "--name", name, *NONE, "bb:1", "sh", "-c", script).code == 0
        size = daemon.ask("GET", f"/containers/{name}/json?size=1")[1]["SizeRw"]
        assert (name, size) in (("idle", 0), ("busy", 2))
        assert call(daemon, "rm", name).code == 0


def test_a_build_step_that_changes_nothing_makes_no_layer(daemon, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM bb:1\nRUN true\nRUN echo x >/written\n")
    done = call(daemon, "build", "--network", "none", "-t", "steps:1", str(tmp_path))
    assert done.code == 0, done.err
    base, made = (
        daemon.ask("GET", f"/images/{name}/json")[1]["RootFS"]["Layers"]
        for name in ("bb:1", "steps:1")
    )
    assert made[: len(base)] == base
    assert len(made) == len(base) + 1
    assert call(daemon, "rmi", "steps:1").code == 0


def test_an_image_as_a_mount_is_read_only(daemon):
    mount = ("--mount", "type=image,source=bb:1,target=/m")
    script = "ls /m/bin/busybox; touch /m/x"
    done = call(daemon, "run", "--rm", *NONE, *mount, "bb:1", "sh", "-c", script)
    assert (done.code, done.out) == (1, b"/m/bin/busybox\n")
    assert "Read-only file system" in done.err


def test_a_volume_is_filled_from_the_image(daemon):
    done = call(daemon, "run", "--rm", *NONE, "-v", "filled:/etc", "bb:1", "cat", "/etc/group")
    assert (done.code, done.out) == (0, b"root:x:0:\n")
    assert call(daemon, "volume", "rm", "filled").code == 0


def test_the_store_is_whole_and_counted(daemon):
    assert "no problems" in call(daemon, "system", "check").out.decode().lower()
    assert call(daemon, "rm", "one").code == 0
    assert call(daemon, "rmi", "made:1").code == 0
    status, usage = daemon.ask("GET", "/system/df")
    assert status == 200
    assert usage["LayersSize"] > 0
