"""Names taken away, and the images that nobody names or uses any more.

Removing takes names away; blobs and snapshots follow when the collector finds that nothing needs
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import Conflict
from sampan.images import catalog
from sampan.images import filters as filtering
from sampan.images.model import Pruned, Removed
from sampan.store import blobs, images

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from sampan.images.catalog import Name
    from sampan.images.filters import Filters
    from sampan.images.lookup import Lookup
    from sampan.images.model import Image
    from sampan.spec.digest import Digest
    from sampan.spec.platform import Platform
    from sampan.store.database import Connection, Database


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUser:
    """A container that was made of an image. `image` is the image's id."""

    container: str
    image: str
    running: bool


class Remover:
    """Removes images of one store."""

    def __init__(
        self,
        db: Database,
        lookup: Lookup,
        collect: Callable[[], Awaitable[object]],
        users: Callable[[], Iterable[ImageUser]],
    ) -> None:
        self._db = db
        self._lookup = lookup
        self._collect = collect
        self._users = users

    async def remove(
        self, ref: str, *, force: bool = False, platforms: Sequence[Platform] = ()
    ) -> Sequence[Removed]:
        """Take a name away; with its last tag the image goes too. An id takes every name.

        Where `platforms` are given, only these go; the names stay, and a pull brings them back.

        Raises:
            ImageNotFound: there is no such image, or not for one of the platforms.
            Conflict: a container uses it, or an id has several names, and `force` is not given;
            or a running container uses it; or no platform would be left.
        """
        if platforms:
            return await self._remove_platforms(ref, platforms, force=force)
        damaged = catalog.find(self._lookup.names(), ref)
        if damaged is not None and await self._lookup.readable(damaged) is None:
            return await self._untag([damaged])
        content, names, target = await self._lookup.find(ref, None)
        chosen = self._chosen(ref, names)
        if any(name.tagged for name in names if name not in chosen):
            return await self._untag(chosen)
        if len({n.reference.name for n in chosen if n.tagged}) > 1 and not force:
            raise Conflict(
                f"conflict: unable to delete {content.id.short} (must be forced) - "
                "image is referenced in multiple repositories"
            )
        self._check_unused(content.id, ref, force=force)
        removed = await self._untag(names)
        self._lookup.documents.forget(target.digest)
        await self._collect()
        return [*removed, Removed(deleted=content.id)]

    async def _remove_platforms(
        self, ref: str, platforms: Sequence[Platform], *, force: bool
    ) -> Sequence[Removed]:
        _, _, target = await self._lookup.find(ref, None)
        documents = self._lookup.documents
        gone: set[Digest] = set()
        for platform in platforms:
            content = await documents.content(target, platform)
            self._check_unused(content.id, ref, force=force)
            gone.add(content.manifest_descriptor.digest)
        if not documents.images_here(target) - gone:
            raise Conflict(f"conflict: {ref} would be left without any platform: remove the image")

        def forget(conn: Connection) -> None:
            for index in blobs.below(conn, target.digest):
                blobs.unlink(conn, index, gone)

        await self._db.write(forget)
        documents.forget(target.digest)
        await self._collect()
        return [Removed(deleted=digest) for digest in sorted(gone)]

    async def prune(self, images: Sequence[Image], filters: Filters | None = None) -> Pruned:
        """Remove those of `images` that no container uses: the ones without a tag, or all with
        dangling=false.

        Raises:
            InvalidArgument: an unknown filter, or a value that is none.
        """
        every = not filtering.flag(filters, "dangling", default=True)
        used = {user.image for user in self._users()}
        removed: tuple[Removed, ...] = ()
        reclaimed = 0
        for image in images:
            if image.id in used or (image.names and not every):
                continue
            names = [
                name for name in self._lookup.names() if await self._lookup.is_named(name, image.id)
            ]
            removed = (*removed, *await self._untag(names), Removed(deleted=image.id))
            reclaimed += image.size
            for name in names:
                self._lookup.documents.forget(name.target.digest)
        await self._collect()
        return Pruned(removed=removed, reclaimed=reclaimed)

    def _chosen(self, ref: str, names: Sequence[Name]) -> Sequence[Name]:
        """The names that `ref` means: itself when it is a tag, else all of them."""
        found = catalog.find(names, ref)
        return [found] if found is not None and found.tagged else names

    async def _untag(self, names: Iterable[Name]) -> Sequence[Removed]:
        gone = list(names)

        def delete(conn: Connection) -> None:
            for name in gone:
                images.delete(conn, str(name.reference))

        await self._db.write(delete)
        return [Removed(untagged=name.reference.familiar()) for name in gone]

    def _check_unused(self, image_id: Digest, ref: str, *, force: bool) -> None:
        for user in self._users():
            if user.image != image_id:
                continue
            if user.running:
                raise Conflict(
                    f"conflict: unable to delete {image_id.short} (cannot be forced) - "
                    f"image is being used by running container {user.container[:12]}"
                )
            if not force:
                raise Conflict(
                    f'conflict: unable to remove repository reference "{ref}" (must force) - '
                    f"container {user.container[:12]} is using its referenced image "
                    f"{image_id.short}"
                )
