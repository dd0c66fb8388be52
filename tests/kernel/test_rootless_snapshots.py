"""A store in a user namespace: overlays whose marks are attributes of users.

The scenario runs as root of a user namespace with a mount namespace, which is what a rootless
daemon has. Layers are made outside of it by overlays of the machine's root, and must mean the same.
"""

# ruff: noqa: ASYNC240 - alone on its loop
from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imagelab import store
from sampan.images.diffing import Change, ChangeKind
from sampan.kernel import mounts, namespaces, overlaymarks
from sampan.kernel import numbers as n
from sampan.runtime import mappings, rootfs
from sampan.snapshots.overlay import OverlaySnapshotter
from sampan.spec.image import ImageConfig
from treelab import describe

# The same ids, and none of the rights: the interpreter may lie where only the machine's root goes.
IDS = [{"containerID": 0, "hostID": 0, "size": 65536}]


def mount(word, where):
    os.makedirs(where, exist_ok=True)
    root = rootfs.mount(word)
    target = os.open(where, os.O_PATH)
    mounts.move_mount(root, target)
    os.close(target)
    os.close(root)
    return Path(where)


def fill_first(root):
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root\n")
    (root / "etc/removed").write_text("low")
    (root / "opaque").mkdir()
    (root / "opaque/old").write_text("low")
    (root / "bin").mkdir()
    (root / "bin/su").write_text("su")
    os.chown(root / "bin/su", 0, 42)
    os.chmod(root / "bin/su", 0o4750)
    os.link(root / "bin/su", root / "bin/su2")
    (root / "home").mkdir()
    os.chown(root / "home", 1000, 1000)
    os.setxattr(root / "etc/passwd", "user.note", b"kept")


def fill_second(root):
    (root / "etc/removed").unlink()
    shutil.rmtree(root / "opaque")
    (root / "opaque").mkdir()
    (root / "opaque/new").write_text("top")


async def outside(base):
    """An archive of two layers; what they show."""
    async with store(f"{base}/made") as one, one.service.lease() as lease:
        layers, parent = [], None
        for fill in (fill_first, fill_second):
            word = await one.snapshots.prepare("make", parent, lease=lease)
            root = mount(word, f"{base}/look")
            fill(root)
            seen = describe(root)
            layers.append(await one.service.commit_layer("make", lease=lease))
            subprocess.run(["umount", root], check=True)  # noqa: ASYNC221
            image = await one.service.create_image(
                ImageConfig(architecture="amd64", os="linux"), layers, "all", lease=lease
            )
            await one.snapshots.remove("make")
            parent = image.chain_id
        data = b"".join([piece async for piece in await one.service.save(["all"])])
    Path(base, "all.tar").write_bytes(data)
    return seen


def enter(base):
    """Become root of a new user namespace, which has the directory `base/rootless`."""
    os.mkdir(f"{base}/rootless", 0o700)
    archive = os.open(f"{base}/all.tar", os.O_RDONLY)
    subprocess.run(["mount", "--bind", f"{base}/rootless", "/mnt"], check=True)
    space = mappings.namespace_of(IDS, IDS)
    namespaces.setns(space, n.CLONE_NEWUSER)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    namespaces.unshare(n.CLONE_NEWNS)
    mounts.set_propagation("/", n.MS_REC | n.MS_SLAVE)
    return archive


async def inside(archive, expected):
    async def pieces():
        while data := os.read(archive, 1 << 20):
            yield data

    assert overlaymarks.opaque_attribute() == overlaymarks.USER_OPAQUE
    async with store("/mnt/store", snapshotter="auto") as one:
        assert type(one.snapshots) is OverlaySnapshotter
        await one.service.load(pieces())
        image = await one.service.get("all")
        word = await one.snapshots.prepare("rw", image.chain_id)
        assert word["userxattr"]
        root = mount(word, "/mnt/rw")
        assert describe(root) == expected
        assert os.listdir(root / "opaque") == ["new"]
        (root / "etc/passwd").unlink()
        (root / "made").write_text("in the namespace")
        shutil.rmtree(root / "home")
        (root / "home").mkdir()
        seen = describe(root)
        changes = await one.service.changes("rw")
        assert changes == [
            Change("/etc", ChangeKind.MODIFIED),
            Change("/etc/passwd", ChangeKind.DELETED),
            Change("/home", ChangeKind.MODIFIED),
            Change("/made", ChangeKind.ADDED),
        ]
        async with one.service.lease() as lease:
            layer = await one.service.commit_layer("rw", lease=lease)
        subprocess.run(["umount", root], check=True)  # noqa: ASYNC221
        await again(one, image, layer, seen)
        assert list((await one.service.check()).problems) == []


async def again(one, image, layer, expected):
    """What was written in the namespace is a layer like any other."""
    from sampan.images.diffing import CommittedLayer

    pairs = zip(image.layers, image.config.rootfs_diff_ids, strict=True)
    layers = [*(CommittedLayer(*pair) for pair in pairs), layer]
    async with one.service.lease() as lease:
        made = await one.service.create_image(image.config, layers, "made", lease=lease)
    root = mount(await one.snapshots.view("ro", made.chain_id), "/mnt/ro")
    assert describe(root) == expected
    subprocess.run(["umount", root], check=True)  # noqa: ASYNC221
    await one.snapshots.remove("ro")
    await one.snapshots.remove("rw")


@pytest.mark.skipif(os.geteuid() != 0, reason="making the layers needs root")
def test_rootless(tmp_path):
    tmp_path.chmod(0o755)
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__]
    result = subprocess.run(
        [*command, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout == "done"


if __name__ == "__main__":
    os.umask(0o022)
    shown = asyncio.run(outside(sys.argv[1]))
    overlaymarks._attribute.clear()  # found out for the machine's root
    asyncio.run(inside(enter(sys.argv[1]), shown))
    os.write(1, b"done")
