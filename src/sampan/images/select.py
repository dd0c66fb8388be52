"""From a descriptor to the manifest for one platform.

An index may hold further indexes. The walk reads each digest once, goes four levels deep and reads
at most sixteen indexes, so that a small hostile index cannot make us fetch a large graph. What fits
a platform, and what fits better, is `match_order`'s say; entries without a platform come last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sampan.errors import ImageNotFound, InvalidArgument
from sampan.spec import mediatypes
from sampan.spec.image import MAX_DESCRIPTORS, Descriptor, Index, Manifest
from sampan.spec.platform import Platform, match_order

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sampan.spec.digest import Digest

    Read = Callable[[Descriptor], Awaitable[bytes]]

MAX_DEPTH: Final = 4
MAX_INDEXES: Final = 16


@dataclass(slots=True)
class Selection:
    """The manifest that was chosen, and the indexes on the way with what they name."""

    descriptor: Descriptor
    manifest: Manifest
    indexes: dict[Digest, Index] = field(default_factory=dict)


async def select(read: Read, target: Descriptor, platform: Platform) -> Selection:
    """The manifest for `platform` below `target`. `read` gives verified content.

    Raises:
        ImageNotFound: no manifest fits the platform.
        InvalidArgument: a document is wrong, or the graph is too large.
    """
    if mediatypes.is_manifest(target.media_type):
        return Selection(target, Manifest.parse(await read(target), target.media_type))
    walk = _Walk(read, match_order(platform))
    await walk.index(target, 1)
    if walk.best is None:
        raise ImageNotFound(f"no matching manifest for {platform} in the manifest list entries")
    manifest = Manifest.parse(await read(walk.best), walk.best.media_type)
    return Selection(walk.best, manifest, walk.indexes)


class _Walk:
    """Finds the best entry, index by index."""

    def __init__(self, read: Read, order: list[Platform]) -> None:
        self._read = read
        self._ranks = {platform: rank for rank, platform in enumerate(order)}
        self._visited: set[Digest] = set()
        self._rank = len(order) + 1
        self.best: Descriptor | None = None
        self.indexes: dict[Digest, Index] = {}

    async def index(self, descriptor: Descriptor, depth: int) -> None:
        """Look at the entries of one index, then at the indexes in it while nothing fits well."""
        if depth > MAX_DEPTH:
            raise InvalidArgument(f"index {descriptor.digest}: nested more than {MAX_DEPTH} deep")
        if len(self.indexes) == MAX_INDEXES:
            raise InvalidArgument(f"index {descriptor.digest}: more than {MAX_INDEXES} indexes")
        index = Index.parse(await self._read(descriptor), descriptor.media_type)
        self.indexes[descriptor.digest] = index
        nested = [entry for entry in index.manifests if self._visit(entry)]
        for entry in nested:
            if self._rank > 0:
                await self.index(entry, depth + 1)

    def _visit(self, entry: Descriptor) -> bool:
        """Weigh one entry; whether it is an index that is still to be read."""
        if entry.digest in self._visited or entry.digest in self.indexes:
            return False
        self._visited.add(entry.digest)
        if len(self._visited) > MAX_DESCRIPTORS:
            raise InvalidArgument(f"index: more than {MAX_DESCRIPTORS} entries")
        rank = self._rank_of(entry)
        if mediatypes.is_manifest(entry.media_type) and rank < self._rank:
            self.best, self._rank = entry, rank
        return mediatypes.is_index(entry.media_type) and rank < self._rank

    def _rank_of(self, entry: Descriptor) -> int:
        if entry.platform is None:
            return len(self._ranks)
        return self._ranks.get(entry.platform, len(self._ranks) + 1)
