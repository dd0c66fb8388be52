"""What becomes of a pod's containers when the writing of its checkpoint has ended."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from sampan.errors import Conflict, NotFound
from sampan.pods import podcheckpoints


class Engine:
    """Of its containers one has ended, one was removed, and one is paused."""

    def __init__(self):
        self.thawed = []

    def get(self, name):
        raise NotFound(f"no such container: {name}")

    async def unpause(self, name):
        if name == "ended":
            raise Conflict("container ended is not paused")
        if name == "removed":
            raise NotFound("no such container: removed")
        self.thawed.append(name)


def test_one_that_cannot_go_on_keeps_no_other_stopped():
    engine = Engine()
    chosen = [
        SimpleNamespace(container=SimpleNamespace(id=name))
        for name in ("ended", "removed", "paused")
    ]
    asyncio.run(podcheckpoints._go_on(SimpleNamespace(engine=engine), chosen))
    assert engine.thawed == ["paused"]
