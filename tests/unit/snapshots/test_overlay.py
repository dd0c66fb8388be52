"""Directories and rows of snapshots agree, at every step and after every crash."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat

import pytest

from sampan.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    NameInUse,
    NotFound,
    ResourceExhausted,
)
from sampan.snapshots import overlay
from sampan.snapshots.base import Usage
from sampan.snapshots.overlay import OverlaySnapshotter
from sampan.store import containers
from sampan.store.containers import ContainerRow


@pytest.fixture
def run(layout, db):
    def run(test):
        async def main():
            snapshots = OverlaySnapshotter(layout, db)
            try:
                return await test(snapshots)
            finally:
                await snapshots.aclose()

        return asyncio.run(main())

    return run


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


async def layer(snapshots, name, parent=None):
    mount = await snapshots.prepare(f"make {name}", None)
    await snapshots.commit(name, f"make {name}", parent=parent)
    return mount["source"]


def write(directory, name, size):
    with open(os.path.join(directory, name), "wb") as file:
        file.write(b"x" * size)


def test_mounts_are_json_and_name_the_directories(run, layout):
    async def test(snapshots):
        low = await layer(snapshots, "low")
        top = await layer(snapshots, "top", "low")
        assert low == f"{layout.snapshots}/1/fs"
        mount = await snapshots.prepare("rw", "top")
        assert json.loads(json.dumps(mount)) == {
            "type": "overlay",
            "lowers": [top, low],
            "upper": f"{layout.snapshots}/3/fs",
            "work": f"{layout.snapshots}/3/work",
        }
        assert snapshots.mounts("rw") == mount
        view = await snapshots.view("ro", "top")
        assert view == {"type": "overlay", "lowers": [f"{layout.snapshots}/4/fs", top, low]}
        assert snapshots.mounts("ro") == view
        for path in (mount["upper"], mount["work"], *view["lowers"]):
            assert os.listdir(path) == []
        with pytest.raises(FailedPrecondition, match="view it"):
            snapshots.mounts("top")
        with pytest.raises(NotFound):
            snapshots.mounts("nosuch")

    run(test)


def test_layers_filled_before_their_parents_are_committed(run):
    async def test(snapshots):
        for name in ("c", "b", "a"):
            await snapshots.prepare(f"make {name}", None)
        for name, parent in (("a", None), ("b", "a"), ("c", "b")):
            await snapshots.commit(name, f"make {name}", parent=parent)
        mount = await snapshots.prepare("rw", "c")
        assert [os.path.basename(os.path.dirname(low)) for low in mount["lowers"]] == list("123")
        assert [row.key for row in snapshots.walk()] == ["a", "b", "c", "rw"]

    run(test)


def test_root_of_the_writable_layer_is_the_image_s(run):
    """Owner and mode of / are the topmost layer's, whatever the umask."""

    async def test(snapshots):
        low = await layer(snapshots, "low")
        os.chmod(low, 0o2750)
        if os.geteuid() == 0:
            os.chown(low, 12, 34)
            os.chmod(low, 0o2750)
        before = os.umask(0o077)
        try:
            mount = await snapshots.prepare("rw", "low")
        finally:
            os.umask(before)
        made, wanted = os.stat(mount["upper"]), os.stat(low)
        assert (made.st_mode, made.st_uid, made.st_gid) == (
            wanted.st_mode,
            wanted.st_uid,
            wanted.st_gid,
        )
        assert mode(os.path.dirname(mount["upper"])) == 0o700

    run(test)


def test_layer_that_says_nothing_of_its_root_has_its_parent_s(run):
    async def test(snapshots):
        low = await snapshots.prepare("make low", None)
        os.chmod(low["source"], 0o555)
        await snapshots.commit("low", "make low")
        assert mode(low["source"]) == 0o555
        silent = await layer(snapshots, "silent", "low")
        assert mode(silent) == 0o555
        assert mode(await layer(snapshots, "alone")) == 0o755

    run(test)


def test_taken_keys_and_missing_parents_leave_no_directory(run, layout):
    async def test(snapshots):
        await layer(snapshots, "low")
        await snapshots.prepare("rw", "low")
        with pytest.raises(AlreadyExists):
            await snapshots.prepare("rw", "low")
        with pytest.raises(NotFound):
            await snapshots.prepare("other", "nosuch")
        with pytest.raises(FailedPrecondition):
            await snapshots.prepare("other", "rw")
        await snapshots.prepare("make low", None)
        with pytest.raises(AlreadyExists):
            await snapshots.commit("low", "make low")
        await snapshots.remove("make low")  # the loser of a race cleans up after itself

    run(test)
    assert sorted(os.listdir(layout.snapshots)) == ["1", "2"]


def test_remove_takes_directory_and_row(run, layout):
    async def test(snapshots):
        await layer(snapshots, "low")
        await snapshots.prepare("rw", "low")
        with pytest.raises(Conflict):
            await snapshots.remove("low")
        await snapshots.remove("rw")
        await snapshots.remove("low")
        with pytest.raises(NotFound):
            await snapshots.remove("low")
        assert snapshots.walk() == ()
        assert os.listdir(layout.snapshots) == []

    run(test)
    assert os.listdir(layout.trash) == []  # aclose waited for what was under way


def test_container_snapshot_and_event_are_one_write(run, db, layout):
    """A container that cannot be made leaves no snapshot, and its directory is swept."""

    async def test(snapshots):
        await layer(snapshots, "low")
        first = ContainerRow("1" * 64, "box", "{}", "rw1", None, 1)
        second = ContainerRow("2" * 64, "box", "{}", "rw2", None, 2)

        def create(conn, row):
            mount = snapshots.prepare_now(conn, row.snapshot, "low")
            containers.insert(conn, row)
            return mount

        await db.write(lambda conn: create(conn, first))
        with pytest.raises(NameInUse):
            await db.write(lambda conn: create(conn, second))
        with pytest.raises(Conflict, match="uses it"):
            await snapshots.remove("rw1")
        assert [row.key for row in snapshots.walk()] == ["low", "rw1"]
        # The number was rolled back too, its directory is in the way of the next.
        mount = await snapshots.prepare("rw3", "low")
        assert os.listdir(mount["upper"]) == []

        def remove(conn):
            containers.delete(conn, first.id)
            return snapshots.remove_now(conn, "rw1")

        snapshots.discard([await db.write(remove)])
        assert [row.key for row in snapshots.walk()] == ["low", "rw3"]
        assert sorted(os.listdir(layout.snapshots)) == ["1", "3"]

    run(test)


def test_full_disk_is_said_and_leaves_nothing(run, layout, monkeypatch):
    real = os.mkdir

    def mkdir(path, mode=0o777, **more):
        if str(path).endswith("work"):
            raise OSError(errno.ENOSPC, "No space left on device", path)
        return real(path, mode, **more)

    async def test(snapshots):
        await layer(snapshots, "low")
        with monkeypatch.context() as patch:
            patch.setattr(os, "mkdir", mkdir)
            with pytest.raises(ResourceExhausted, match="rw"):
                await snapshots.prepare("rw", "low")
        assert os.listdir(layout.snapshots) == ["1"]
        await snapshots.prepare("rw", "low")

    run(test)


def test_usage_counts_the_snapshot_alone_and_is_kept(run):
    async def test(snapshots):
        low = await layer(snapshots, "low")
        write(low, "a", 10_000)
        os.link(f"{low}/a", f"{low}/b")
        usage = await snapshots.usage("low")
        assert usage == Usage(12288 + os.stat(low).st_blocks * 512, 2)
        write(low, "c", 1)
        assert await snapshots.usage("low") == usage  # committed: measured once
        mount = await snapshots.prepare("rw", "low")
        write(mount["upper"], "a", 1)
        assert (await snapshots.usage("rw")).inodes == 2
        write(mount["upper"], "b", 1)
        assert (await snapshots.usage("rw")).inodes == 3
        with pytest.raises(NotFound):
            await snapshots.usage("nosuch")

    run(test)


def test_reconcile_sweeps_directories_without_rows(run, layout):
    async def test(snapshots):
        await layer(snapshots, "low")
        os.makedirs(f"{layout.snapshots}/77/fs/deep")
        os.makedirs(f"{layout.trash}/left/deep")
        os.mkdir(f"{layout.snapshots}/not a number")
        found = snapshots.reconcile()
        assert (found.removed, found.lost, found.damaged) == ((77,), (), ())
        assert sorted(os.listdir(layout.snapshots)) == ["1", "not a number"]

    run(test)


def test_reconcile_names_rows_without_directories(run, layout):
    async def test(snapshots):
        await layer(snapshots, "low")
        await snapshots.prepare("rw", "low")
        os.rename(layout.snapshot(2), layout.snapshot(99))
        assert snapshots.reconcile().damaged == ("rw",)

    run(test)


def test_after_a_reboot_what_was_never_synced_is_dropped(run, monkeypatch, layout):
    async def before(snapshots):
        await layer(snapshots, "synced")
        await snapshots.sync()
        await layer(snapshots, "lost", "synced")
        await layer(snapshots, "lost too", "lost")
        await layer(snapshots, "used", "synced")
        await snapshots.prepare("rw", "used")
        assert snapshots.reconcile() == overlay.Leftovers((), (), ())  # the same boot

    async def after(snapshots):
        found = snapshots.reconcile()
        assert set(found.lost) == {"lost", "lost too"}
        assert found.damaged == ("used",)  # a container's files are above it: not ours to drop
        assert {row.key for row in snapshots.walk()} == {"synced", "used", "rw"}

    run(before)
    monkeypatch.setattr(overlay, "_boot_id", lambda: "another boot")
    run(after)
    assert len(os.listdir(layout.snapshots)) == 3


def test_commits_are_synced_a_bit_later(run):
    async def test(snapshots):
        await layer(snapshots, "low")
        timer = snapshots._timer
        await layer(snapshots, "top", "low")
        assert timer is snapshots._timer  # one for both
        assert snapshots.info("low").boot is not None
        timer.function()
        assert snapshots.info("low").boot is snapshots.info("top").boot is None
        await layer(snapshots, "later")
        assert snapshots._timer is not timer

    run(test)


def test_has_and_hold_see_committed_snapshots_only(run, db):
    async def test(snapshots):
        await snapshots.prepare("rw", None)
        assert not snapshots.has("rw")
        assert not await snapshots.hold("rw", "no lease")
        await snapshots.commit("low", "rw")
        assert snapshots.has("low")
        with pytest.raises(NotFound, match="lease"):
            await snapshots.hold("low", "no lease")

    run(test)
