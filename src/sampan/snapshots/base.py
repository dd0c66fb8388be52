"""The seam between file system states and those who use them.

A *snapshot* is a state of a file system. It has a key, perhaps a parent, and a kind: *active* can
be written, *committed* never changes and may be a parent, a *view* reads a committed one. `prepare`
makes an active one above a committed parent (or above nothing), `commit` turns it into a committed
one under a new name; image layers are named by their chain id.

`Mount` is the one word that travels on, as JSON, to the shim: how to mount a snapshot. A
snapshotter mounts nothing itself.

Layers may be filled in any order: prepare each without a parent, and give `commit` the parent when
the layers below are committed. An overlay's layers do not depend on each other's bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NotRequired, Protocol, TypedDict

from sampan.store.snapshots import Kind, SnapshotRow

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BindMount",
    "Ids",
    "Kind",
    "Mount",
    "OverlayMount",
    "SnapshotRow",
    "Snapshotter",
    "Usage",
    "mapped",
]


class Ids(TypedDict):
    """How a user namespace numbers users and groups: mappings as in the OCI's config.json."""

    uids: list[dict[str, int]]
    gids: list[dict[str, int]]


class OverlayMount(TypedDict):
    """Directories to stack; `lowers` topmost first. Without `upper` and `work` it is read-only."""

    type: Literal["overlay"]
    lowers: list[str]
    upper: NotRequired[str]
    work: NotRequired[str]
    userxattr: NotRequired[bool]  # its marks are attributes of users, as in a user namespace
    ids: NotRequired[Ids]


class BindMount(TypedDict):
    """One directory as it is. `parent` is the directory of the whole tree that it began as, where
    it is not an overlay that would know."""

    type: Literal["bind"]
    source: str
    read_only: NotRequired[bool]
    parent: NotRequired[str]
    ids: NotRequired[Ids]


Mount = OverlayMount | BindMount


def mapped(
    mount: Mount, uids: list[dict[str, int]], gids: list[dict[str, int]] | None = None
) -> Mount:
    """`mount` as a user namespace with these mappings sees it, without a chown.

    The mappings are those of `linux.uidMappings` (containerID, hostID, size); groups are numbered
    like users where `gids` is not given. On the disk everything keeps the image's ids, also what
    the container writes. The launch fails with the reason where the kernel (overlay: before 5.19)
    or the file system below cannot do it.
    """
    ids: Ids = {"uids": uids, "gids": uids if gids is None else gids}
    if mount["type"] == "overlay":
        return {**mount, "ids": ids}
    return {**mount, "ids": ids}


@dataclass(frozen=True, slots=True)
class Usage:
    """What a snapshot itself takes on disk, without its parents: as du counts, links once."""

    size: int  # bytes
    inodes: int


class Snapshotter(Protocol):
    """What every snapshotter does. `lease` keeps the result until something else names it."""

    async def prepare(self, key: str, parent: str | None, *, lease: str | None = None) -> Mount:
        """Make the active snapshot `key` above the committed `parent`.

        Raises:
            AlreadyExists: the key is taken.
            NotFound: there is no such parent.
        """
        ...

    async def view(self, key: str, parent: str, *, lease: str | None = None) -> Mount:
        """Make the read-only snapshot `key` of the committed `parent`. Raises as `prepare`."""
        ...

    async def commit(
        self, name: str, key: str, *, parent: str | None = None, lease: str | None = None
    ) -> None:
        """Turn the active snapshot `key` into the committed snapshot `name`.

        `parent` gives one to a snapshot that was prepared without.

        Raises:
            AlreadyExists: `name` is committed already; the active one is still there.
            NotFound: no such key, or no such parent.
        """
        ...

    async def remove(self, key: str) -> None:
        """Remove a snapshot; its files are gone from sight at once, from the disk a bit later.

        Raises:
            NotFound: no such key.
            Conflict: a container uses it or another snapshot has it as its parent.
        """
        ...

    def mounts(self, key: str) -> Mount:
        """How to mount the active or view snapshot `key`. Raises NotFound."""
        ...

    async def usage(self, key: str) -> Usage:
        """What `key` takes on disk. Raises NotFound."""
        ...

    def walk(self) -> Sequence[SnapshotRow]:
        """All snapshots, parents before children."""
        ...
