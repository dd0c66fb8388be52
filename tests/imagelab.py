"""A whole store with its image service below one directory, for tests of images."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager

from sampan.images.service import ImageService
from sampan.layers.workers import LayerWorkers
from sampan.registry.client import Registry
from sampan.registry.retry import Retry
from sampan.snapshots.choosing import choose
from sampan.spec.platform import Platform
from sampan.store.content import ContentStore
from sampan.store.database import Database
from sampan.store.gc import Collector
from sampan.store.layout import Layout

FAST = Retry(attempts=2, blob_attempts=3, first=0.001, longest=0.01)
AMD64 = Platform("linux", "amd64")


class Store:
    """The parts of one store. `service` is what is tested; `steps` what it reported."""

    def __init__(
        self,
        root,
        *,
        retry=FAST,
        users=tuple,
        workers=None,
        hosts=None,
        proxies=None,
        policy=None,
        trust=None,
        snapshotter="overlay",
    ) -> None:
        self.layout = Layout(f"{root}/root", f"{root}/state")
        self.layout.create()
        self.db = Database.open(self.layout.database)
        self.content = ContentStore(self.layout, self.db)
        self.content.reconcile()
        self.snapshots = choose(self.layout, self.db, wanted=snapshotter)
        self.snapshots.reconcile()
        self.collector = Collector(self.db, self.content, self.snapshots.discard)
        self.workers = workers or LayerWorkers(2)
        self.steps = []
        self.service = ImageService(
            db=self.db,
            content=self.content,
            snapshotter=self.snapshots,
            workers=self.workers,
            registry=Registry(hosts, retry, proxies),
            collect=self.collector.run,
            users=users,
            platform=AMD64,
            layout=self.layout,
            policy=policy,
            trust=trust,
        )

    async def aclose(self) -> None:
        await self.service.aclose()
        await self.workers.aclose()
        await self.snapshots.aclose()
        await self.content.aclose()
        await self.db.close()

    async def pull(self, reference, **options):
        return await self.service.pull(reference, progress=self.steps.append, **options)

    def statuses(self, short_id=None):
        return [step.status for step in self.steps if short_id in (None, step.id)]

    def ingests(self):
        return os.listdir(self.layout.ingests)

    def blobs(self):
        return {blob.digest for blob in self.content.walk()}

    def keys(self):
        return {row.key for row in self.snapshots.walk()}

    def files(self, image):
        """Path -> content of the topmost layer."""
        number = next(r.number for r in self.snapshots.walk() if r.key == image.chain_id)
        top, found = f"{self.layout.snapshot(number)}/fs", {}
        for directory, _, names in os.walk(top):
            for name in names:
                path = os.path.join(directory, name)
                with open(path, "rb") as file:
                    found[os.path.relpath(path, top)] = file.read()
        return found

    def leftovers(self):
        """What a failed or cancelled pull must not leave: active snapshots and leases."""
        active = [row.key for row in self.snapshots.walk() if row.kind != "committed"]
        leases = self.db.read_now(lambda c: c.execute("SELECT id FROM leases").fetchall())
        return active + leases


@asynccontextmanager
async def store(root, **options):
    """`async with store(tmp_path) as one:`"""
    one = Store(root, **options)
    try:
        yield one
    finally:
        await one.aclose()
