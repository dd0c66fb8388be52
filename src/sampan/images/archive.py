"""An archive of images that a worker took apart: files by the names they had.

Nothing here is trusted: a blob's digest is computed from its bytes, by us, before it goes into the
content store, and a document is read up to its bound.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Final

from sampan.errors import DigestMismatch, InvalidArgument
from sampan.images.pipes import ToWorker
from sampan.layers.limits import LIST, MAX_LAYER_SIZE, MAX_LIST
from sampan.spec.archives import blob_path
from sampan.store.locks import KeyedLocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sampan.layers.workers import LayerWorkers
    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor
    from sampan.store.content import ContentStore

_MAX_HOPS: Final = 8


class Archive:
    """One archive. Its directory belongs to `ContentStore.staging`."""

    def __init__(self, content: ContentStore, directory: str) -> None:
        self._content = content
        self._directory = directory
        self._files: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        self._digests: dict[int, Digest] = {}
        self._locks = KeyedLocks()  # one image may have one layer several times

    @classmethod
    async def read(
        cls,
        source: AsyncIterator[bytes],
        directory: str,
        content: ContentStore,
        workers: LayerWorkers,
    ) -> Archive:
        """Take apart what `source` gives, compressed or not, into `directory`.

        Raises:
            LayerError: it is no archive of images.
            ResourceExhausted: the disk is full.
        """
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with ToWorker() as pipe:
                work = workers.split(pipe.reader, fd, limit=MAX_LAYER_SIZE)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(pipe.drain(work))
                    tasks.create_task(pipe.feed(source))
        finally:
            os.close(fd)
        archive = cls(content, directory)
        await asyncio.to_thread(archive._read_list)
        return archive

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return self._find(name) is not None

    def document(self, name: str, limit: int) -> bytes:
        """The content of a small file.

        Raises:
            InvalidArgument: it is not there, or too large.
        """
        number, size = self._need(name)
        if size > limit:
            raise InvalidArgument(f"archive: {name[:160]!r} has {size} bytes, at most {limit}")
        with open(self._path(number), "rb") as file:
            return file.read(limit)

    async def digest(self, name: str, algorithm: str = "sha256") -> tuple[Digest, int]:
        """Digest and size of a file.

        Raises:
            InvalidArgument: it is not there.
        """
        number, size = self._need(name)
        known = self._digests.get(number)
        if known is None or known.algorithm != algorithm:
            known, size = await self._content.digest_of(self._path(number), algorithm)
            self._digests[number] = known
        return known, size

    async def give(self, blob: Descriptor, lease: str, name: str = "") -> None:
        """Put a blob into the content store under the lease, unless it is there already.

        Raises:
            InvalidArgument: neither the archive nor the store has it, or its size is another.
            DigestMismatch: its bytes are others.
        """
        async with self._locks.hold(blob.digest):
            if not await self._content.hold(blob.digest, lease):
                await self._adopt(blob, lease, name)

    async def _adopt(self, blob: Descriptor, lease: str, name: str) -> None:
        name = name or blob_path(blob.digest)
        actual, size = await self.digest(name, blob.digest.algorithm)
        if actual != blob.digest:
            raise DigestMismatch(f"archive: {name[:160]!r} has the digest {actual}")
        if size != blob.size:
            raise InvalidArgument(
                f"archive: {name[:160]!r} has {size} bytes, {blob.size} were announced"
            )
        await self._content.adopt(self._path(self._need(name)[0]), actual, size, lease=lease)

    def start(self, name: str, count: int) -> bytes:
        """The first bytes of a file. Raises InvalidArgument when it is not there."""
        with open(self._path(self._need(name)[0]), "rb") as file:
            return file.read(count)

    def _read_list(self) -> None:
        with open(os.path.join(self._directory, LIST), "rb") as file:
            lines = file.read(MAX_LIST).split(b"\n")
        for line in filter(None, lines):
            name, where, *size = json.loads(line)
            if size:
                self._files[name] = (where, size[0])
            else:
                self._links[name] = where

    def _find(self, name: str) -> tuple[int, int] | None:
        for _ in range(_MAX_HOPS):
            if name not in self._links:
                return self._files.get(name)
            name = self._links[name]
        return None

    def _need(self, name: str) -> tuple[int, int]:
        found = self._find(name.removeprefix("./"))
        if found is None:
            raise InvalidArgument(f"archive: {name[:160]!r} is not in it")
        return found

    def _path(self, number: int) -> str:
        return os.path.join(self._directory, str(int(number)))
