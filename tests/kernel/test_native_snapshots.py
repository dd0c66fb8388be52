"""Whole directories in place of overlays: the same trees, without overlayfs's help.

Each scenario runs in a process with a mount namespace of its own. What an overlay shows is what a
native snapshot has to hold.
"""

# ruff: noqa: ASYNC221, ASYNC230, ASYNC240 - each scenario is alone on its loop
from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from imagelab import store
from sampan.errors import FailedPrecondition, InvalidArgument
from sampan.images.diffing import ChangeKind, CommittedLayer
from sampan.kernel import mounts
from sampan.runtime import rootfs
from sampan.snapshots.native import NativeSnapshotter
from sampan.snapshots.overlay import OverlaySnapshotter
from sampan.spec.image import ImageConfig
from treelab import describe, make_rich


def mount(word, where):
    os.makedirs(where, exist_ok=True)
    root = rootfs.mount(word)
    target = os.open(where, os.O_PATH)
    mounts.move_mount(root, target)
    os.close(target)
    os.close(root)
    return Path(where)


def unmount(where):
    subprocess.run(["umount", where], check=True)


def fill_second(root):
    """Everything that a layer can say about the one below."""
    (root / "fifo").unlink()
    (root / "bin/tool").unlink()
    (root / "bin/ping").write_bytes(b"other")
    shutil.rmtree(root / "etc")
    (root / "etc").mkdir()
    (root / "etc/new").write_text("opaque now")
    (root / "link-to-dir").symlink_to("bin")
    (root / "owned").unlink()
    (root / "owned").mkdir()
    (root / "owned/inside").write_text("a file became a directory")


def fill_third(root):
    (root / "bin/added").write_text("third")
    os.link(root / "bin/added", root / "bin/added-too")
    shutil.rmtree(root / "owned")
    (root / "sparse").unlink()


async def archive(base):
    """Three layers, made by overlays: the bytes of an archive, and what each state shows."""
    expected = []
    async with store(f"{base}/made") as one, one.service.lease() as lease:
        layers, parent = [], None
        for fill in (make_rich, fill_second, fill_third):
            word = await one.snapshots.prepare("make", parent, lease=lease)
            root = mount(word, f"{base}/look")
            fill(root)
            expected.append(describe(root))
            unmount(root)
            layers.append(await one.service.commit_layer("make", lease=lease))
            config = ImageConfig(architecture="amd64", os="linux")
            image = await one.service.create_image(config, layers, "all", lease=lease)
            await one.snapshots.remove("make")
            parent = image.chain_id
        data = b"".join([piece async for piece in await one.service.save(["all"])])
    return data, expected


async def pieces(data):
    yield data


async def check(base, place, wanted):
    """Load the archive into a native root at `place`, and compare every state."""
    data, expected = await archive(base)
    async with store(place, snapshotter=wanted) as one:
        assert isinstance(one.snapshots, NativeSnapshotter)
        await one.service.load(pieces(data))
        image = await one.service.get("all")
        rows = one.snapshots.walk()
        assert [row.kind for row in rows] == ["committed"] * 3
        for row, tree in zip(rows, expected, strict=True):
            assert describe(one.layout.snapshot(row.number) + "/fs") == tree
        report = await one.service.check()
        assert list(report.problems) == [], report.problems
        await write_and_look(one, base, image, expected[-1])
        await usage(one)


async def write_and_look(one, base, image, last):
    word = await one.snapshots.prepare("rw", image.chain_id)
    root = mount(word, f"{base}/rw")
    assert describe(root) == last
    (root / "bin/added").write_text("by the container")
    (root / "link-to-dir").unlink()
    (root / "new").mkdir()
    (root / "new/file").write_text("new")
    unmount(root)
    changes = await one.service.changes("rw")
    found = {(change.path, change.kind) for change in changes}
    assert {
        ("/bin/added", ChangeKind.MODIFIED),
        ("/link-to-dir", ChangeKind.DELETED),
        ("/new", ChangeKind.ADDED),
        ("/new/file", ChangeKind.ADDED),
    } <= found
    assert all(path.startswith(("/bin", "/link-to-dir", "/new")) for path, _ in found)
    view = mount(await one.snapshots.view("ro", image.chain_id), f"{base}/ro")
    assert describe(view) == last  # what the container wrote is its own
    with pytest.raises(OSError, match="Read-only"):
        (view / "x").mkdir()
    unmount(view)
    await one.snapshots.remove("ro")
    await commit(one, base, image)


async def commit(one, base, image):
    """A container's changes become a layer, which unpacks to the same tree."""
    expected = describe(one.snapshots.mounts("rw")["source"])
    async with one.service.lease() as lease:
        layer = await one.service.commit_layer("rw", lease=lease)
        again = await one.service.commit_layer("rw", lease=lease)
        assert again.diff_id == layer.diff_id  # the same bytes each time
        pairs = zip(image.layers, image.config.rootfs_diff_ids, strict=True)
        layers = [*(CommittedLayer(*pair) for pair in pairs), layer]
        made = await one.service.create_image(image.config, layers, "made", lease=lease)
    number = one.snapshots.info(made.chain_id).number
    assert describe(one.layout.snapshot(number) + "/fs") == expected
    await one.snapshots.commit("committed by hand", "rw")
    number = one.snapshots.info("committed by hand").number
    assert describe(one.layout.snapshot(number) + "/fs") == expected
    await one.snapshots.remove("committed by hand")
    assert (await one.snapshots.usage(image.chain_id)).size > 0


async def usage(one):
    """What is shared is counted once: together it is what du says."""
    await asyncio.to_thread(one.snapshots._own.shutdown, wait=True)
    total = sum([(await one.snapshots.usage(row.key)).size for row in one.snapshots.walk()])
    paths = [f"{one.layout.snapshot(row.number)}/fs" for row in one.snapshots.walk()]
    done = subprocess.run(["du", "-s", "-B1", "-c", *paths], capture_output=True, check=True)
    assert total == int(done.stdout.split()[-2])


async def on_a_plain_file_system(base):
    await check(base, f"{base}/native", "native")


async def on_an_overlay_nothing_else_works(base):
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{base}/{name}")
    word = {"lowers": [f"{base}/lower"], "upper": f"{base}/upper", "work": f"{base}/work"}
    place = mount({"type": "overlay", **word}, f"{base}/merged")
    await check(base, place / "store", "auto")
    unmount(place)


async def a_copy_shares_its_blocks_where_it_can(base):
    with open(f"{base}/disk", "wb") as file:
        file.truncate(300 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", f"{base}/disk"], check=True)
    os.mkdir(f"{base}/mnt")
    subprocess.run(["mount", "-o", "loop", f"{base}/disk", f"{base}/mnt"], check=True)
    try:
        async with store(f"{base}/mnt/store", snapshotter="native") as one:
            source = (await one.snapshots.prepare("make", None))["source"]
            Path(source, "big").write_bytes(os.urandom(8 << 20))
            await one.snapshots.commit("low", "make")
            os.sync()
            before = os.statvfs(source).f_bfree
            copy = (await one.snapshots.prepare("rw", "low"))["source"]
            os.sync()
            assert before - os.statvfs(source).f_bfree < 256  # blocks, of 2048
            assert is_shared(f"{copy}/big")
            Path(copy, "big").write_bytes(b"other")
            assert os.path.getsize(f"{source}/big") == 8 << 20
    finally:
        unmount(f"{base}/mnt")


def is_shared(path):
    """Whether the first extent is another file's too (FS_IOC_FIEMAP, FIEMAP_EXTENT_SHARED)."""
    with open(path, "rb") as file:
        request = struct.pack("=QQLLLL", 0, 1 << 40, 1, 0, 1, 0) + bytes(56)
        answer = fcntl.ioctl(file, 0xC020660B, request)
    return bool(struct.unpack_from("=L", answer, 32 + 40)[0] & 0x2000)


async def a_root_stays_with_what_it_was_begun_with(base):
    async with store(base, snapshotter="native") as one:
        assert isinstance(one.snapshots, NativeSnapshotter)
    async with store(base, snapshotter="auto") as one:
        assert isinstance(one.snapshots, NativeSnapshotter)
    with pytest.raises(FailedPrecondition, match="was begun with native"):
        async with store(base, snapshotter="overlay"):
            pass
    with pytest.raises(InvalidArgument, match="use one of auto, overlay, native"):
        async with store(base, snapshotter="zfs"):
            pass
    async with store(f"{base}/other", snapshotter="auto") as one:
        assert type(one.snapshots) is OverlaySnapshotter


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        on_a_plain_file_system,
        on_an_overlay_nothing_else_works,
        a_copy_shares_its_blocks_where_it_can,
        a_root_stays_with_what_it_was_begun_with,
    )
}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("name", SCENARIOS)
def test_native(name, tmp_path):
    if "blocks" in name and not shutil.which("mkfs.xfs"):
        pytest.skip("needs xfsprogs")
    base = tmp_path / "t"
    base.mkdir(mode=0o700)
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__]
    result = subprocess.run(
        [*command, name, str(base)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert str(base) not in Path("/proc/self/mountinfo").read_text()


if __name__ == "__main__":
    os.umask(0o022)
    assert stat.S_IMODE(os.umask(0o022)) == 0o022
    asyncio.run(SCENARIOS[sys.argv[1]](sys.argv[2]))
