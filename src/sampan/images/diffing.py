"""What a container changed: as a list, and as a layer in the content store.

The tree is read by a locked-up worker (`layers.diff`); its bytes come back through a pipe and go
into the content store like those of a download, hashed on the way and under a lease. A snapshot
whose container runs is read as it is: who wants one moment of it freezes the container meanwhile.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from sampan.ids import new_id
from sampan.images.failures import finish, one_error
from sampan.images.pipes import FromWorker
from sampan.layers.compression import Compression
from sampan.spec import mediatypes
from sampan.spec.image import Descriptor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence

    from sampan.layers.applied import AppliedLayer
    from sampan.layers.workers import LayerWorkers
    from sampan.snapshots.base import Mount
    from sampan.spec.digest import Digest
    from sampan.store.content import ContentStore

_MEDIA_TYPES: Final = {
    Compression.NONE: mediatypes.OCI_LAYER,
    Compression.GZIP: mediatypes.OCI_LAYER_GZIP,
    Compression.ZSTD: mediatypes.OCI_LAYER_ZSTD,
}


class ChangeKind(IntEnum):
    """As the Docker API numbers them."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


_KINDS: Final = {"C": ChangeKind.MODIFIED, "A": ChangeKind.ADDED, "D": ChangeKind.DELETED}


@dataclass(frozen=True, slots=True)
class Change:
    """One path, absolute in the container; bytes that are not UTF-8 are escaped as surrogates."""

    path: str
    kind: ChangeKind


@dataclass(frozen=True, slots=True)
class CommittedLayer:
    """A layer whose blob is in the content store. `size` is that of the tar, in bytes."""

    descriptor: Descriptor
    diff_id: Digest
    size: int = 0


class Differ:
    """Reads snapshots of one store."""

    def __init__(self, content: ContentStore, workers: LayerWorkers) -> None:
        self._content = content
        self._workers = workers

    async def changes(self, mount: Mount) -> list[Change]:
        """What the writable directory of `mount` changes below it, sorted by path.

        Raises:
            LayerError: it is beyond the bounds of a layer.
        """
        with (
            one_error("list changes"),
            _directory(mount) as tree,
            FromWorker() as pipe,
        ):
            work = self._workers.changes(
                pipe.writer, tree, _lowers(mount), overlay="parent" not in mount
            )
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(_read_all(pipe))
                tasks.create_task(pipe.fill(work))
        return [_change(record) for record in reading.result().split(b"\0") if record]

    async def commit(
        self,
        mount: Mount,
        *,
        lease: str,
        compression: Compression = Compression.GZIP,
        newest: int | None = None,
        without: Sequence[str] = (),
    ) -> CommittedLayer:
        """Make a layer of the writable directory of `mount`.

        Args:
            mount: of an active snapshot; it stays as it is.
            lease: what keeps the blob until an image does.
            compression: of the blob. The diff id does not depend on it.
            newest: seconds since 1970; files changed later get this time.
            without: paths that are left out where they are empty, without a slash in front.

        Raises:
            LayerError: it has what no layer can say, or is beyond the bounds.
            Conflict: a file became shorter while it was read.
            ResourceExhausted: the disk is full.
        """
        with (
            one_error("commit layer"),
            _directory(mount) as tree,
            _parent(mount) as lower,
            FromWorker() as pipe,
        ):
            work = self._workers.diff(
                pipe.writer,
                tree,
                lower,
                overlay=lower < 0,
                compression=compression,
                newest=newest,
                root=_root(mount),
                without=without,
            )
            return await self._committed(work, pipe, lease, compression)

    async def commit_written(
        self, write: Callable[[int], Coroutine[Any, Any, AppliedLayer]], *, lease: str
    ) -> CommittedLayer:
        """Make a layer of what `write` writes to the descriptor that it gets: gzip.

        Raises as `commit`.
        """
        with one_error("commit layer"), FromWorker() as pipe:
            return await self._committed(write(pipe.writer), pipe, lease, Compression.GZIP)

    async def _committed(
        self,
        work: Coroutine[Any, Any, AppliedLayer],
        pipe: FromWorker,
        lease: str,
        compression: Compression,
    ) -> CommittedLayer:
        """Run `work`, and store what comes out of the pipe."""
        async with asyncio.TaskGroup() as tasks:
            storing = tasks.create_task(self._store(pipe, lease))
            making = tasks.create_task(pipe.fill(work))
        made, stored = making.result(), storing.result()
        descriptor = Descriptor(_MEDIA_TYPES[compression], *stored)
        return CommittedLayer(descriptor, made.diff_id, made.size)

    async def export(self, lowers: Sequence[str]) -> AsyncIterator[bytes]:
        """The tar of the directories of layers, topmost first, as one file system.

        Raises:
            LayerError: it has what no tar can say.
        """
        with FromWorker() as pipe:
            work = asyncio.ensure_future(pipe.fill(self._workers.export(pipe.writer, lowers)))
            try:
                async for piece in pipe:
                    yield piece
                await work
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    async def _store(self, pipe: FromWorker, lease: str) -> tuple[Digest, int]:
        """Put what comes out of the pipe into the content store: digest and size."""
        writer = await self._content.writer(f"commit {new_id()}", lease=lease)
        try:
            async for piece in pipe:
                await writer.write(piece)
            size = writer.offset
            return await finish(writer.commit(size)), size
        except BaseException:
            await finish(writer.abort())
            raise


async def _read_all(pipe: FromWorker) -> bytes:
    return b"".join([piece async for piece in pipe])


def _change(record: bytes) -> Change:
    return Change(os.fsdecode(record[1:]), _KINDS[chr(record[0])])


@contextmanager
def _directory(mount: Mount) -> Iterator[int]:
    """The writable directory of a mount."""
    path = mount["source"] if mount["type"] == "bind" else mount["upper"]
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _parent(mount: Mount) -> Iterator[int]:
    """The whole tree that the directory of a mount began as; -1 where an overlay knows."""
    if mount["type"] == "overlay" or "parent" not in mount:
        yield -1
        return
    fd = os.open(mount["parent"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


def _lowers(mount: Mount) -> Sequence[str]:
    """The directories below the writable one, topmost first."""
    if mount["type"] == "overlay":
        return mount["lowers"]
    return [mount["parent"]] if "parent" in mount else []


def _root(mount: Mount) -> tuple[int, int, int] | None:
    """Mode, owner and group that the root has without this layer."""
    lowers = _lowers(mount)
    if not lowers:
        return None
    status = os.stat(lowers[0])
    return status.st_mode, status.st_uid, status.st_gid
