"""Layers and images made here: from what a snapshot holds to an image in the store."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagelab import store
from sampan.errors import InvalidArgument, NotFound
from sampan.images.diffing import Change, ChangeKind, CommittedLayer
from sampan.layers.compression import Compression
from sampan.runtime import rootfs
from sampan.spec.image import History, ImageConfig, RunConfig
from treelab import describe, make_rich

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="snapshots need root")


def config(**more):
    return ImageConfig(architecture="amd64", os="linux", config=RunConfig(cmd=("/bin/sh",)), **more)


@contextmanager
def mounted(tmp_path, word):
    """An overlay of ours, as a shim would have it."""
    path = tmp_path / "merged"
    path.mkdir(exist_ok=True)
    lowers = ":".join(word["lowers"])
    options = f"lowerdir={lowers}"
    if "upper" in word:
        options += f",upperdir={word['upper']},workdir={word['work']}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


async def base(one, name="base"):
    """An image of one layer with everything in it."""
    async with one.service.lease() as lease:
        word = await one.snapshots.prepare("base", None, lease=lease)
        make_rich(Path(word["source"]))
        layer = await one.service.commit_layer("base", lease=lease)
        image = await one.service.create_image(config(), [layer], name, lease=lease)
        await one.snapshots.remove("base")
    return image, layer


def test_commit_and_create(tmp_path):
    async def main():
        async with store(tmp_path) as one:
            image, first = await base(one)
            word = await one.snapshots.prepare("two", image.chain_id)
            with mounted(tmp_path, word) as merged:
                (merged / "fifo").unlink()
                (merged / "new").write_text("new")
                expected = describe(merged)
                found = await one.service.changes("two")
                async with one.service.lease() as lease:
                    layer = await one.service.commit_layer("two", lease=lease)
                    image = await one.service.create_image(
                        config(history=(History(comment="x"),)), [first, layer], "two", lease=lease
                    )
            assert found == [Change("/fifo", ChangeKind.DELETED), Change("/new", ChangeKind.ADDED)]
            assert image.names == ("two:latest",)
            assert [layer.digest for layer in image.layers] == [
                first.descriptor.digest,
                layer.descriptor.digest,
            ]
            await one.snapshots.remove("two")
            await one.collector.run()
            word = await one.snapshots.view("look", image.chain_id)
            with mounted(tmp_path, word) as merged:
                assert describe(merged) == expected
            await one.snapshots.remove("look")
            assert one.leftovers() == []
            await one.service.remove("two")
            assert len(one.blobs()) == 3

    asyncio.run(main())


def test_the_diff_id_does_not_depend_on_the_compression(tmp_path):
    async def main():
        async with store(tmp_path) as one, one.service.lease() as lease:
            word = await one.snapshots.prepare("a", None)
            make_rich(Path(word["source"]))
            made = [
                await one.service.commit_layer(word, lease=lease, compression=kind)
                for kind in (Compression.NONE, Compression.GZIP, Compression.ZSTD, Compression.GZIP)
            ]
            assert len({layer.diff_id for layer in made}) == 1
            assert made[1] == made[3]
            assert made[0].descriptor.digest == made[0].diff_id
            assert made[0].descriptor.size == made[0].size

    asyncio.run(main())


def test_what_is_missing_is_told_and_nothing_stays(tmp_path):
    async def main():
        async with store(tmp_path) as one:
            _, layer = await base(one)
            before = one.blobs(), one.keys()
            other = CommittedLayer(
                layer.descriptor.__class__(layer.descriptor.media_type, layer.diff_id, 1),
                layer.diff_id,
            )
            with pytest.raises(NotFound, match="is not here"):
                await one.service.create_image(config(), [layer, other], "x")
            with pytest.raises(InvalidArgument, match="digest"):
                await one.service.create_image(config(), [layer], f"x@{layer.diff_id}")
            with pytest.raises(NotFound):
                await one.service.changes("nothing")
            await one.collector.run()
            assert (one.blobs(), one.keys()) == before
            assert one.ingests() == []
            assert one.leftovers() == []

    asyncio.run(main())


def test_a_failed_commit_leaves_no_bytes(tmp_path):
    async def main():
        async with store(tmp_path) as one, one.service.lease() as lease:
            word = await one.snapshots.prepare("a", None)
            with open(f"{word['source']}/a", "wb") as file:  # noqa: ASYNC230
                file.write(os.urandom(4 << 20))
            os.mkdir(f"{word['source']}/z")
            with open(f"{word['source']}/z/.wh.z", "wb"):  # noqa: ASYNC230
                pass
            with pytest.raises(InvalidArgument, match="cannot be in a layer"):
                await one.service.commit_layer("a", lease=lease)
            assert one.ingests() == []
            assert one.blobs() == set()

    asyncio.run(main())


def test_many_lowers_are_one_tree(tmp_path):
    async def main():
        async with store(tmp_path) as one:
            parent = None
            for number in range(60):
                word = await one.snapshots.prepare(f"a{number}", parent)
                top = word["source"] if parent is None else word["upper"]
                with open(f"{top}/file{number}", "w") as file:  # noqa: ASYNC230
                    file.write("x")
                await one.snapshots.commit(f"c{number}", f"a{number}")
                parent = f"c{number}"
            word = await one.snapshots.prepare("top", parent)
            with open(f"{word['upper']}/file3", "w") as file:  # noqa: ASYNC230
                file.write("y")
            found = await one.service.changes("top")
            assert found == [Change("/file3", ChangeKind.MODIFIED)]

    asyncio.run(main())


def test_as_many_layers_as_overlayfs_takes(tmp_path):
    """Far beyond what one value of mount options can name, also on older kernels."""

    async def main():
        async with store(tmp_path) as one:
            parent = None
            for number in range(400):
                await one.snapshots.prepare(f"a{number}", None)
                place = one.snapshots.mounts(f"a{number}")["source"]
                os.mknod(f"{place}/file{number}")
                await one.snapshots.commit(f"c{number}", f"a{number}", parent=parent)
                parent = f"c{number}"
            word = await one.snapshots.prepare("top", parent)
            os.mknod(f"{word['upper']}/new")
            assert await one.service.changes("top") == [Change("/new", ChangeKind.ADDED)]
            return dict(word)

    word = asyncio.run(main())
    for make in (rootfs.mount, old_kernel):
        mount = make(word)
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount)
        try:
            assert len(os.listdir(root)) == 401
        finally:
            os.close(root)
            os.close(mount)


def old_kernel(word):
    """As before Linux 6.8, where layers are one value."""
    upper = [("upperdir", word["upper"]), ("workdir", word["work"])]
    return rootfs._overlay_by_list(word["lowers"], upper, 0)
