"""Counters of pods' containers: of their cgroups on the node, or of those in the pod's machine.

A machine has one port for such questions, so they come one after the other.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sampan.errors import Unavailable
from sampan.store.locks import KeyedLocks
from sampan.vm import machine

if TYPE_CHECKING:
    from sampan.engine.engine import Engine
    from sampan.engine.model import Stats
    from sampan.pods.containers import PodContainer
    from sampan.pods.sandboxes import Sandboxes
    from sampan.pods.table import Table


class Readings:
    """Reads them."""

    def __init__(self, engine: Engine, table: Table, sandboxes: Sandboxes) -> None:
        self._engine = engine
        self._table = table
        self._sandboxes = sandboxes
        self._locks = KeyedLocks()

    async def of(self, one: PodContainer) -> Stats:
        """One reading of a container's counters.

        Raises:
            Unavailable: its machine does not answer. NotFound: it is gone.
        """
        sandbox, own = self._table.find(one.notes.sandbox), one.container
        if not (self._sandboxes.handler(sandbox).is_machine and own.status.is_running):
            return await self._engine.stats(own.id)
        home = self._engine.services.layout.shim(sandbox.keeper)
        async with self._locks.hold(sandbox.keeper):
            try:
                return await self._engine.stats(own.id, partial(machine.counters, home, own.id))
            except OSError as error:
                raise Unavailable(f"read counters of {own.id} in its machine: {error}") from error
