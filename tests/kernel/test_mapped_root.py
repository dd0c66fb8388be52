"""Layers shown with a user namespace's ids: what is seen inside, and what is on the disk.

Each scenario runs in a process with a mount namespace of its own. Needs root.
"""

# ruff: noqa: ASYNC240 - each scenario is alone on its loop
from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.kernel import namespaces
from sampan.kernel import numbers as n
from sampan.runtime import mappings, rootfs
from sampan.snapshots.base import mapped
from sampan.snapshots.overlay import OverlaySnapshotter
from sampan.store.database import Database
from sampan.store.layout import Layout

UIDS = [{"containerID": 0, "hostID": 200_000, "size": 65536}]
GIDS = [{"containerID": 0, "hostID": 300_000, "size": 65536}]


def fill_low(root):
    (root / "etc").mkdir()
    (root / "etc/shadow").write_text("secret")
    os.chmod(root / "etc/shadow", 0o600)
    (root / "home").mkdir()
    os.chown(root / "home", 1000, 1001)
    (root / "strange").write_text("")
    os.chown(root / "strange", 3_000_000, 3_000_000)


def fill_top(root):
    (root / "bin").mkdir()
    (root / "bin/su").write_bytes(b"su")
    os.chmod(root / "bin/su", 0o4755)
    os.mknod(root / "gone", stat.S_IFCHR, 0)


async def layers(snapshots):
    for name, parent, fill in (("low", None, fill_low), ("top", "low", fill_top)):
        source = (await snapshots.prepare(f"make {name}", None))["source"]
        fill(Path(source))
        await snapshots.commit(name, f"make {name}", parent=parent)


def inside(root, action):
    """Run `action` with `root` as the working directory, as root of the namespace."""
    space = mappings.namespace_of(UIDS, GIDS)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            namespaces.setns(space, n.CLONE_NEWUSER)
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            os.fchdir(root)
            action()
            code = 0
        finally:
            os._exit(code)
    os.close(space)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def owner(path):
    status = os.lstat(path)
    return status.st_uid, status.st_gid


def look_and_write():
    assert owner("etc/shadow") == (0, 0)
    assert owner("home") == (1000, 1001)
    assert owner("strange") == (65534, 65534)
    assert os.stat("bin/su").st_mode & 0o7777 == 0o4755
    assert Path("etc/shadow").read_text() == "secret"
    Path("etc/shadow").write_text("changed")  # a copy-up
    os.mkdir("etc/new")
    os.chown("etc/new", 7, 8)
    os.unlink("bin/su")


async def a_container_of_a_user_namespace_writes_the_images_ids(snapshots):
    await layers(snapshots)
    word = await snapshots.prepare("rw", "top")
    root = rootfs.mount(mapped(word, UIDS, GIDS))
    assert os.stat("etc/shadow", dir_fd=root).st_uid == 200_000  # as the host sees it
    assert inside(root, look_and_write) == 0
    os.close(root)
    upper = Path(word["upper"])
    assert owner(upper / "etc/shadow") == (0, 0)
    assert owner(upper / "etc/new") == (7, 8)
    assert stat.S_ISCHR((upper / "bin/su").lstat().st_mode)
    assert owner(word["lowers"][1] + "/etc/shadow") == (0, 0)
    # Another container without a namespace shares the layers, and even the changes.
    root = rootfs.mount(snapshots.mounts("rw"))
    assert os.stat("etc/new", dir_fd=root).st_uid == 7
    os.close(root)


def only_look():
    assert owner("etc/shadow") == (0, 0)
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir("more")


async def a_view_is_mapped_and_read_only(snapshots):
    await layers(snapshots)
    root = rootfs.mount(mapped(await snapshots.view("ro", "top"), UIDS, GIDS))
    assert inside(root, only_look) == 0
    os.close(root)


def write_alone():
    assert owner(".") == (0, 0)
    Path("file").write_text("")


async def a_single_directory_is_mapped(snapshots):
    word = await snapshots.prepare("rw", None)
    root = rootfs.mount(mapped(word, UIDS))
    space = GIDS[:]
    GIDS[:] = UIDS
    assert inside(root, write_alone) == 0
    GIDS[:] = space
    os.close(root)
    assert owner(word["source"] + "/file") == (0, 0)


async def forty_layers_are_mapped(snapshots):
    parent = None
    for number in range(40):
        source = (await snapshots.prepare("make", None))["source"]
        Path(source, str(number)).write_text("")
        await snapshots.commit(f"{number}", "make", parent=parent)
        parent = f"{number}"
    root = rootfs.mount(mapped(await snapshots.prepare("rw", parent), UIDS, GIDS))
    with os.scandir(f"/proc/self/fd/{root}") as entries:
        assert [entry.stat().st_uid for entry in entries] == [200_000] * 40
    os.close(root)


async def what_cannot_be_mapped_says_so(snapshots):
    del snapshots
    with pytest.raises(OSError, match="idmapped mount of /proc: its file system"):
        rootfs.mount(mapped({"type": "bind", "source": "/proc"}, UIDS))


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        a_container_of_a_user_namespace_writes_the_images_ids,
        a_view_is_mapped_and_read_only,
        a_single_directory_is_mapped,
        forty_layers_are_mapped,
        what_cannot_be_mapped_says_so,
    )
}


async def play(name, base):
    os.umask(0o022)
    layout = Layout(f"{base}/root", f"{base}/state")
    layout.create()
    db = Database.open(layout.database)
    snapshots = OverlaySnapshotter(layout, db)
    try:
        await SCENARIOS[name](snapshots)
    finally:
        await snapshots.aclose()
        await db.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("name", SCENARIOS)
def test_mapped_root(name, tmp_path):
    before = Path("/proc/self/mountinfo").read_text()
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__]
    result = subprocess.run(
        [*command, name, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert Path("/proc/self/mountinfo").read_text() == before


if __name__ == "__main__":
    asyncio.run(play(sys.argv[1], sys.argv[2]))
