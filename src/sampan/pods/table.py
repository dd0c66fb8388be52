"""The sandboxes in memory, and their rows: what everybody reads, written before it is answered."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sampan.errors import AlreadyExists, InvalidArgument, NotFound
from sampan.pods import records
from sampan.pods.names import sandbox_name
from sampan.store import sandboxes as rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.pods.model import Sandbox
    from sampan.store.database import Database


class Table:
    """All sandboxes of the engine, by id and by name."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._sandboxes: dict[str, Sandbox] = {}
        self._names: dict[str, str] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def __iter__(self) -> Iterator[Sandbox]:
        return iter(tuple(self._sandboxes.values()))

    def load(self) -> None:
        """Read every row; at start."""
        for row in self._db.read_now(rows.list):
            self._enter(records.decode(row.record))

    def find(self, ref: str) -> Sandbox:
        """The sandbox of an id, or of the unique beginning of one.

        Raises:
            NotFound: there is none. InvalidArgument: the beginning fits several.
        """
        found = self._sandboxes.get(ref)
        if found is not None:
            return found
        fitting = [key for key in self._sandboxes if ref and key.startswith(ref)]
        if len(fitting) > 1:
            raise InvalidArgument(f"pod sandbox {ref}: several ids begin with it")
        if not fitting:
            raise NotFound(f"no such pod sandbox: {ref}")
        return self._sandboxes[fitting[0]]

    def lock(self, sandbox_id: str) -> asyncio.Lock:
        """One change at a time: stop and remove come again and again."""
        return self._locks.setdefault(sandbox_id, asyncio.Lock())

    async def insert(self, sandbox: Sandbox) -> None:
        """Write a new sandbox; its name is taken from now on.

        Raises:
            AlreadyExists: another sandbox has the name.
        """
        name = sandbox_name(sandbox.config)
        owner = self._names.get(name)
        if owner is not None:
            raise AlreadyExists(f"pod sandbox name {name} is in use by {owner}")
        self._enter(sandbox)
        row = rows.SandboxRow(sandbox.id, name, records.encode(sandbox), sandbox.created_at)
        try:
            await self._db.write(lambda conn: rows.insert(conn, row))
        except BaseException:
            self._leave(sandbox)
            raise

    async def change(self, sandbox_id: str, **changes: Any) -> Sandbox:
        """Make a sandbox what `changes` say, in memory and on the disk."""
        changed = replace(self._sandboxes[sandbox_id], **changes)
        self._sandboxes[sandbox_id] = changed
        text = records.encode(changed)
        await self._db.write(lambda conn: rows.update(conn, sandbox_id, text))
        return changed

    async def delete(self, sandbox_id: str) -> None:
        """Forget a sandbox; its name is free again."""
        await self._db.write(lambda conn: rows.delete(conn, sandbox_id))
        self._leave(self._sandboxes[sandbox_id])

    def _enter(self, sandbox: Sandbox) -> None:
        self._sandboxes[sandbox.id] = sandbox
        self._names[sandbox_name(sandbox.config)] = sandbox.id

    def _leave(self, sandbox: Sandbox) -> None:
        self._sandboxes.pop(sandbox.id, None)
        self._names.pop(sandbox_name(sandbox.config), None)
        self._locks.pop(sandbox.id, None)
