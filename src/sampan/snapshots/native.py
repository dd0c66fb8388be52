"""Snapshots as whole directories, for places where overlayfs does not work.

A root on an overlay (a container in a container), on a network file system, or a kernel without the
module. A committed snapshot is the whole tree: when a layer is committed above its parent, the
files that it leaves alone are linked into its directory, so they take no space again. A container's
directory is a copy, by reflinks where the file system has them. A view is the parent's tree itself,
mounted read-only.

The copy is made inside of the transaction that makes the row: containers start slower here and
others wait for it, but what a crash leaves is what it leaves elsewhere. `changes` and `commit` of a
container compare the two trees, by kind, mode, owner, size and time.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sampan.snapshots import treecopy
from sampan.snapshots.base import Kind, Mount, Usage
from sampan.snapshots.overlay import OverlaySnapshotter
from sampan.store import snapshots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.snapshots.base import BindMount
    from sampan.store.database import Connection

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NativeSnapshotter(OverlaySnapshotter):
    """The `Snapshotter` for any file system that has hard links."""

    kind = "native"

    def tree(self, name: str) -> Mount:
        """See `OverlaySnapshotter.tree`; with the tree that it began as."""
        numbers = self._db.read_now(lambda conn: snapshots.chain(conn, name))
        tree: BindMount = {"type": "bind", "source": self._root(numbers[0]), "read_only": True}
        if len(numbers) > 1:
            tree["parent"] = self._root(numbers[1])
        return tree

    def directories(self, name: str) -> list[str]:
        """One directory, which has everything. Raises NotFound."""
        return super().directories(name)[:1]

    async def measure(self, key: str) -> Usage:
        """What `key` takes on disk; of a committed one what it does not share with its parent, as
        it was counted when it was made."""
        row = self.info(key)
        if row.kind is Kind.COMMITTED and row.size is not None and row.inodes is not None:
            return Usage(row.size, row.inodes)
        return await super().measure(key)

    async def written(self, key: str) -> int:
        """See `OverlaySnapshotter.written`: what is not as in the tree that it began as."""
        number = self.info(key).number
        below = self._db.read_now(lambda conn: snapshots.parents(conn, key))
        if not below:
            return await super().written(key)

        def compare() -> int:
            with self._opened((number,)) as tree, self._opened(below) as began:
                return treecopy.changed_size(tree, began)

        return await self._run(compare)

    def commit_now(
        self,
        conn: Connection,
        name: str,
        key: str,
        *,
        parent: str | None = None,
        lease: str | None = None,
    ) -> None:
        """`commit` in the transaction of `conn`."""
        began_alone = snapshots.get(conn, key).parent is None
        super().commit_now(conn, name, key, parent=parent, lease=lease)
        number = snapshots.get(conn, name).number
        below = snapshots.parents(conn, name)
        shared = treecopy.Shared()
        if began_alone:
            with self._opened((number,)) as upper, self._opened(below) as lower:
                shared = treecopy.lay_under(upper, lower)
        size, inodes = self._measure(number)
        snapshots.set_usage(conn, number, size - shared.size, inodes - shared.inodes)

    def _make_directories(self, number: int, kind: Kind, below: tuple[int, ...]) -> None:
        super()._make_directories(number, kind, below)
        if below and kind is Kind.ACTIVE:
            with self._opened(below) as source, self._opened((number,)) as target:
                treecopy.copy_tree(source, target)
                treecopy.dress(source, target)

    def _mount(self, number: int, kind: Kind, below: tuple[int, ...]) -> Mount:
        if kind is Kind.VIEW:
            return {"type": "bind", "source": self._root(below[0]), "read_only": True}
        mount: BindMount = {"type": "bind", "source": self._root(number)}
        if below:
            mount["parent"] = self._root(below[0])
        return mount

    @contextmanager
    def _opened(self, numbers: tuple[int, ...]) -> Iterator[int]:
        """The first directory, open; -1 when there is none."""
        fd = os.open(self._root(numbers[0]), _DIRECTORY) if numbers else -1
        try:
            yield fd
        finally:
            if fd >= 0:
                os.close(fd)
