"""One repository of one registry: what is asked of it in an operation.

Pulls go to the mirrors first, in their order, and then to the registry itself; the endpoint that
had the manifest is asked for the blobs too. Importing this imports aiohttp, which is as large as
all else of an engine's start, so `client.py` does it when a registry is asked for something.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sampan.errors import SampanError
from sampan.registry import fetch, listing, push, resolver, searching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sampan.registry.fetch import BlobWriter
    from sampan.registry.resolver import Resolved
    from sampan.registry.retry import Retry
    from sampan.registry.session import Session
    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor
    from sampan.spec.reference import Reference


class Repository:
    """One repository of one registry, for one operation."""

    def __init__(self, reference: Reference, sessions: list[Session], retry: Retry) -> None:
        self.reference = reference
        self._sessions = sessions
        self._chosen: Session | None = None
        self._retry = retry

    @property
    def _upstream(self) -> Session:
        return self._sessions[-1]

    async def resolve(self) -> Resolved:
        """What the registry has for the tag or digest of the reference; errors as `resolve`."""
        for session in self._sessions[:-1]:
            try:
                resolved = await resolver.resolve(session, self.reference)
            except SampanError:
                continue  # a mirror may lack anything; the registry itself has the last word
            self._chosen = session
            return resolved
        self._chosen = self._upstream
        return await self._retry.run(lambda: resolver.resolve(self._upstream, self.reference))

    async def resolve_tag(self, tag: str) -> Resolved:
        """What another tag of the same repository names, where this one was found.

        Raises:
            ImageNotFound: there is no such tag.
            Others: as `resolve`.
        """
        session = self._chosen or self._upstream
        other = replace(self.reference, tag=tag, digest=None)
        return await self._retry.run(lambda: resolver.resolve(session, other))

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """The verified content of a manifest or index; errors as `fetch_manifest`."""
        session = self._chosen or self._upstream
        try:
            return await self._retry.run(lambda: fetch.fetch_manifest(session, descriptor))
        except SampanError:
            if session is self._upstream:
                raise
        return await self._retry.run(lambda: fetch.fetch_manifest(self._upstream, descriptor))

    async def blob(
        self, descriptor: Descriptor, writer: BlobWriter, progress: Callable[[int], None]
    ) -> None:
        """Bring the missing bytes of a blob; errors as `fetch_blob`."""
        session = self._chosen or self._upstream
        try:
            await fetch.fetch_blob(session, descriptor, writer, progress, self._retry)
        except SampanError:
            if session is self._upstream:
                raise
            await fetch.fetch_blob(self._upstream, descriptor, writer, progress, self._retry)

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the registry itself has the blob."""
        return await self._retry.run(lambda: push.has_blob(self._upstream, descriptor))

    async def push_blob(
        self,
        descriptor: Descriptor,
        fd: int,
        progress: Callable[[int], None],
        mount_from: Iterable[str] = (),
    ) -> bool:
        """Send a blob, or have it mounted from another repository; whether it was sent.

        What a broken connection left in the registry is gone on with. Errors as `push_blob`.
        """
        for repository in mount_from:
            try:
                if await push.mount_blob(self._upstream, descriptor, repository):
                    return False
            except SampanError:
                break  # whoever may not mount may still be allowed to push
        upload = push.Upload(self._upstream, descriptor, fd, progress)
        await self._retry.run(upload.run)
        return True

    async def push_manifest(self, target: str, content: bytes, media_type: str) -> Digest:
        """Send a manifest under a tag or digest; errors as `push_manifest`."""
        return await self._retry.run(
            lambda: push.push_manifest(self._upstream, target, content, media_type)
        )

    async def tags(self) -> list[str]:
        """Every tag of the repository; errors as `listing.tags`."""
        return await self._retry.run(lambda: listing.tags(self._upstream))

    async def search(self, term: str, limit: int) -> list[searching.Found]:
        """What the registry has by a word; errors as `searching.search`."""
        return await self._retry.run(lambda: searching.search(self._upstream, term, limit))

    async def referrers(self, subject: Digest, artifact_type: str = "") -> list[Descriptor]:
        """The manifests that refer to `subject`; errors as `listing.referrers`."""
        session = self._chosen or self._upstream
        return await self._retry.run(lambda: listing.referrers(session, subject, artifact_type))
