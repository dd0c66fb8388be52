"""Overlay snapshots on the real kernel: what `Mount` says can be mounted, and means what it should.

Each scenario runs in a process of its own in a private mount namespace, which takes its mounts with
it when it ends. Needs root.
"""

# ruff: noqa: ASYNC240 - each scenario is alone on its loop
from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.snapshots.overlay import OverlaySnapshotter
from sampan.store.database import Database
from sampan.store.layout import Layout


def mount(word, where):
    """Mount as the shim would, with mount(8)."""
    os.makedirs(where, exist_ok=True)
    if word["type"] == "bind":
        command = ["mount", "--bind", word["source"], where]
    else:
        options = "lowerdir=" + ":".join(word["lowers"])
        if "upper" in word:
            options += f",upperdir={word['upper']},workdir={word['work']}"
        command = ["mount", "-t", "overlay", "overlay", "-o", options, where]
    subprocess.run(command, check=True)
    return where


def unmount(where):
    subprocess.run(["umount", where], check=True)


def tree(top):
    """Every path below `top`, with type, mode, owner, size and content."""
    found = {}
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content = b""
            if os.path.isfile(path) and not os.path.islink(path):
                content = Path(path).read_bytes()
            found[os.path.relpath(path, top)] = (
                status.st_mode,
                status.st_uid,
                status.st_rdev,
                hashlib.sha256(content).hexdigest(),
            )
    return found


async def layer(snapshots, name, parent, fill):
    """Unpack a layer as layers/ does: into a directory that is not mounted."""
    source = (await snapshots.prepare(f"make {name}", None))["source"]
    fill(Path(source))
    await snapshots.commit(name, f"make {name}", parent=parent)
    return source


def fill_low(root):
    (root / "etc").mkdir()
    (root / "etc" / "passwd").write_text("root\n")
    (root / "etc" / "removed").write_text("low")
    (root / "old").mkdir()
    (root / "old" / "file").write_text("low")
    root.chmod(0o751)


def fill_top(root):
    (root / "etc").mkdir()
    os.mknod(root / "etc" / "removed", 0o600 | 0o020000, os.makedev(0, 0))
    (root / "old").mkdir()
    os.setxattr(root / "old", "trusted.overlay.opaque", b"y")
    (root / "old" / "new").write_text("top")


async def image(snapshots):
    low = await layer(snapshots, "low", None, fill_low)
    top = await layer(snapshots, "top", "low", fill_top)
    return low, top


async def writable_layer_shows_the_image_and_keeps_the_writes(snapshots, base):
    low, top = await image(snapshots)
    before = tree(low), tree(top)
    word = await snapshots.prepare("rw", "top")
    root = Path(mount(word, f"{base}/mnt"))
    assert (root / "etc" / "passwd").read_text() == "root\n"
    assert not (root / "etc" / "removed").exists()  # whiteout
    assert os.listdir(root / "old") == ["new"]  # opaque
    assert root.stat().st_mode & 0o7777 == 0o751
    (root / "etc" / "passwd").write_text("changed\n")
    (root / "old" / "new").unlink()
    (root / "more").mkdir()
    unmount(root)
    assert (tree(low), tree(top)) == before
    upper = Path(word["upper"])
    assert (upper / "etc" / "passwd").read_text() == "changed\n"
    assert (upper / "more").is_dir()
    mount(snapshots.mounts("rw"), f"{base}/mnt")
    assert (root / "etc" / "passwd").read_text() == "changed\n"


async def two_containers_share_layers_and_nothing_else(snapshots, base):
    await image(snapshots)
    one = Path(mount(await snapshots.prepare("one", "top"), f"{base}/one"))
    two = Path(mount(await snapshots.prepare("two", "top"), f"{base}/two"))
    (one / "etc" / "passwd").write_text("of one\n")
    assert (two / "etc" / "passwd").read_text() == "root\n"
    assert one.stat().st_dev != two.stat().st_dev


async def view_is_read_only_for_one_layer_and_for_two(snapshots, base):
    await image(snapshots)
    for name in ("low", "top"):
        root = Path(mount(await snapshots.view(f"view {name}", name), f"{base}/{name}"))
        assert root.stat().st_mode & 0o7777 == 0o751
        assert (root / "etc" / "passwd").read_text() == "root\n"
        try:
            (root / "new").write_text("x")
        except OSError as error:
            assert error.errno == errno.EROFS  # noqa: PT017
        else:
            raise AssertionError("a view was written to")


async def changes_of_a_container_become_a_layer(snapshots, base):
    await image(snapshots)
    root = Path(mount(await snapshots.prepare("rw", "top"), f"{base}/mnt"))
    (root / "etc" / "passwd").unlink()
    (root / "made").write_text("by the container")
    unmount(root)
    await snapshots.commit("new", "rw")
    root = Path(mount(await snapshots.prepare("rw2", "new"), f"{base}/mnt"))
    assert not (root / "etc" / "passwd").exists()
    assert (root / "made").read_text() == "by the container"


async def removal_while_mounted_ends_when_the_mount_does(snapshots, base):
    await image(snapshots)
    where = mount(await snapshots.prepare("rw", "top"), f"{base}/mnt")
    Path(where, "file").write_text("x")
    await snapshots.remove("rw")
    unmount(where)
    await snapshots.aclose()
    assert os.listdir(snapshots._layout.trash) == []


async def removal_never_enters_a_mount(snapshots, base):
    host = Path(base, "host")
    host.mkdir()
    (host / "canary").write_text("alive")
    source = (await snapshots.prepare("rw", None))["source"]
    Path(source, "file").write_text("x")
    mount({"type": "bind", "source": str(host)}, f"{source}/below/mnt")
    await snapshots.remove("rw")
    await snapshots.aclose()
    assert (host / "canary").read_text() == "alive"
    # It stays in the trash, and goes at the next start when the mount has gone.
    [left] = os.listdir(snapshots._layout.trash)
    unmount(f"{snapshots._layout.trash}/{left}/fs/below/mnt")
    again = OverlaySnapshotter(snapshots._layout, snapshots._db)
    again.reconcile()
    await again.aclose()
    assert os.listdir(snapshots._layout.trash) == []
    assert (host / "canary").read_text() == "alive"


async def usage_does_not_count_what_is_mounted_below(snapshots, base):
    source = (await snapshots.prepare("rw", None))["source"]
    alone = await snapshots.usage("rw")
    host = Path(base, "host")
    (host / "directory").mkdir(parents=True)
    mount({"type": "bind", "source": str(host)}, f"{source}/mnt")
    assert (await snapshots.usage("rw")).inodes == alone.inodes + 1


async def many_layers_can_be_mounted(snapshots, base):
    parent = None
    for n in range(40):
        await layer(snapshots, f"{n}", parent, lambda root, n=n: (root / f"{n}").write_text(""))
        parent = f"{n}"
    root = mount(await snapshots.prepare("rw", parent), f"{base}/mnt")
    assert sorted(os.listdir(root), key=int) == [str(n) for n in range(40)]


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        writable_layer_shows_the_image_and_keeps_the_writes,
        two_containers_share_layers_and_nothing_else,
        view_is_read_only_for_one_layer_and_for_two,
        changes_of_a_container_become_a_layer,
        removal_while_mounted_ends_when_the_mount_does,
        removal_never_enters_a_mount,
        usage_does_not_count_what_is_mounted_below,
        many_layers_can_be_mounted,
    )
}


async def play(name, base):
    layout = Layout(f"{base}/root", f"{base}/state")
    layout.create()
    db = Database.open(layout.database)
    snapshots = OverlaySnapshotter(layout, db)
    try:
        await SCENARIOS[name](snapshots, base)
    finally:
        await snapshots.aclose()
        await db.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("name", SCENARIOS)
def test_overlay(name, tmp_path):
    base = tmp_path / "t"  # short: old mount options are one page
    base.mkdir(mode=0o700)
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__]
    result = subprocess.run(
        [*command, name, str(base)], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert str(base) not in Path("/proc/self/mountinfo").read_text()


if __name__ == "__main__":
    asyncio.run(play(sys.argv[1], sys.argv[2]))
