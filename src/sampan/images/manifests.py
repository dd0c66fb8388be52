"""What an image's index has: its manifests, which of them are here, and what they take.

An image whose target is a manifest has that one. A manifest that attests something (BuildKit puts
them beside the images) is known by two annotations of its descriptor; its layers are in-toto
statements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sampan.errors import ImageNotFound, NotFound
from sampan.spec import mediatypes
from sampan.spec.image import MAX_CONFIG, MAX_MANIFEST, Descriptor, ImageConfig, Index, Manifest
from sampan.spec.platform import Platform, match_order
from sampan.store import blobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.images.lookup import Lookup
    from sampan.spec.digest import Digest
    from sampan.store.content import ContentStore
    from sampan.store.database import Connection, Database

_KIND: Final = "vnd.docker.reference.type"
_SUBJECT: Final = "vnd.docker.reference.digest"
_ATTESTATION: Final = "attestation-manifest"
_PREDICATE: Final = "in-toto.io/predicate-type"
MAX_STATEMENT: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestState:
    """One manifest of an image. `content` and `unpacked` are the bytes that are here.

    `image_id` and `platform` are an image's, `subject` is what an attestation is about.
    """

    descriptor: Descriptor
    is_available: bool
    content: int
    unpacked: int = 0
    image_id: Digest | None = None
    platform: Platform | None = None
    subject: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One in-toto statement about an image."""

    descriptor: Descriptor
    predicate_type: str


class Manifests:
    """Reads the manifests of one store."""

    def __init__(self, db: Database, content: ContentStore, lookup: Lookup) -> None:
        self._db = db
        self._content = content
        self._lookup = lookup

    async def target(self, ref: str) -> Descriptor:
        """What a name leads to; another name of the same image may lead to another index.

        Raises:
            ImageNotFound: there is no such image.
        """
        _, _, target = await self._lookup.find(ref, None)
        return target

    async def of(self, target: Descriptor) -> Sequence[ManifestState]:
        """Every manifest below `target`, in the index's order. Raises DataLoss."""
        return [await self._state(entry) for entry in self._entries(target)]

    def statements(self, target: Descriptor, platform: Platform) -> Sequence[Statement]:
        """The statements about the image for `platform`.

        Raises:
            ImageNotFound: there is no image for it.
        """
        entries = self._entries(target)
        order = match_order(platform)
        images = [one for one in entries if one.platform in order]
        if not images and mediatypes.is_manifest(target.media_type):
            images = [*entries]
        if not images:
            raise ImageNotFound(f"no image of {target.digest} is for {platform}")
        chosen = min(images, key=lambda one: order.index(one.platform) if one.platform else 0)
        found: list[Statement] = []
        for entry in entries:
            if entry.annotations.get(_SUBJECT) == chosen.digest and _attests(entry):
                found += self._layers(entry)
        return found

    def read(self, statement: Statement) -> bytes:
        """The words of a statement. Raises NotFound."""
        return self._content.read(statement.descriptor.digest, MAX_STATEMENT)

    def _entries(self, target: Descriptor) -> Sequence[Descriptor]:
        if not mediatypes.is_index(target.media_type):
            return [target]
        content = self._content.read(target.digest, MAX_MANIFEST)
        return Index.parse(content, target.media_type).manifests

    def _layers(self, entry: Descriptor) -> list[Statement]:
        manifest = self._manifest(entry)
        if manifest is None:
            return []
        return [
            Statement(descriptor=layer, predicate_type=layer.annotations.get(_PREDICATE, ""))
            for layer in manifest.layers
        ]

    def _manifest(self, entry: Descriptor) -> Manifest | None:
        """The manifest, where it is here and one that we understand."""
        if not mediatypes.is_manifest(entry.media_type) or not self._content.has(entry.digest):
            return None
        return Manifest.parse(self._content.read(entry.digest, MAX_MANIFEST), entry.media_type)

    async def _state(self, entry: Descriptor) -> ManifestState:
        manifest = self._manifest(entry)
        if manifest is None:
            subject = entry.annotations.get(_SUBJECT, "") if _attests(entry) else ""
            return ManifestState(
                descriptor=entry,
                is_available=False,
                content=0,
                platform=None if subject else entry.platform,
                subject=subject,
            )
        sizes = self._sizes(entry.digest, manifest)
        is_whole = all(size >= 0 for size in sizes)
        content = sum(size for size in sizes if size > 0)
        if _attests(entry):
            return ManifestState(
                descriptor=entry,
                is_available=is_whole,
                content=content,
                subject=entry.annotations.get(_SUBJECT, ""),
            )
        config = self._config(manifest)
        layers = await self._lookup.layer_sizes(config.rootfs_diff_ids) if config else ()
        return ManifestState(
            descriptor=entry,
            is_available=is_whole,
            content=content,
            unpacked=sum(layers),
            image_id=manifest.config.digest,
            platform=entry.platform or (config.platform if config else None),
        )

    def _sizes(self, digest: Digest, manifest: Manifest) -> list[int]:
        """What each blob of a manifest takes, -1 for one that is not here."""
        wanted = [digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)]

        def look(conn: Connection) -> list[int]:
            rows = [blobs.find(conn, one) for one in dict.fromkeys(wanted)]
            return [-1 if row is None else row.size for row in rows]

        return self._db.read_now(look)

    def _config(self, manifest: Manifest) -> ImageConfig | None:
        descriptor = manifest.config
        try:
            content = self._content.read(descriptor.digest, MAX_CONFIG)
        except NotFound:
            return None
        return ImageConfig.parse(content, descriptor.media_type)


def _attests(entry: Descriptor) -> bool:
    return entry.annotations.get(_KIND) == _ATTESTATION
