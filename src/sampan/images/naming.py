"""Names for content that came piece by piece, from a client that reads registries itself.

Such a client writes blobs and snapshots, and at the end asks for a name. Until then a lease keeps
what it wrote; from then on the documents do, so they are read here and what they need is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sampan.errors import AlreadyExists, FailedPrecondition, NotFound
from sampan.images.documents import links_of, top_snapshot
from sampan.spec import mediatypes
from sampan.spec.image import MAX_CONFIG, MAX_MANIFEST, ImageConfig, Index, Manifest
from sampan.store import blobs, images

if TYPE_CHECKING:
    from sampan.images.unpack import Unpacker
    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor
    from sampan.spec.reference import Reference
    from sampan.store.content import ContentStore
    from sampan.store.database import Connection, Database
    from sampan.store.images import ImageRow

MAX_DOCUMENTS: Final = 1000


class Namer:
    """The steps of such a client in one store: `content` takes blobs, `unpacker` unpacks them,
    `name` is the last."""

    def __init__(self, db: Database, content: ContentStore, unpacker: Unpacker) -> None:
        self._db = db
        self.content = self._content = content
        self.unpacker = unpacker

    async def name(self, reference: Reference, target: Descriptor, *, move: bool) -> None:
        """Make a name lead to `target`, whose blob is here; `move` one that leads elsewhere.

        Raises:
            AlreadyExists: the name is taken, and `move` is not given.
            NotFound: the name is not there, and `move` is given; or the target is not here.
            InvalidArgument: a document is malformed.
        """
        if not self._content.has(target.digest):
            raise NotFound(f"name image {reference}: content {target.digest} is not here")
        found = self._read(target)

        def write(conn: Connection) -> None:
            before = images.find(conn, str(reference))
            if before is not None and not move:
                raise AlreadyExists(f"image {reference} exists already")
            if before is None and move:
                raise NotFound(f"no such image: {reference}")
            for parent, (children, snapshots) in found.items():
                blobs.link(conn, parent, blobs=children, snapshots=snapshots)
            images.put(conn, str(reference), target)

        await self._db.write(write)

    async def unname(self, name: str) -> ImageRow:
        """Take a stored name away; what it led to. Raises ImageNotFound."""
        return await self._db.write(lambda conn: images.delete(conn, name))

    def _read(self, target: Descriptor) -> dict[Digest, tuple[tuple[Digest, ...], list[Digest]]]:
        """Each document that is here, with the blobs and snapshots that it keeps."""
        found: dict[Digest, tuple[tuple[Digest, ...], list[Digest]]] = {}
        waiting = [target]
        while waiting:
            descriptor = waiting.pop()
            if descriptor.digest in found or not self._content.has(descriptor.digest):
                continue
            if len(found) >= MAX_DOCUMENTS:
                raise FailedPrecondition(f"name image: more than {MAX_DOCUMENTS} documents")
            found[descriptor.digest] = self._document(descriptor, waiting)
        return found

    def _document(
        self, descriptor: Descriptor, waiting: list[Descriptor]
    ) -> tuple[tuple[Digest, ...], list[Digest]]:
        kind = descriptor.media_type
        if kind in (mediatypes.OCI_CONFIG, mediatypes.DOCKER_CONFIG):
            config = ImageConfig.parse(self._content.read(descriptor.digest, MAX_CONFIG), kind)
            top = top_snapshot(config)
            return (), [] if top is None else [top]
        document: Index | Manifest
        if mediatypes.is_index(kind):
            document = Index.parse(self._content.read(descriptor.digest, MAX_MANIFEST), kind)
            waiting += document.manifests
        elif mediatypes.is_manifest(kind):
            document = Manifest.parse(self._content.read(descriptor.digest, MAX_MANIFEST), kind)
            waiting.append(document.config)
        else:
            return (), []
        return links_of(document), []
