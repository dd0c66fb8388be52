"""Layers to committed snapshots, named by chain id.

Each layer is applied in a worker to an active snapshot of its own, without a parent, in any order;
it becomes committed above the layer below it when that one is committed. The tar's diff id is
verified by the worker against the config's: a layer whose bytes fit the manifest but not the config
is refused. One task at a time makes one chain id; others wait and find it made.

Undo: an active snapshot of a failed or cancelled unpack is removed before the error goes on.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sampan.errors import (
    AlreadyExists,
    DataLoss,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SampanError,
)
from sampan.ids import new_id
from sampan.images.failures import finish
from sampan.layers.limits import MAX_LAYER_SIZE
from sampan.spec import mediatypes
from sampan.store import leases, snapshots, trees
from sampan.store.locks import KeyedLocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from sampan.layers.applied import AppliedLayer
    from sampan.layers.workers import LayerWorkers
    from sampan.snapshots.base import Mount, Snapshotter
    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor
    from sampan.store.content import ContentStore
    from sampan.store.database import Connection, Database

_log = logging.getLogger(__name__)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Unpacker:
    """Makes snapshots of layers. One for the process, so that concurrent pulls share the work."""

    def __init__(
        self,
        db: Database,
        content: ContentStore,
        snapshotter: Snapshotter,
        workers: LayerWorkers,
    ) -> None:
        self._db = db
        self._content = content
        self._snapshotter = snapshotter
        self._workers = workers
        self._locks = KeyedLocks()

    async def hold(self, chain_id: str, lease: str) -> bool:
        """Keep the committed snapshot `chain_id` under a lease; whether it is here."""

        def look(conn: Connection) -> bool:
            row = snapshots.find(conn, chain_id)
            if row is None or row.kind is not snapshots.Kind.COMMITTED:
                return False
            leases.hold(conn, lease, "snapshot", (chain_id,))
            return True

        return await self._db.write(look)

    async def unpack(
        self,
        layer: Descriptor,
        diff_id: Digest,
        *,
        chain_id: Digest,
        parent: Digest | None,
        below: Callable[[], Awaitable[object]],
        lease: str,
    ) -> None:
        """Make the snapshot `chain_id` of a layer whose blob is here, above `parent`.

        `below` waits until the parent is committed; it is called when the layer is applied.

        Raises:
            InvalidArgument, DataLoss: the layer is refused, or is not what the config says.
            ResourceExhausted: the disk is full.
        """
        async with self._locks.hold(chain_id):
            if await self.hold(chain_id, lease):
                return
            async with self._active(f"unpack-{new_id()[:16]} {chain_id}", lease) as (key, mount):
                await self._apply(layer, diff_id, mount)
                await below()
                await self._commit(chain_id, key, parent, lease)

    async def unpack_base(self, layer: Descriptor, *, lease: str) -> AppliedLayer:
        """Make the snapshot of a lowest layer whose diff id is not known; what came out of it.

        Raises:
            InvalidArgument, DataLoss, ResourceExhausted: as `unpack`.
        """
        async with self._active(f"unpack-{new_id()[:16]} {layer.digest}", lease) as (key, mount):
            applied = await self._apply(layer, None, mount)
            await self._commit(applied.diff_id, key, None, lease)
        return applied

    async def apply(
        self, layer: Descriptor, directory: str, lowers: Sequence[str] = ()
    ) -> AppliedLayer:
        """Unpack a layer whose blob is here into a snapshot's writable directory.

        `lowers` are the directories below it, topmost first. Raises as `unpack_base`.
        """
        blob = self._content.open(layer.digest)
        try:
            return await self.apply_file(blob, directory, lowers, media_type=layer.media_type)
        finally:
            os.close(blob)

    async def apply_file(
        self,
        file: int,
        directory: str,
        lowers: Sequence[str] = (),
        *,
        media_type: str = mediatypes.OCI_LAYER,
    ) -> AppliedLayer:
        """The same of a layer in a file, whose descriptor stays the caller's."""
        fds: list[int] = []
        try:
            fds.extend(os.open(path, _DIRECTORY) for path in (directory, *lowers))
            return await self._workers.apply(file, media_type, fds[0], None, lowers=fds[1:])
        finally:
            for fd in fds:
                os.close(fd)

    async def take_apart(self, file: int, directory: str) -> None:
        """Make numbered files of those in an archive, in an empty directory: see `layers.split`.

        Raises:
            LayerError: it is no archive, or a hostile one. ResourceExhausted: the disk is full.
        """
        fd = os.open(directory, _DIRECTORY)
        try:
            await self._workers.split(file, fd, limit=MAX_LAYER_SIZE)
        finally:
            os.close(fd)

    def warm(self) -> None:
        """A layer will be here soon: have a worker ready for it."""
        self._workers.warm()

    async def _commit(self, chain_id: Digest, key: str, parent: Digest | None, lease: str) -> None:
        try:
            await self._snapshotter.commit(chain_id, key, parent=parent, lease=lease)
        except AlreadyExists:
            await self._snapshotter.remove(key)  # another way led to the same bytes
            await self.hold(chain_id, lease)

    async def _apply(self, layer: Descriptor, diff_id: Digest | None, mount: Mount) -> AppliedLayer:
        blob = self._content.open(layer.digest)
        try:
            directory = os.open(
                _directory(mount), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
            )
            try:
                return await self._workers.apply(blob, layer.media_type, directory, diff_id)
            except (InvalidArgument, DataLoss, ResourceExhausted) as error:
                # The worker knows the entry, and not which layer it is in.
                raise type(error)(f"unpack layer {layer.digest.short}: {error}") from error
            finally:
                os.close(directory)
        finally:
            os.close(blob)

    @asynccontextmanager
    async def _active(self, key: str, lease: str) -> AsyncIterator[tuple[str, Mount]]:
        """An active snapshot without parent, which is gone again when the block fails."""
        mount: Mount | None = None
        try:
            mount = await self._snapshotter.prepare(key, None, lease=lease)
            yield key, mount
        except BaseException as error:
            if isinstance(error, ResourceExhausted) and mount is not None:
                # On a full disk even the removal of a row wants space: give some back first.
                await finish(asyncio.to_thread(_empty, _directory(mount)))
            await finish(self._remove(key))
            raise

    async def _remove(self, key: str) -> None:
        try:
            await self._snapshotter.remove(key)
        except NotFound:
            return  # it became the committed one, or never was
        except SampanError as error:
            # What went wrong first is what the caller has to hear; the collector tries again.
            _log.warning("remove snapshot %s: %s", key, error)


def _empty(directory: str) -> None:
    """Remove everything below a directory that is ours alone."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for name in os.listdir(fd):
            trees.remove(fd, name)
    finally:
        os.close(fd)


def _directory(mount: Mount) -> str:
    """Where the files of an active snapshot without parent go."""
    if mount["type"] == "bind":
        return mount["source"]
    return mount["upper"]
