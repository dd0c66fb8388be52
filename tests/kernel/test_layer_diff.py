"""Directories to layers, on the real kernel: what overlayfs wrote down, and the way back."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import subprocess
import tarfile
from contextlib import contextmanager

import pytest

from sampan.errors import Conflict
from sampan.layers import diff as diff_module
from sampan.layers.apply import apply
from sampan.layers.compression import Compression
from sampan.layers.diff import list_changes, write_layer
from sampan.layers.limits import LayerError
from sampan.layers.workers import LayerWorkers
from treelab import describe, make_rich

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="overlays need root")


class Bytes:
    """A sink in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data


@contextmanager
def directory(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def layer(path, **options) -> bytes:
    sink = Bytes()
    with directory(path) as fd:
        write_layer(fd, sink, **options)
    return bytes(sink.data)


def changes(path, lower=None) -> list[str]:
    with directory(path) as upper, directory(lower or path) as below:
        found = list_changes(upper, lower=below if lower else -1)
        return [record.decode() for record in found]


def unpack(path, data: bytes) -> None:
    path.mkdir()
    blob = os.memfd_create("layer")
    os.write(blob, data)
    try:
        with directory(path) as fd:
            apply(blob, fd)
    finally:
        os.close(blob)


@contextmanager
def overlay(tmp_path):
    """lower, upper and the mount of both."""
    paths = [tmp_path / name for name in ("lower", "upper", "work", "merged")]
    for path in paths[1:]:
        path.mkdir()
    options = "lowerdir={},upperdir={},workdir={}".format(*paths)
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", paths[3]], check=True)
    try:
        yield paths[0], paths[1], paths[3]
    finally:
        subprocess.run(["umount", paths[3]], check=True)


def test_a_tree_comes_back(tmp_path):
    make_rich(tmp_path / "a")
    data = layer(tmp_path / "a")
    unpack(tmp_path / "b", data)
    assert describe(tmp_path / "b") == describe(tmp_path / "a")
    assert layer(tmp_path / "b") == data


def test_other_readers_see_the_same(tmp_path):
    make_rich(tmp_path / "a")
    archive = tmp_path / "a.tar"
    archive.write_bytes(layer(tmp_path / "a"))
    (tmp_path / "gnu").mkdir()
    options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", tmp_path / "gnu"]
    done = subprocess.run(["tar", "-xpf", archive, *options], capture_output=True, check=True)
    assert b"error" not in done.stderr.lower()
    assert describe(tmp_path / "gnu") == describe(tmp_path / "a")
    with tarfile.open(archive) as tar:
        names = {os.fsencode(member.name) for member in tar}
    assert names == set(describe(tmp_path / "a"))


def test_same_input_same_bytes(tmp_path):
    names = [f"file{n}" for n in range(50)]
    for folder, order in (("a", names), ("b", names[::-1])):
        (tmp_path / folder).mkdir()
        for name in order:
            path = tmp_path / folder / name
            path.write_text(name)
            os.utime(path, ns=(1, 1_600_000_000_000_000_000 + len(folder + order[0])))
    assert layer(tmp_path / "a") == layer(tmp_path / "b")


def test_times_are_not_later_than_asked(tmp_path):
    (tmp_path / "a").mkdir()
    for name, when in (("old", 1000), ("new", 5_000)):
        (tmp_path / "a" / name).write_text("")
        os.utime(tmp_path / "a" / name, (when, when))
    with tarfile.open(fileobj=io.BytesIO(layer(tmp_path / "a", newest=2000))) as tar:
        assert {member.name: member.mtime for member in tar} == {"old": 1000, "new": 2000}


def test_what_overlayfs_wrote_down(tmp_path):
    make_rich(tmp_path / "lower")
    (tmp_path / "lower/gone").mkdir()
    (tmp_path / "lower/gone/in").write_text("in")
    (tmp_path / "lower/again").mkdir()
    (tmp_path / "lower/again/old").write_text("old")
    (tmp_path / "lower/again/kept").write_text("old")
    with overlay(tmp_path) as (lower, upper, merged):
        (merged / "etc/passwd").write_text("changed")
        (merged / "fifo").unlink()
        subprocess.run(["rm", "-r", merged / "gone", merged / "again"], check=True)
        (merged / "again").mkdir()
        (merged / "again/kept").write_text("new")
        (merged / "bin/link").unlink()
        (merged / "bin/link").mkdir()
        os.link(merged / "etc/passwd", merged / "etc/passwd-")
        os.chmod(merged / "bin", 0o700)
        (merged / "new").write_text("new")
        expected = describe(merged)
        data = layer(upper)
        assert changes(upper, lower) == [
            "C/again",
            "C/again/kept",
            "D/again/old",
            "C/bin",
            "C/bin/link",
            "C/etc",
            "C/etc/passwd",
            "A/etc/passwd-",
            "D/fifo",
            "D/gone",
            "A/new",
        ]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
    assert {"again/.wh..wh..opq", ".wh.gone", ".wh.fifo"} < set(names)
    assert names.index("again") < names.index("again/.wh..wh..opq") < names.index("again/kept")
    again = tmp_path / "second"
    again.mkdir()
    unpack(again / "upper", data)
    (again / "lower").symlink_to(tmp_path / "lower")
    (again / "upper").rename(again / "saved")
    with overlay(again) as (_, _, merged):
        pass
    options = f"lowerdir={again}/saved:{tmp_path}/lower"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", merged], check=True)
    try:
        assert describe(merged) == expected
    finally:
        subprocess.run(["umount", merged], check=True)


def test_two_trees_are_compared(tmp_path):
    make_rich(tmp_path / "old")
    subprocess.run(["cp", "-a", tmp_path / "old", tmp_path / "new"], check=True)
    (tmp_path / "new/etc/passwd").write_text("changed")
    (tmp_path / "new/fifo").unlink()
    (tmp_path / "new/extra").mkdir()
    with directory(tmp_path / "old") as lower:
        data = layer(tmp_path / "new", lower=lower, overlay=False)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["etc", "etc/passwd", "extra", ".wh.fifo"]


def test_the_root_is_there_when_it_is_not_plain(tmp_path):
    (tmp_path / "a").mkdir(mode=0o700)
    assert layer(tmp_path / "a")[:2] == b"./"
    assert layer(tmp_path / "a", root=(0o40700, 0, 0)) == bytes(1024)
    os.chmod(tmp_path / "a", 0o755)
    assert layer(tmp_path / "a") == bytes(1024)


def test_refusals(tmp_path):
    for name, make in (
        (".wh.x", lambda path: (path / ".wh.x").write_text("")),
        ("redirect", lambda path: os.setxattr(sub(path), "trusted.overlay.redirect", b"/x")),
    ):
        path = tmp_path / name.strip(".")
        path.mkdir()
        make(path)
        with pytest.raises(LayerError, match=name):
            layer(path)
    with pytest.raises(LayerError, match="larger than 10 bytes"):
        layer(tmp_path, limit=10)


def sub(path):
    (path / "sub").mkdir()
    return path / "sub"


def test_a_file_that_shrinks_is_told(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(5000))
    fd = os.open(tmp_path / "a", os.O_RDONLY)

    class Short(Bytes):
        def write(self, data: bytes) -> None:
            os.truncate(tmp_path / "a", 10)

    monkeypatch.setattr(diff_module, "_PIECE", 100)
    with directory(tmp_path) as top, pytest.raises(Conflict, match="shorter"):
        write_layer(top, Short(), root=(os.stat(tmp_path).st_mode, 0, 0))
    os.close(fd)


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP, Compression.ZSTD])
def test_the_worker_gives_the_same(tmp_path, compression):
    make_rich(tmp_path / "a")
    expected = layer(tmp_path / "a")

    async def main():
        workers = LayerWorkers(1)
        out = os.open(tmp_path / "blob", os.O_RDWR | os.O_CREAT)
        try:
            with directory(tmp_path / "a") as fd:
                return await workers.diff(out, fd, compression=compression)
        finally:
            os.close(out)
            await workers.aclose()

    done = asyncio.run(main())
    assert done.diff_id == f"sha256:{hashlib.sha256(expected).hexdigest()}"
    assert done.size == len(expected)
    blob = os.open(tmp_path / "blob", os.O_RDONLY)
    (tmp_path / "b").mkdir()
    with directory(tmp_path / "b") as fd:
        assert apply(blob, fd, expected=done.diff_id).diff_id == done.diff_id
    os.close(blob)
    assert describe(tmp_path / "b") == describe(tmp_path / "a")
