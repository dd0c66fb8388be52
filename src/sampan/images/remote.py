"""A repository at its registry, looked at without pulling: manifests, tags, referrers."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sampan.errors import DigestMismatch, InvalidArgument
from sampan.images.select import select
from sampan.spec import documents, mediatypes
from sampan.spec.digest import Digest, Digester
from sampan.spec.image import MAX_CONFIG, Descriptor, ImageConfig, Index, Manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.registry.repository import Repository
    from sampan.registry.searching import Found
    from sampan.spec.platform import Platform


@dataclass(frozen=True, slots=True)
class RemoteManifest:
    """A manifest or index as the registry has it, and the platforms that it is for."""

    descriptor: Descriptor
    content: bytes
    platforms: tuple[Platform, ...]


def _described(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}


class _Memory:
    """Where a small blob goes."""

    def __init__(self) -> None:
        self.offset = 0
        self.data = bytearray()

    async def write(self, data: bytes) -> None:
        self.data += data
        self.offset += len(data)


class Remote:
    """One repository of one registry."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def manifest(self) -> RemoteManifest:
        """What the reference names.

        Raises:
            ImageNotFound: the registry has nothing, or does not show it to this user.
        """
        resolved = await self._repository.resolve()
        content = resolved.content
        if content is None:
            content = await self._repository.manifest(resolved.descriptor)
        return RemoteManifest(
            resolved.descriptor, content, await self._platforms(resolved.descriptor, content)
        )

    async def targets(self, platform: Platform) -> list[Descriptor]:
        """What the reference names, and the manifest for a platform below it.

        Raises:
            ImageNotFound: the registry has nothing, or nothing for the platform.
        """
        resolved = await self._repository.resolve()
        selection = await select(self._repository.manifest, resolved.descriptor, platform)
        return [resolved.descriptor, selection.descriptor]

    async def tags(self) -> Sequence[str]:
        """Every tag of the repository."""
        return await self._repository.tags()

    async def search(self, term: str, limit: int) -> Sequence[Found]:
        """What the registry has by a word, whatever the repository."""
        return await self._repository.search(term, limit)

    async def referrers(self, artifact_type: str = "") -> tuple[Digest, Sequence[Descriptor]]:
        """What the reference names, and the manifests that refer to it."""
        resolved = await self._repository.resolve()
        digest = resolved.descriptor.digest
        return digest, await self._repository.referrers(digest, artifact_type)

    async def attach(self, artifact_type: str, content: bytes) -> Digest:
        """Push a document as a referrer of what the reference names; the referrer's digest.

        A registry without the referrers endpoint gets the index that stands in for it.

        Raises:
            PermissionDenied, Unauthenticated: the user may not push.
        """
        subject = (await self._repository.resolve()).descriptor
        config, layer = b"{}", content
        for blob in (config, layer):
            await self._blob(blob)
        text = documents.encode(
            {
                "schemaVersion": 2,
                "mediaType": mediatypes.OCI_MANIFEST,
                "artifactType": artifact_type,
                "config": _described(mediatypes.OCI_EMPTY, config),
                "layers": [_described(artifact_type, layer)],
                "subject": subject.document(),
            }
        )
        digest = Digest.of(text)
        await self._repository.push_manifest(str(digest), text, mediatypes.OCI_MANIFEST)
        known = await self._repository.referrers(subject.digest)
        if digest not in {entry.digest for entry in known}:
            await self._list_by_tag(subject.digest, [*known], artifact_type, text)
        return digest

    async def _blob(self, content: bytes) -> None:
        descriptor = Descriptor("application/octet-stream", Digest.of(content), len(content))
        if await self._repository.has_blob(descriptor):
            return
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            await self._repository.push_blob(descriptor, file.fileno(), lambda _: None)

    async def _list_by_tag(
        self, subject: Digest, known: list[Descriptor], artifact_type: str, content: bytes
    ) -> None:
        """Write the index of referrers below the tag that the specification gives it."""
        entries = [{**entry.document(), "artifactType": entry.artifact_type} for entry in known]
        entry = _described(mediatypes.OCI_MANIFEST, content)
        entries.append({**entry, "artifactType": artifact_type})
        text = documents.encode(
            {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": entries}
        )
        tag = f"{subject.algorithm}-{subject.hex}"
        await self._repository.push_manifest(tag, text, mediatypes.OCI_INDEX)

    async def _platforms(self, target: Descriptor, content: bytes) -> tuple[Platform, ...]:
        if mediatypes.is_index(target.media_type):
            index = Index.parse(content, target.media_type)
            return tuple(entry.platform for entry in index.manifests if entry.platform is not None)
        descriptor = Manifest.parse(content, target.media_type).config
        if descriptor.media_type not in mediatypes.CONFIGS:
            return ()
        if descriptor.size > MAX_CONFIG:
            raise InvalidArgument(f"image config: more than the limit of {MAX_CONFIG} bytes")
        memory = _Memory()
        await self._repository.blob(descriptor, memory, lambda _: None)
        digester = Digester(descriptor.digest.algorithm)
        digester.update(memory.data)
        if digester.digest() != descriptor.digest:
            raise DigestMismatch(f"verify image config: the digest is not {descriptor.digest}")
        config = ImageConfig.parse(bytes(memory.data), descriptor.media_type)
        return (config.platform,)
