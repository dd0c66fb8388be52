"""The collector: everything reachable stays, everything else goes, files after rows."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from sampan.snapshots.overlay import OverlaySnapshotter
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor
from sampan.store import blobs, containers, gc, images, leases
from sampan.store.containers import ContainerRow
from sampan.store.content import ContentStore

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Store:
    """A root with helpers that make whole images."""

    def __init__(self, layout, db):
        self.layout = layout
        self.db = db
        self.content = ContentStore(layout, db)
        self.snapshots = OverlaySnapshotter(layout, db)
        self.collector = gc.Collector(db, self.content, self.snapshots.discard)

    async def layer(self, name, parent=None, lease=None):
        await self.snapshots.prepare(f"make {name}", None, lease=lease)
        await self.snapshots.commit(name, f"make {name}", parent=parent, lease=lease)

    async def image(self, name, layers, lease=None):
        """An image of blobs and snapshots; returns the digest of its manifest."""
        parent = None
        for layer in layers:
            await self.content.put(f"blob of {layer}".encode(), lease=lease)
            if not self.snapshots.has(layer):
                await self.layer(layer, parent, lease)
            parent = layer
        config = await self.content.put(
            f"config {name}".encode(), snapshots=[layers[-1]], lease=lease
        )
        children = [Digest.of(f"blob of {layer}".encode()) for layer in layers]
        data = f"manifest {name}".encode()
        manifest = await self.content.put(data, links=[config, *children], lease=lease)
        if lease is None:
            target = Descriptor(MANIFEST, manifest, len(data))
            await self.db.write(lambda conn: images.put(conn, name, target))
        return manifest

    async def untag(self, name):
        await self.db.write(lambda conn: images.delete(conn, name))

    def names(self):
        return {row.key for row in self.snapshots.walk()}

    def files(self):
        return len(os.listdir(os.path.join(self.layout.blobs, "sha256")))

    def directories(self):
        return len(os.listdir(self.layout.snapshots))


@pytest.fixture
def run(layout, db):
    def run(test):
        async def main():
            store = Store(layout, db)
            try:
                await test(store)
            finally:
                await store.snapshots.aclose()
                await store.content.aclose()

        asyncio.run(main())

    return run


def test_images_stay_and_what_two_share_stays_with_the_other(run):
    async def test(store):
        await store.image("one", ["base", "a"])
        await store.image("two", ["base", "b"])
        assert await store.collector.run() == gc.Garbage((), 0, ())
        await store.untag("one")
        garbage = await store.collector.run()
        assert len(garbage.blobs) == 3  # manifest, config, layer a
        assert garbage.size == sum(map(len, ("manifest one", "config one", "blob of a")))
        assert store.names() == {"base", "b"}
        assert (store.files(), store.directories()) == (4, 2)
        await store.untag("two")
        await store.collector.run()
        assert store.names() == set()
        assert (store.files(), store.directories()) == (0, 0)

    run(test)


def test_container_keeps_its_snapshots_and_its_image(run):
    async def test(store):
        await store.image("one", ["base", "a"])
        await store.snapshots.prepare("rw", "a")
        config = Digest.of(b"config one")
        row = ContainerRow("c" * 64, "box", "{}", "rw", config, 1)
        await store.db.write(lambda conn: containers.insert(conn, row))
        store.collector = gc.Collector(store.db, store.content, store.snapshots.discard)
        await store.untag("one")
        await store.collector.run()
        assert store.names() == {"base", "a", "rw"}
        assert store.content.has(config)
        await store.db.write(lambda conn: containers.delete(conn, row.id))
        await store.collector.run()
        assert store.names() == set()
        assert store.content.walk() == ()

    run(test)


def test_lease_keeps_a_pull_that_nothing_names_yet(run):
    async def test(store):
        async with leases.lease(store.db) as lease:
            await store.image("one", ["base", "a"], lease=lease)
            await store.snapshots.prepare("unpacking", "a", lease=lease)
            assert await store.collector.run() == gc.Garbage((), 0, ())
        store.collector._born_ns = time.time_ns()
        garbage = await store.collector.run()
        assert (len(garbage.blobs), len(garbage.snapshots)) == (4, 3)

    run(test)


def test_nobody_goes_on_with_what_a_dead_process_was_making(run):
    async def test(store):
        async with leases.lease(store.db) as lease:
            await store.image("one", ["base", "a"], lease=lease)
            await store.snapshots.prepare("unpacking", "a", lease=lease)
            store.collector._born_ns = time.time_ns()
            garbage = await store.collector.run()
            assert (garbage.blobs, len(garbage.snapshots)) == ((), 1)

    run(test)


def test_lease_past_its_deadline_keeps_nothing(run):
    async def test(store):
        lease = await store.db.write(lambda conn: leases.create(conn, seconds=0))
        await store.image("one", ["base"], lease=lease)
        assert len((await store.collector.run()).blobs) == 3

    run(test)


def test_unfinished_snapshots_of_this_process_are_spared(run):
    async def test(store):
        await store.snapshots.prepare("older", None)
        store.collector = gc.Collector(store.db, store.content, store.snapshots.discard)
        await store.snapshots.prepare("younger", None)
        await store.collector.run()
        assert store.names() == {"younger"}

    run(test)


def test_cycles_of_links_end(run):
    async def test(store):
        a, b = await store.content.put(b"a"), await store.content.put(b"b")
        await store.content.put(b"a", links=[b])
        await store.content.put(b"b", links=[a, Digest.of(b"of another platform")])
        await store.db.write(lambda conn: images.put(conn, "x", Descriptor(MANIFEST, a, 1)))
        assert (await store.collector.run()).blobs == ()
        await store.untag("x")
        assert set((await store.collector.run()).blobs) == {a, b}

    run(test)


def test_file_of_a_blob_that_came_back_stays(run):
    """Between the sweep of a row and of its file, a pull stores the same blob again."""

    async def test(store):
        digest = await store.content.put(b"a")
        garbage = await store.db.write(lambda conn: gc.collect(conn, now_ns=time.time_ns()))
        assert garbage.blobs == (digest,)
        await store.content.put(b"a")
        await store.content.discard(garbage.blobs)
        assert store.content.read(digest, 1) == b"a"

    run(test)


def test_collector_that_fails_leaves_no_trace(run):
    async def test(store):
        digest = await store.content.put(b"a")

        def fail(conn):
            gc.collect(conn, now_ns=time.time_ns())
            raise RuntimeError("after the sweep")

        for _ in range(2):
            with pytest.raises(RuntimeError):
                await store.db.write(fail)
            assert store.db.read_now(lambda conn: blobs.find(conn, digest)) is not None
        assert (await store.collector.run()).blobs == (digest,)

    run(test)
