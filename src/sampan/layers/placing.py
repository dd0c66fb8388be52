"""A tar archive into a tree that lives: what `cp` to a container does.

The same creator as for layers (`layers.apply`), with docker's rules for `cp` in place of those for
layers: names that begin with `.wh.` are ordinary names, the entry "." changes nothing, a directory
that is there is kept and dressed anew, and with `keep_kinds` neither a directory takes the place of
something else nor something else that of a directory. The archive's names are below one directory
of the root; links on the way are followed inside of the root.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from sampan.layers import header
from sampan.layers.apply import Extractor
from sampan.layers.feed import Feed
from sampan.layers.inflate import open_stream
from sampan.layers.limits import LayerError, show
from sampan.layers.tarstream import TarStream
from sampan.layers.tree import split

if TYPE_CHECKING:
    from sampan.layers.header import Entry


class Placer(Extractor):
    """Creates an archive's entries below the directory `below` of the tree `root`."""

    def __init__(
        self, root: int, below: bytes, *, keep_kinds: bool, owner: tuple[int, int] | None
    ) -> None:
        super().__init__(root, (), keep_root=True)
        self._below = below
        self._keep_kinds = keep_kinds
        self._owner = owner

    def create(self, stream: TarStream, entry: Entry) -> None:
        """Create one entry of the archive."""
        parts = split(entry.name)
        if not parts:
            return
        if entry.kind == header.HARD_LINK:
            entry.link = b"/".join([self._below, *split(entry.link)])
        entry.name = b"/".join([self._below, *parts])
        if self._owner is not None:
            entry.uid, entry.gid = self._owner
        directory, name = entry.name.rpartition(b"/")[0], parts[-1]
        if self._keep_kinds:
            self._check_kind(entry, directory, name)
        self.place(stream, entry, directory, name)

    def _check_kind(self, entry: Entry, directory: bytes, name: bytes) -> None:
        parent, _ = self._tree.parent(directory)
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        is_there, is_new = stat.S_ISDIR(status.st_mode), entry.kind == header.DIRECTORY
        if is_there and not is_new:
            what = f"cannot overwrite directory {show(entry.name)} with non-directory"
            raise LayerError(f"{what} {show(self._below)}")
        if is_new and not is_there:
            what = f"cannot overwrite non-directory {show(entry.name)} with directory"
            raise LayerError(f"{what} {show(self._below)}")


def place(
    archive: int, root: int, below: bytes, *, keep_kinds: bool, owner: tuple[int, int] | None
) -> None:
    """Unpack the regular file `archive` below the directory `below` of `root`.

    Args:
        archive: a tar, compressed or not, read by position from its start.
        root: a directory descriptor; `below` is a path in it without a leading slash.
        keep_kinds: refuse to put a directory in the place of a file, and the reverse.
        owner: user and group of everything that is made; None keeps the archive's.

    Raises:
        LayerError: the archive is malformed, or an entry cannot be made.
        ResourceExhausted: the file system is full.
    """
    unpack(archive, Placer(root, below, keep_kinds=keep_kinds, owner=owner))


def unpack(archive: int, placer: Placer) -> None:
    """Let `placer` create what is in the regular file `archive`; raises as `place`."""
    _check(archive)
    feed = Feed(open_stream(archive))
    umask = os.umask(0)
    try:
        placer.run(TarStream(feed.next_chunk))
    finally:
        os.umask(umask)
        feed.close()


def _check(archive: int) -> None:
    """Read the whole archive once: one that is damaged or climbs out changes nothing."""
    feed = Feed(open_stream(archive))
    try:
        stream = TarStream(feed.next_chunk)
        while (entry := stream.next()) is not None:
            split(entry.name)
            if entry.kind == header.HARD_LINK:
                split(entry.link)
    finally:
        feed.close()
