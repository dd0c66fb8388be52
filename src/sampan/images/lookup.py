"""What a name, an id or its beginning means here, and the picture of an image that it leads to."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from sampan.errors import DataLoss, InvalidArgument, NotFound
from sampan.images import catalog
from sampan.images.documents import Documents
from sampan.images.model import Content, Image
from sampan.spec.digest import chain_ids
from sampan.store import images as store_images

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sampan.images.catalog import Name
    from sampan.snapshots.base import Snapshotter
    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor
    from sampan.spec.platform import Platform
    from sampan.store.content import ContentStore
    from sampan.store.database import Connection, Database

_log = logging.getLogger(__name__)


class Lookup:
    """Finds images of one store, and remembers what never changes of them."""

    def __init__(
        self, db: Database, content: ContentStore, snapshotter: Snapshotter, platform: Platform
    ) -> None:
        self._db = db
        self._snapshotter = snapshotter
        self._sizes: dict[Digest, int] = {}
        self._names: tuple[object, Sequence[Name]] = (None, ())
        self._ids: tuple[Sequence[Name], dict[str, Digest | None]] = ((), {})
        self.documents = Documents(content, platform)

    def names(self) -> Sequence[Name]:
        """All names of the store."""
        return self._db.read_now(self._read_names)

    def _read_names(self, conn: Connection) -> Sequence[Name]:
        """What was read before, while it is true: every start of a container asks."""
        version = store_images.version(conn)
        if version != self._names[0]:
            self._names = version, catalog.names(conn)
        return self._names[1]

    def names_of(self, target: Descriptor) -> Sequence[Name]:
        """The names that lead to a target."""
        return [name for name in self.names() if name.target.digest == target.digest]

    async def is_named(self, name: Name, image_id: Digest) -> bool:
        """Whether a name leads to the image of an id."""
        content = self.documents.known(name.target.digest) or await self.readable(name)
        return content is not None and content.id == image_id

    async def readable(self, name: Name) -> Content | None:
        """The content of a name; None when it is damaged, which must not hide the other images."""
        try:
            return await self.documents.content(name.target)
        except (DataLoss, InvalidArgument, NotFound) as error:
            _log.warning("read image %s: %s", name.reference, error)
            return None

    async def find(
        self, ref: str, platform: Platform | None
    ) -> tuple[Content, Sequence[Name], Descriptor]:
        """The content of an image, all its names, and its target.

        Raises:
            ImageNotFound: there is none, or it is not here for `platform`.
            InvalidArgument: the beginning of an id is ambiguous.
        """
        every = self.names()
        found = catalog.find(every, ref)
        if found is not None:
            content = await self.documents.content(found.target, platform)
            return (
                content,
                [n for n in every if await self.is_named(n, content.id)] or [found],
                found.target,
            )
        contents = {name: await self.readable(name) for name in every}
        image_id = catalog.find_id((c.id for c in contents.values() if c), ref)
        for name, image in contents.items():
            if image is not None and image.id == image_id:
                return image, [n for n in every if await self.is_named(n, image.id)], name.target
        raise catalog.no_such_image(ref)

    async def ids(self, refs: Iterable[str]) -> Mapping[str, Digest | None]:
        """Reference -> the id of the image that it leads to now, None where it leads to none.

        Lists of containers ask for the same few again and again: they are kept while no name moves.
        """
        every = self.names()
        if every is not self._ids[0]:
            self._ids = every, {}
        known = self._ids[1]
        for ref in set(refs) - known.keys():
            try:
                known[ref] = (await self.find(ref, None))[0].id
            except (DataLoss, InvalidArgument, NotFound):
                known[ref] = None
        return known

    async def all(self) -> Sequence[Image]:
        """Every image that can be read, newest first."""
        by_id: dict[Digest, tuple[Content, dict[Name, None]]] = {}
        for name in self.names():
            content = await self.readable(name)
            if content is None:
                continue
            by_id.setdefault(content.id, (content, {}))[1][name] = None
        found = [await self.image(content, names) for content, names in by_id.values()]
        return sorted(found, key=lambda image: image.created, reverse=True)

    async def image(self, content: Content, names: Iterable[Name]) -> Image:
        """The picture of an image with these names."""
        names = list(names)
        chain = chain_ids(content.config.rootfs_diff_ids)
        sizes = await self.layer_sizes(content.config.rootfs_diff_ids)
        return Image(
            id=content.id,
            names=tuple(name.reference.familiar() for name in names if name.tagged),
            digests=tuple(sorted({name.at_digest() for name in names})),
            config=content.config,
            created=content.config.created or "",
            size=sum(sizes),
            chain_id=chain[-1] if chain else "",
            layers=content.manifest.layers,
            target=names[0].target if names else content.manifest_descriptor,
            annotations=content.manifest.annotations,
        )

    async def layer_sizes(self, diff_ids: tuple[Digest, ...]) -> Sequence[int]:
        """What each layer takes on disk, in bytes."""
        return [await self._layer_size(chain_id) for chain_id in chain_ids(diff_ids)]

    async def _layer_size(self, chain_id: Digest) -> int:
        """Bytes on disk, remembered: a committed snapshot does not change."""
        if chain_id not in self._sizes:
            try:
                self._sizes[chain_id] = (await self._snapshotter.usage(chain_id)).size
            except NotFound:
                return 0  # lost in a power failure, until it is unpacked again
        return self._sizes[chain_id]

    async def shared_sizes(self, images: Iterable[Image]) -> dict[str, int]:
        """Image id -> bytes of its layers that another of the images has too."""
        chains = {image.id: chain_ids(image.config.rootfs_diff_ids) for image in images}
        owners = Counter(chain for chain_of in chains.values() for chain in set(chain_of))
        return {
            str(image_id): sum([await self._layer_size(one) for one in chain if owners[one] > 1])
            for image_id, chain in chains.items()
        }
