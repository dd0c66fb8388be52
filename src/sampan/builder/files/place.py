"""Writing what a COPY picked into a root that an image controls.

The target's path is resolved inside of the root, links followed as a program in the image would;
every file is then made by its name in an open directory, never through a link, and replaces what
has the name. A directory keeps what is in it. Directories that are made on the way are 0755 and
belong to whom the files will belong. Names of one file stay names of one file.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from sampan.builder.files import nodes
from sampan.builder.files.nodes import Directory, Node, join, resolve
from sampan.builder.files.select import walk
from sampan.errors import InvalidArgument
from sampan.layers import tree
from sampan.layers.apply import is_allowed_attribute
from sampan.layers.limits import show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.builder.files.modes import Mode
    from sampan.builder.files.nodes import Source
    from sampan.builder.files.select import Pick
    from sampan.builder.language.ignore import Ignore

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL: Final = {nodes.CHARACTER: stat.S_IFCHR, nodes.BLOCK: stat.S_IFBLK}


class Manner(NamedTuple):
    """How files are made. `uid` None keeps the owners of the source.

    `chosen`: somebody asked for these owners, which counts for what archives hold too.
    """

    uid: int | None = 0
    gid: int | None = 0
    mode: Mode | None = None
    chosen: bool = False


class Placer:
    """Writes below one root, whose descriptor stays the caller's."""

    def __init__(self, root: int, manner: Manner) -> None:
        self.entries = 0
        self.size = 0
        self._root = root
        self._manner = manner
        self._tree = tree.Tree(root, (), self._made)
        self._dated: dict[bytes, int] = {}
        self._first: dict[tuple[int, int], bytes] = {}

    def close(self) -> None:
        """Give directories their times and close what is open."""
        try:
            for path in sorted(self._dated, reverse=True):
                fd = os.open(b".", _READ, dir_fd=self._tree.descriptor(path))
                try:
                    os.utime(fd, ns=(self._dated[path], self._dated[path]))
                finally:
                    os.close(fd)
        finally:
            self._tree.close()

    @contextmanager
    def keeping_owners(self) -> Iterator[None]:
        """For the block, files keep the owners of their source, unless owners were asked for."""
        manner = self._manner
        if not manner.chosen:
            self._manner = manner._replace(uid=None, gid=None)
        try:
            yield
        finally:
            self._manner = manner

    def directory(self, path: bytes) -> bytes:
        """See to it that a directory is there; its canonical path.

        Raises:
            InvalidArgument: something else is there.
        """
        reached, node = self._resolve(path)
        if node is not None and node.kind != nodes.DIRECTORY:
            raise InvalidArgument(f"cannot copy into {_shown(reached)}: it is not a directory")
        return self._tree.parent(reached)[1]

    def place(
        self, source: Source, pick: Pick, target: bytes, ignore: Ignore, *, into: bool
    ) -> None:
        """Copy one pick. `into`: the target is a directory whatever it is now."""
        if pick.node.kind == nodes.DIRECTORY:
            self._directory_of(source, pick, target, ignore)
            return
        if not into:
            reached, node = self._resolve(target)
            if node is None or node.kind != nodes.DIRECTORY:
                above, _, name = reached.rpartition(b"/")
                self._tree.parent(above)
                self.put(source, pick.path, pick.node, above, name)
                return
            target = reached
        above, _, name = pick.name.rpartition(b"/")
        canonical = self.directory(join(target, above) if above else target)
        self.put(source, pick.path, pick.node, canonical, name)

    def _directory_of(self, source: Source, pick: Pick, target: bytes, ignore: Ignore) -> None:
        base = self.directory(join(target, pick.name) if pick.name else target)
        places = {b"": base}
        for path, below, node in walk(source, pick, ignore):
            above, _, name = below.rpartition(b"/")
            parent = places.get(above)
            if parent is None:  # its parent was excluded, an exception brought this back
                parent = places[above] = self.directory(join(base, above))
            if node.kind == nodes.DIRECTORY:
                places[below] = self._keep_directory(parent, name, node)
            else:
                self.put(source, path, node, parent, name)

    def _keep_directory(self, parent: bytes, name: bytes, node: Node) -> bytes:
        """Make or reuse one directory, and dress it as the source's."""
        path = join(parent, name)
        try:
            os.mkdir(name, 0o700, dir_fd=self._tree.descriptor(parent))
        except FileExistsError:
            there = os.stat(name, dir_fd=self._tree.descriptor(parent), follow_symlinks=False)
            if not stat.S_ISDIR(there.st_mode):
                return self.directory(path)
        self.entries += 1
        fd = os.open(b".", _READ, dir_fd=self._tree.descriptor(path))
        try:
            self._dress(fd, node)
        finally:
            os.close(fd)
        self._dated[path] = node.mtime
        return path

    def put(self, source: Source, path: bytes, node: Node, parent: bytes, name: bytes) -> None:
        """Make one file that is no directory as `name` in the canonical directory `parent`."""
        self._clear(parent, name)
        self.entries += 1
        if node.same is not None:
            first = self._first.setdefault(node.same, join(parent, name))
            if first != join(parent, name):
                self._link(first, parent, name)
                return
        above = self._tree.descriptor(parent)
        if node.kind != nodes.FILE:
            self._special(node, above, name)
            return
        fd = os.open(name, _CREATE, 0o600, dir_fd=above)
        try:
            source.data(path, node, fd)
            self._dress(fd, node)
            os.utime(fd, ns=(node.mtime, node.mtime))
        finally:
            os.close(fd)
        self.size += node.size

    def _link(self, first: bytes, parent: bytes, name: bytes) -> None:
        directory, _, old = first.rpartition(b"/")
        kept = os.dup(self._tree.descriptor(directory))
        try:
            os.link(
                old,
                name,
                src_dir_fd=kept,
                dst_dir_fd=self._tree.descriptor(parent),
                follow_symlinks=False,
            )
        finally:
            os.close(kept)

    def _special(self, node: Node, above: int, name: bytes) -> None:
        if node.kind == nodes.LINK:
            os.symlink(node.link, name, dir_fd=above)
        elif node.kind == nodes.FIFO:
            os.mkfifo(name, node.mode, dir_fd=above)
        else:
            os.mknod(name, _SPECIAL[node.kind] | node.mode, node.rdev, dir_fd=above)
        uid, gid = self._owner(node)
        os.chown(name, uid, gid, dir_fd=above, follow_symlinks=False)
        os.utime(name, ns=(node.mtime, node.mtime), dir_fd=above, follow_symlinks=False)

    def _clear(self, parent: bytes, name: bytes) -> None:
        above = self._tree.descriptor(parent)
        try:
            there = os.stat(name, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(there.st_mode):
            raise InvalidArgument(
                f"cannot replace the directory {_shown(join(parent, name))} with a file"
            )
        os.unlink(name, dir_fd=above)

    def _dress(self, fd: int, node: Node) -> None:
        """Owner, then mode (a change of owner clears bits of it), then attributes."""
        uid, gid = self._owner(node)
        os.fchown(fd, uid, gid)
        mode = node.mode
        if self._manner.mode is not None:
            mode = self._manner.mode.apply(mode, is_directory=node.kind == nodes.DIRECTORY)
        os.fchmod(fd, mode)
        for name, value in (node.xattrs or {}).items():
            if is_allowed_attribute(name):
                os.setxattr(fd, name, value)

    def _owner(self, node: Node) -> tuple[int, int]:
        manner = self._manner
        return (
            node.uid if manner.uid is None else manner.uid,
            node.gid if manner.gid is None else manner.gid,
        )

    def _made(self, path: bytes, made: int, below: int) -> None:
        """A directory on the way was made."""
        del path, below
        self.entries += 1
        uid, gid = self._manner.uid or 0, self._manner.gid or 0
        if uid or gid:
            fd = os.open(b".", _READ, dir_fd=made)
            try:
                os.fchown(fd, uid, gid)
            finally:
                os.close(fd)

    def _resolve(self, path: bytes) -> tuple[bytes, Node | None]:
        looking = Directory(self._root)
        try:
            return resolve(looking, path)
        finally:
            looking.close()


def _shown(path: bytes) -> str:
    return show(b"/" + path)
