"""The index of a tar: what it has in it, and where, without unpacking it.

A build's context arrives as a tar. Reading it once gives each file's place and the hash of its
content; copying takes the bytes from there. Nothing of a context is ever a file on the disk, so no
name, link or device in it can mean anything to the host.

An entry that comes later replaces an earlier one of its name. Names with `..` are refused; a link
of the archive on the way to an entry is followed, inside of the archive.
"""

from __future__ import annotations

import hashlib
import marshal
import os
from typing import TYPE_CHECKING, Any, Final

from sampan.builder.files import nodes
from sampan.builder.files.nodes import Node, join, resolve, write_all
from sampan.layers import header, tree
from sampan.layers.compression import Compression, detect
from sampan.layers.inflate import open_stream
from sampan.layers.limits import LayerError, show
from sampan.layers.tarstream import TarStream

if TYPE_CHECKING:
    from sampan.layers.header import Entry
    from sampan.layers.inflate import Stream

MAX_ENTRIES: Final = 500_000
MAX_CONTEXT: Final = 1 << 38
_CHUNK: Final = 1 << 20
_KINDS: Final = {
    header.REGULAR: nodes.FILE,
    header.DIRECTORY: nodes.DIRECTORY,
    header.SYMLINK: nodes.LINK,
    header.FIFO: nodes.FIFO,
    header.CHARACTER: nodes.CHARACTER,
    header.BLOCK_DEVICE: nodes.BLOCK,
}


def is_archive(head: bytes) -> bool:
    """Whether content that begins so is an archive that ADD unpacks: compressed, or a tar."""
    if detect(head[:6]) is not Compression.NONE:
        return True
    return len(head) >= header.BLOCK and header.checksum_holds(head[: header.BLOCK])


def read(
    source: int, plain: int, *, hashed: bool = True, start: int | None = None
) -> dict[bytes, Node]:
    """The index of the archive in the file `source`.

    When it is compressed, its plain bytes go to the file `plain`, and the places in the index are
    places there. `start` is where it begins, when it is not compressed.

    Raises:
        LayerError: it is no tar, or malformed, or beyond a bound.
    """
    kind = detect(os.pread(source, 6, 0)) if start is None else Compression.NONE
    feed = _Feed(
        _Plain(source, start)
        if start is not None
        else open_stream(source, kind, limit=MAX_CONTEXT),
        plain if kind is not Compression.NONE else -1,
    )
    stream = TarStream(feed.next_chunk)
    reader = _Reader(stream, start or 0, hashed=hashed)
    while (entry := stream.next()) is not None:
        reader.add(entry)
    return reader.found


def is_compressed(source: int) -> bool:
    """Whether `read` writes to its second file."""
    return detect(os.pread(source, 6, 0)) is not Compression.NONE


def store(found: dict[bytes, Node], fd: int) -> str:
    """Write an index to a file; its hash."""
    content = marshal.dumps([(path, *node) for path, node in found.items()])
    write_all(fd, content)
    return hashlib.sha256(content).hexdigest()


def load(fd: int) -> dict[bytes, Node]:
    """Read an index back; only in a process that has locked itself up."""
    size = os.fstat(fd).st_size
    rows: list[tuple[Any, ...]] = marshal.loads(read_all(fd, size))  # noqa: S302 - see above
    return {row[0]: Node(*row[1:]) for row in rows}


def read_all(fd: int, size: int) -> bytes:
    """The first `size` bytes of a file."""
    content = bytearray()
    while len(content) < size and (piece := os.pread(fd, size - len(content), len(content))):
        content += piece
    return bytes(content)


class _Plain:
    """A file from some place on."""

    def __init__(self, fd: int, at: int) -> None:
        self._fd = fd
        self._at = at

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer, or a part of it; 0 at the end."""
        count = os.preadv(self._fd, [buffer], self._at)
        self._at += count
        return count


class _Feed:
    """The plain bytes of an archive as chunks, copied aside when they were compressed."""

    def __init__(self, stream: Stream | _Plain, aside: int) -> None:
        self._stream = stream
        self._buffer = bytearray(_CHUNK)
        self._aside = aside

    def next_chunk(self) -> memoryview:
        """The next bytes, empty at the end."""
        view = memoryview(self._buffer)
        count = 0
        while count < _CHUNK and (step := self._stream.readinto(view[count:])):
            count += step
        if self._aside >= 0:
            write_all(self._aside, view[:count])
        return view[:count]


class _Reader:
    """Collects entries."""

    def __init__(self, stream: TarStream, start: int, *, hashed: bool) -> None:
        self.found: dict[bytes, Node] = {b"": Node(nodes.DIRECTORY)}
        self._stream = stream
        self._start = start
        self._hashed = hashed
        self._directories: dict[bytes, bytes] = {b"": b""}

    def node(self, path: bytes) -> Node | None:
        """What is at a canonical path so far; for `resolve`."""
        return self.found.get(path)

    def add(self, entry: Entry) -> None:
        """One entry, and the directories above it."""
        parts = tree.split(entry.name)
        if len(self.found) > MAX_ENTRIES:
            raise LayerError(f"read archive: more than {MAX_ENTRIES} entries")
        if not parts:
            return
        path = join(self._directory(b"/".join(parts[:-1])), parts[-1])
        if entry.kind == header.HARD_LINK:
            self._put(path, self._linked(entry))
        else:
            self._put(path, self._node(entry))

    def _directory(self, path: bytes) -> bytes:
        """The canonical path of a directory, which is there afterwards."""
        known = self._directories.get(path)
        if known is None:
            known = resolve(self, path)[0]
            self._make(known.split(b"/") if known else [])
            self._directories[path] = known
        return known

    def _make(self, parts: list[bytes]) -> None:
        for count in range(len(parts), 0, -1):
            path = b"/".join(parts[:count])
            node = self.found.get(path)
            if node is not None and node.kind == nodes.DIRECTORY:
                return
            self.found[path] = Node(nodes.DIRECTORY)

    def _put(self, path: bytes, node: Node) -> None:
        before = self.found.pop(path, None)
        if before is not None and nodes.FILE not in (before.kind, node.kind):
            self._directories = {b"": b""}
        if before is not None and before.kind == nodes.DIRECTORY != node.kind:
            inside = path + b"/"
            for below in [name for name in self.found if name.startswith(inside)]:
                del self.found[below]
        self.found[path] = node

    def _linked(self, entry: Entry) -> Node:
        """A second name of a file: the same data."""
        path = resolve(self, b"/".join(tree.split(entry.link)), follow=False)[0]
        node = self.found.get(path)
        if node is None or node.kind == nodes.DIRECTORY:
            raise LayerError(
                f"read archive: {show(entry.name)} is a link to {show(entry.link)}, "
                "which is not in the archive before it"
            )
        if node.kind == nodes.FILE and node.same is None:
            node = node._replace(same=(0, node.data))
            self.found[path] = node
        return node

    def _node(self, entry: Entry) -> Node:
        data = self._start + self._stream.offset
        digest = b""
        if entry.kind == header.REGULAR and self._hashed:
            hasher = hashlib.sha256()
            if entry.extents is not None:
                hasher.update(repr((entry.size, entry.extents)).encode())
            for piece in self._stream.pieces(entry.stored):
                hasher.update(piece)
            digest = hasher.digest()
        return Node(
            kind=_KINDS[entry.kind],
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            size=entry.size,
            mtime=entry.mtime,
            link=entry.link if entry.kind == header.SYMLINK else b"",
            rdev=os.makedev(entry.major, entry.minor),
            digest=digest,
            data=data,
            extents=None if entry.extents is None else tuple(entry.extents),
            xattrs=entry.xattrs,
        )
