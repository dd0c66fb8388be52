"""Rows of images, containers, snapshots, events and leases: what they refuse and what they keep."""

from __future__ import annotations

import asyncio

import pytest

from sampan.errors import (
    AlreadyExists,
    Conflict,
    ContainerNotFound,
    FailedPrecondition,
    ImageNotFound,
    InvalidArgument,
    NameInUse,
    NotFound,
)
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor
from sampan.store import blobs, containers, events, images, leases, snapshots
from sampan.store.containers import ContainerRow
from sampan.store.snapshots import Kind

A, B = Digest.of(b"a"), Digest.of(b"b")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def conn(db):
    """The writer's connection, in autocommit."""
    return db._writer


def row(n: int, name: str, snapshot: str | None = None) -> ContainerRow:
    return ContainerRow(f"{n:064x}", name, '{"v":1}', snapshot, None, n)


# images


def test_image_name_moves_and_goes(conn):
    blobs.insert(conn, A, 1)
    blobs.insert(conn, B, 2)
    assert images.put(conn, "x:1", Descriptor(MANIFEST, A, 1)) is None
    before = images.put(conn, "x:1", Descriptor(MANIFEST, B, 2))
    assert before is not None
    assert before.target.digest == A
    now = images.get(conn, "x:1")
    assert now.target == Descriptor(MANIFEST, B, 2)
    assert now.created_ns == before.created_ns <= now.updated_ns
    assert [i.name for i in images.by_digest(conn, B)] == ["x:1"]
    assert images.by_digest(conn, A) == ()
    assert images.delete(conn, "x:1") == now
    with pytest.raises(ImageNotFound):
        images.delete(conn, "x:1")
    assert images.list(conn) == ()


def test_every_change_of_a_name_is_another_version(conn):
    blobs.insert(conn, A, 1)
    blobs.insert(conn, B, 2)
    seen = [images.version(conn)]
    for change in (
        lambda: images.put(conn, "x:1", Descriptor(MANIFEST, A, 1)),
        lambda: images.put(conn, "y:1", Descriptor(MANIFEST, A, 1)),
        lambda: images.put(conn, "x:1", Descriptor(MANIFEST, B, 2)),
        lambda: (images.delete(conn, "y:1"), images.put(conn, "z:1", Descriptor(MANIFEST, A, 1))),
        lambda: images.delete(conn, "x:1"),
    ):
        change()
        seen.append(images.version(conn))
    assert len(set(seen)) == len(seen)


def test_image_needs_its_blob_and_keeps_it(conn):
    with pytest.raises(FailedPrecondition, match="not here"):
        images.put(conn, "x:1", Descriptor(MANIFEST, A, 1))
    blobs.insert(conn, A, 1)
    images.put(conn, "x:1", Descriptor(MANIFEST, A, 1))
    with pytest.raises(Conflict):
        blobs.delete(conn, A)
    images.delete(conn, "x:1")
    blobs.delete(conn, A)
    with pytest.raises(NotFound):
        blobs.delete(conn, A)


def test_links_add_up_and_go_with_their_parent(conn):
    with pytest.raises(NotFound):
        blobs.link(conn, A, blobs=[B])
    blobs.insert(conn, A, 1)
    blobs.link(conn, A, blobs=[B, B], snapshots=["s"])
    blobs.link(conn, A, blobs=[B])
    assert blobs.links(conn, A) == (B,)
    assert blobs.links(conn, A, "snapshot") == ("s",)
    blobs.delete(conn, A)
    assert blobs.links(conn, A) == ()


# containers


def test_container_name_and_id_are_unique(conn):
    containers.insert(conn, row(1, "one"))
    with pytest.raises(NameInUse, match=f"{1:064x}"):
        containers.insert(conn, row(2, "one"))
    with pytest.raises(AlreadyExists, match="exists already"):
        containers.insert(conn, row(1, "two"))
    containers.insert(conn, row(2, "two"))
    with pytest.raises(NameInUse, match=f"{1:064x}"):
        containers.update(conn, f"{2:064x}", "{}", name="one")
    assert [c.name for c in containers.list(conn)] == ["one", "two"]


def test_container_update_keeps_what_is_not_given(conn):
    containers.insert(conn, row(1, "one"))
    containers.update(conn, f"{1:064x}", '{"v":1,"x":2}')
    found = containers.get(conn, f"{1:064x}")
    assert (found.name, found.record) == ("one", '{"v":1,"x":2}')
    containers.update(conn, f"{1:064x}", "{}", name="uno")
    assert containers.get(conn, f"{1:064x}").name == "uno"
    with pytest.raises(ContainerNotFound):
        containers.update(conn, f"{9:064x}", "{}")


def test_container_delete_can_be_repeated(conn):
    containers.insert(conn, row(1, "one"))
    assert containers.delete(conn, f"{1:064x}") == row(1, "one")
    assert containers.delete(conn, f"{1:064x}") is None
    with pytest.raises(ContainerNotFound):
        containers.get(conn, f"{1:064x}")


def test_container_and_snapshot_hold_each_other(conn):
    with pytest.raises(FailedPrecondition, match="no such snapshot: rw"):
        containers.insert(conn, row(1, "one", "rw"))
    snapshots.insert(conn, "rw", Kind.ACTIVE, None)
    containers.insert(conn, row(1, "one", "rw"))
    with pytest.raises(Conflict, match=f"container {1:064x} uses it"):
        snapshots.delete(conn, "rw")
    containers.delete(conn, f"{1:064x}")
    snapshots.delete(conn, "rw")


# snapshots


def layer(conn, name: str, parent: str | None = None) -> int:
    snapshots.insert(conn, f"make {name}", Kind.ACTIVE, None)
    return snapshots.commit(conn, name, f"make {name}", parent=parent, boot="b")


def test_chain_is_topmost_first(conn):
    low, mid, top = layer(conn, "low"), layer(conn, "mid", "low"), layer(conn, "top", "mid")
    assert snapshots.chain(conn, "top") == (top, mid, low)
    number = snapshots.insert(conn, "rw", Kind.ACTIVE, top)
    assert snapshots.parents(conn, "rw") == (top, mid, low)
    assert snapshots.get(conn, "rw").parent == "top"
    assert snapshots.get(conn, "rw").number == number


def test_layers_committed_in_another_order_than_made_are_listed_parents_first(conn):
    for name in ("top", "low"):
        snapshots.insert(conn, f"make {name}", Kind.ACTIVE, None)
    snapshots.commit(conn, "low", "make low", parent=None, boot="b")
    snapshots.commit(conn, "top", "make top", parent="low", boot="b")
    assert [s.key for s in snapshots.list(conn)] == ["low", "top"]


def test_only_committed_snapshots_are_parents(conn):
    snapshots.insert(conn, "rw", Kind.ACTIVE, None)
    with pytest.raises(FailedPrecondition, match="must be committed"):
        snapshots.chain(conn, "rw")
    with pytest.raises(NotFound):
        snapshots.chain(conn, "nosuch")
    with pytest.raises(FailedPrecondition, match="must be committed"):
        snapshots.commit(conn, "self", "rw", parent="rw", boot="b")


def test_commit_refuses_what_would_break_the_tree(conn):
    low, other = layer(conn, "low"), layer(conn, "other")
    snapshots.insert(conn, "rw", Kind.ACTIVE, low)
    snapshots.insert(conn, "ro", Kind.VIEW, other)
    with pytest.raises(AlreadyExists):
        snapshots.commit(conn, "low", "rw", parent=None, boot="b")
    with pytest.raises(FailedPrecondition, match="its parent is low"):
        snapshots.commit(conn, "new", "rw", parent="other", boot="b")
    with pytest.raises(FailedPrecondition, match="view, not active"):
        snapshots.commit(conn, "new", "ro", parent=None, boot="b")
    with pytest.raises(NotFound):
        snapshots.commit(conn, "new", "nosuch", parent=None, boot="b")
    snapshots.commit(conn, "new", "rw", parent="low", boot="b")
    assert snapshots.get(conn, "new").parent == "low"


def test_parent_is_not_removed_and_numbers_never_come_back(conn):
    layer(conn, "low")
    top = layer(conn, "top", "low")
    with pytest.raises(Conflict, match="above it"):
        snapshots.delete(conn, "low")
    assert snapshots.delete(conn, "top") == top
    assert snapshots.insert(conn, "next", Kind.ACTIVE, None) > top
    with pytest.raises(NotFound):
        snapshots.delete(conn, "top")


@pytest.mark.parametrize("key", ["", "k" * 513])
def test_snapshot_keys_are_bounded(conn, key):
    with pytest.raises(InvalidArgument):
        snapshots.insert(conn, key, Kind.ACTIVE, None)


def test_too_many_layers_are_refused(conn, monkeypatch):
    monkeypatch.setattr(snapshots, "MAX_DEPTH", 2)
    for name, parent in (("a", None), ("b", "a"), ("c", "b")):
        layer(conn, name, parent)
    with pytest.raises(FailedPrecondition, match="more than 2"):
        snapshots.chain(conn, "c")


def test_usage_is_remembered_for_committed_ones_only(conn):
    low = layer(conn, "low")
    active = snapshots.insert(conn, "rw", Kind.ACTIVE, low)
    for number in (low, active):
        snapshots.set_usage(conn, number, 7, 3)
    assert (snapshots.get(conn, "low").size, snapshots.get(conn, "low").inodes) == (7, 3)
    assert snapshots.get(conn, "rw").size is None


# events


def test_events_are_numbered_bounded_and_filtered(conn, monkeypatch):
    monkeypatch.setattr(events, "KEEP", 3)
    for n in range(1, 6):
        assert events.append(conn, str(n), n * 10) == n
    assert [e.body for e in events.read(conn)] == ["3", "4", "5"]
    assert [e.body for e in events.read(conn, after=4)] == ["5"]
    assert [e.body for e in events.read(conn, since_ns=40)] == ["4", "5"]
    assert [e.body for e in events.read(conn, until_ns=40)] == ["3", "4"]
    assert [e.body for e in events.read(conn, limit=1)] == ["3"]
    conn.execute("DELETE FROM events")
    assert events.last_id(conn) == 5
    assert events.append(conn, "6") == 6


def test_event_goes_with_the_change_that_failed(db):
    def change(conn):
        events.append(conn, "create")
        containers.update(conn, "nosuch", "{}")

    with pytest.raises(ContainerNotFound):
        db.write_now(change)
    assert db.read_now(events.read) == ()


# leases


def test_lease_lasts_as_long_as_its_block(db):
    async def main():
        async with leases.lease(db) as lease:
            await db.write(lambda conn: leases.hold(conn, lease, "blob", [A, A]))
            return lease

    lease = asyncio.run(main())
    with pytest.raises(NotFound):
        db.write_now(lambda conn: leases.hold(conn, lease, "blob", [A]))
    assert db.read_now(lambda c: c.execute("SELECT count(*) FROM lease_items").fetchone()) == (0,)


def test_lease_is_released_when_the_block_is_cancelled(db):
    async def main():
        inside = asyncio.Event()

        async def work():
            async with leases.lease(db):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.ensure_future(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert db.read_now(lambda c: c.execute("SELECT count(*) FROM leases").fetchone()) == (0,)


def test_leases_expire(conn):
    first = leases.create(conn, seconds=1)
    leases.create(conn, seconds=1000)
    until = conn.execute("SELECT expires_ns FROM leases WHERE id = ?", (first,)).fetchone()[0]
    assert leases.expire(conn, until - 1) == 0
    assert leases.expire(conn, until) == 1
