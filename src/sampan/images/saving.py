"""Save: images as one archive that every engine reads.

Blobs go in as they are, so the digests stay and nothing is packed again. The documents come first:
`oci-layout` and `index.json` for readers of layouts, `manifest.json` for those of docker's format.
Blobs follow, sorted; times are zero, so the same images are the same bytes.

An image whose index is here with everything that it names is saved as that index. Of one that was
pulled for one platform only that platform's manifest is saved; where several are asked for, the
index goes with them, and what they do not need stays out.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sampan.errors import InvalidArgument, NotFound
from sampan.layers import header, tarwriter
from sampan.spec import archives
from sampan.store import blobs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from sampan.images.model import Content
    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor
    from sampan.spec.reference import Reference
    from sampan.store.content import ContentStore
    from sampan.store.database import Connection, Database

_PIECE: Final = 1 << 20


class ArchiveFormat(StrEnum):
    """What the archive has besides the blobs."""

    DOCKER = "docker-archive"  # and the OCI layout's documents too, as docker's own has
    OCI = "oci-archive"


@dataclass(slots=True)
class Saved:
    """One image that is to be saved."""

    content: Content
    target: Descriptor
    names: list[Reference] = field(default_factory=list)
    only: tuple[Digest, ...] = ()
    """The manifests of an index that go with it; none means everything below it."""


class Saver:
    """One archive."""

    def __init__(
        self, db: Database, content: ContentStore, kind: ArchiveFormat = ArchiveFormat.DOCKER
    ) -> None:
        self._db = db
        self._content = content
        self._kind = kind

    def whole(self, target: Descriptor, content: Content) -> Saved:
        """All that `target` leads to; only its image `content`, where the rest is not here."""
        _, is_here = self._needs(target.digest)
        return Saved(content, target if is_here else content.manifest_descriptor)

    def part(self, target: Descriptor, images: Sequence[Content]) -> Saved:
        """Some of the images that `target` leads to."""
        only = tuple(dict.fromkeys(one.manifest_descriptor.digest for one in images))
        if len(only) == 1:
            return Saved(images[0], images[0].manifest_descriptor)
        return Saved(images[0], target, only=only)

    async def write(self, images: list[Saved]) -> AsyncIterator[bytes]:
        """The bytes of the archive.

        Raises:
            NotFound: a blob of an image is not here. Said before the first byte.
        """
        sizes = self._check(images)
        for name, content in self._documents(images):
            yield tarwriter.header(name.encode(), header.REGULAR, mode=0o644, size=len(content))
            yield content + tarwriter.padding(len(content))
        for directory in _directories(sizes):
            yield tarwriter.header(directory, header.DIRECTORY, mode=0o755)
        for digest in sorted(sizes):
            async for piece in self._blob(digest, sizes[digest]):
                yield piece
        yield tarwriter.END

    def _documents(self, images: list[Saved]) -> Iterable[tuple[str, bytes]]:
        yield archives.LAYOUT, archives.LAYOUT_CONTENT
        entries = [(image.target, image.names) for image in images]
        yield archives.INDEX, archives.index_document(entries)
        if self._kind is ArchiveFormat.DOCKER:
            manifests = [(image.content.manifest, image.names) for image in images]
            yield archives.MANIFEST, archives.docker_document(manifests)
            yield archives.REPOSITORIES, archives.repositories_document(manifests)

    def _check(self, images: list[Saved]) -> dict[Digest, int]:
        """All blobs and their sizes."""
        found: dict[Digest, int] = {}
        for image in images:
            sizes, whole = self._needs(*(image.only or (image.target.digest,)))
            if image.only:
                sizes[image.target.digest] = image.target.size
            if not whole:
                missing = next(digest for digest, size in sizes.items() if size < 0)
                raise NotFound(f"save {image.content.id.short}: the blob {missing} is not here")
            found.update(sizes)
        return found

    def _needs(self, *tops: Digest) -> tuple[dict[Digest, int], bool]:
        """Every blob below some others with its size, -1 where it is not here; and whether all
        are."""

        def look(conn: Connection) -> dict[Digest, int]:
            needed = {digest for top in tops for digest in blobs.below(conn, top)}
            rows = {digest: blobs.find(conn, digest) for digest in needed}
            return {digest: -1 if row is None else row.size for digest, row in rows.items()}

        sizes = self._db.read_now(look)
        return sizes, all(size >= 0 for size in sizes.values())

    async def _blob(self, digest: Digest, size: int) -> AsyncIterator[bytes]:
        name = archives.blob_path(digest).encode()
        yield tarwriter.header(name, header.REGULAR, mode=0o644, size=size)
        fd = self._content.open(digest)
        try:
            done = 0
            while done < size:
                piece = await asyncio.to_thread(os.pread, fd, _PIECE, done)
                if not piece:
                    raise InvalidArgument(f"save: the blob {digest} is shorter than it should be")
                done += len(piece)
                yield piece
        finally:
            os.close(fd)
        if padding := tarwriter.padding(size):
            yield padding


def _directories(sizes: dict[Digest, int]) -> list[bytes]:
    algorithms = sorted({digest.algorithm for digest in sizes})
    return [b"blobs/", *(f"blobs/{algorithm}/".encode() for algorithm in algorithms)]
