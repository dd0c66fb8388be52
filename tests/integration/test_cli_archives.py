"""`save` and `load` from outside: files, pipes, directories, and docker's own client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile

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


def call(daemon, *words, stdin=b"", program=(sys.executable, "-m", "sampan.cli")):
    done = subprocess.run(
        [*program, "-H", daemon.host, *words],
        env={**ENVIRON, "HOME": daemon.base},
        input=stdin,
        check=False,
        capture_output=True,
        timeout=PATIENCE,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


def image_id(daemon):
    return call(daemon, "image", "inspect", "--format", "{{.Id}}", "bb:1").out.decode().strip()


@pytest.fixture
def back(daemon):
    """The image is there again afterwards."""
    kept = call(daemon, "save", "bb:1").out
    yield image_id(daemon)
    call(daemon, "load", stdin=kept)


def test_to_a_file_and_back(daemon, back, tmp_path):
    assert call(daemon, "save", "-o", str(tmp_path / "a.tar"), "bb:1").code == 0
    assert os.listdir(tmp_path) == ["a.tar"]
    assert os.stat(tmp_path / "a.tar").st_mode & 0o777 == 0o600
    assert call(daemon, "rmi", "bb:1").code == 0
    done = call(daemon, "load", "-i", str(tmp_path / "a.tar"))
    assert (done.code, done.out) == (0, b"Loaded image: bb:1\n")
    assert image_id(daemon) == back
    done = call(daemon, "run", "--rm", "--network", "none", "bb:1", "echo", "x")
    assert (done.code, done.out) == (0, b"x\n")


def test_through_a_pipe(daemon, back):
    data = call(daemon, "image", "save", "--format", "oci-archive", "bb:1").out
    call(daemon, "rmi", "bb:1")
    assert call(daemon, "image", "load", stdin=data).out == b"Loaded image: bb:1\n"
    assert image_id(daemon) == back


def test_layout_directories(daemon, back, tmp_path):
    target = tmp_path / "layout"
    assert call(daemon, "save", "--format", "oci-dir", "-o", str(target), "bb:1").code == 0
    assert sorted(os.listdir(target)) == ["blobs", "index.json", "oci-layout"]
    refused = call(daemon, "save", "--format", "oci-dir", "-o", str(target), "bb:1")
    assert (refused.code, "is not empty" in refused.err) == (1, True)
    call(daemon, "rmi", "bb:1")
    assert call(daemon, "load", "-i", str(target)).out == b"Loaded image: bb:1\n"
    assert image_id(daemon) == back


@pytest.mark.skipif(not dockerlab.DOCKER, reason="needs docker's client")
def test_dockers_client(daemon, back, tmp_path):
    docker = (dockerlab.DOCKER,)
    done = call(daemon, "save", "-o", str(tmp_path / "a.tar"), "bb:1", program=docker)
    assert done.code == 0, done.err
    with tarfile.open(tmp_path / "a.tar") as tar:
        manifest = json.load(tar.extractfile("manifest.json"))
    assert manifest[0]["RepoTags"] == ["bb:1"]
    call(daemon, "rmi", "bb:1", program=docker)
    done = call(daemon, "load", "-i", str(tmp_path / "a.tar"), program=docker)
    assert (done.code, done.out) == (0, b"Loaded image: bb:1\n")
    assert image_id(daemon) == back


def test_errors(daemon, tmp_path):
    cases = (
        (("save", "nothing:1"), "No such image: nothing:1"),
        (("save", "-o", str(tmp_path / "no/a.tar"), "bb:1"), "does not exist"),
        (("save", "--format", "zip", "bb:1"), "unknown format 'zip'"),
        (("save", "--platform", "linux/s390x", "bb:1"), "does not match"),
        (("load", "-i", str(tmp_path / "none")), "no such file or directory"),
        (("load", "-i", str(tmp_path)), "is not an OCI layout"),
        (("load", "--platform", "a/b/c/d"), "invalid platform"),
    )
    for words, text in cases:
        done = call(daemon, *words)
        assert (done.code, done.out) == (1, b""), words
        assert text in done.err, (words, done.err)
        assert "Traceback" not in done.err
    assert os.listdir(tmp_path) == []
    done = call(daemon, "load", stdin=b"no archive at all" * 100)
    assert done.code == 1
    assert "load" in done.err or "tar" in done.err


def test_export(daemon, tmp_path):
    assert call(daemon, "image", "export", "-o", str(tmp_path / "a.tar"), "bb:1").code == 0
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert "bin/busybox" in tar.getnames()
    assert call(daemon, "image", "export", "bb:1").out == (tmp_path / "a.tar").read_bytes()
    assert call(daemon, "image", "export", "nothing").code == 1


def test_library(daemon, back, tmp_path):
    with library.Engine.open(host=daemon.host) as engine:
        engine.save("bb:1", tmp_path / "a.tar")
        with open(tmp_path / "b.tar", "wb") as file:
            engine.save(["bb:1"], file, format="oci-archive")
        engine.remove_image("bb:1")
        for name in ("a.tar", "b.tar"):
            images = engine.load(tmp_path / name)
            assert [image.id for image in images] == [back]
            assert images[0].names == ("bb:1",)
        with pytest.raises(library.errors.ImageNotFound):
            engine.save("nothing", tmp_path / "c.tar")
        assert sorted(os.listdir(tmp_path)) == ["a.tar", "b.tar"]
