"""A directory that was sent before: what of it has changed since, and its index without the rest.

A client sends a manifest first: for each file its path, what `stat` says of it, and the target of a
link, each ended by NUL. A regular file whose facts are those of the last time (size, times, inode)
is not sent again: its bytes are in the file that the last build kept. The facts are the client's
word about its own files, and nobody else's files are found by them.

    stored   marshal: (inode of the data, {path: (facts, digest, place in the data)})
"""

from __future__ import annotations

import hashlib
import marshal
import os
import stat
from typing import TYPE_CHECKING, Any, Final

from sampan.builder.files import index, nodes
from sampan.builder.files.nodes import Node
from sampan.errors import InvalidArgument
from sampan.layers import tree

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_MANIFEST: Final = 256 << 20
_EMPTY: Final = hashlib.sha256().digest()
_KINDS: Final = {
    stat.S_IFREG: nodes.FILE,
    stat.S_IFDIR: nodes.DIRECTORY,
    stat.S_IFLNK: nodes.LINK,
    stat.S_IFIFO: nodes.FIFO,
    stat.S_IFCHR: nodes.CHARACTER,
    stat.S_IFBLK: nodes.BLOCK,
}
_FIELDS: Final = 7  # mode uid gid size mtime rdev identity

Stored = dict[bytes, tuple[bytes, bytes, int]]


def records(manifest: int) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(path, facts, link) of each file of a manifest.

    Raises:
        InvalidArgument: it is malformed, or too large.
    """
    size = os.fstat(manifest).st_size
    if size > MAX_MANIFEST:
        raise InvalidArgument(f"read manifest: larger than {MAX_MANIFEST} bytes")
    fields = index.read_all(manifest, size).split(b"\0")
    if len(fields) % 3 != 1 or fields[-1]:
        raise InvalidArgument("read manifest: it is malformed")
    if len(fields) // 3 > index.MAX_ENTRIES:
        raise InvalidArgument(f"read manifest: more than {index.MAX_ENTRIES} entries")
    for at in range(0, len(fields) - 1, 3):
        yield fields[at], fields[at + 1], fields[at + 2]


def load(fd: int, inode: int) -> Stored:
    """What was stored beside the data file `inode`; nothing when it is of another one."""
    try:
        found: tuple[int, Stored] = marshal.loads(  # noqa: S302 - in a locked-up process
            index.read_all(fd, os.fstat(fd).st_size)
        )
    except (EOFError, ValueError, TypeError):
        return {}
    return found[1] if found[0] == inode else {}


def missing(manifest: int, stored: Stored) -> tuple[list[int], int]:
    """The numbers of the files whose bytes are wanted, and how many bytes are here of the rest."""
    wanted: list[int] = []
    here = 0
    for number, (path, facts, _) in enumerate(records(manifest)):
        node = _node(path, facts, b"")
        if node.kind != nodes.FILE or not node.size:
            continue
        known = stored.get(path)
        if known is None or known[0] != facts:
            wanted.append(number)
        else:
            here += node.size
    return wanted, here


def merge(
    manifest: int, stored: Stored, incoming: dict[bytes, Node]
) -> tuple[dict[bytes, Node], Stored]:
    """The index of a directory, and what to store of it.

    Raises:
        InvalidArgument: a file was not sent that should have been, or a path is bad.
    """
    found: dict[bytes, Node] = {b"": Node(nodes.DIRECTORY)}
    kept: Stored = {}
    for path, facts, link in records(manifest):
        node = _node(path, facts, link)
        _make_parents(found, path)
        if node.kind == nodes.FILE and node.size:
            sent = incoming.get(path)
            known = stored.get(path)
            if sent is not None and sent.kind == nodes.FILE and sent.size == node.size:
                node = node._replace(digest=sent.digest, data=sent.data)
            elif known is not None and known[0] == facts:
                node = node._replace(digest=known[1], data=known[2])
            else:
                raise InvalidArgument(
                    f"receive context: {path.decode('utf-8', 'replace')[:200]} changed meanwhile"
                )
            kept[path] = (facts, node.digest, node.data)
        found[path] = node
    return found, kept


def store(inode: int, kept: Stored, fd: int) -> None:
    """Write what the next time needs."""
    nodes.write_all(fd, marshal.dumps((inode, kept)))


def _node(path: bytes, facts: bytes, link: bytes) -> Node:
    parts = tree.split(path)
    fields = facts.split(b" ")
    if b"/".join(parts) != path or not parts or len(fields) != _FIELDS:
        raise InvalidArgument(f"read manifest: bad entry {path.decode('utf-8', 'replace')[:200]!r}")
    try:
        mode, uid, gid, size, mtime, rdev = (int(field) for field in fields[:6])
    except ValueError:
        raise InvalidArgument("read manifest: a number is malformed") from None
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is None:
        raise InvalidArgument("read manifest: a file of an unknown kind")
    more: dict[str, Any] = {"digest": _EMPTY} if kind == nodes.FILE else {}
    size = size if kind == nodes.FILE else 0
    return Node(kind, stat.S_IMODE(mode), uid, gid, size, mtime, link, rdev, **more)


def _make_parents(found: dict[bytes, Node], path: bytes) -> None:
    parent = path.rpartition(b"/")[0]
    node = found.get(parent)
    if node is not None and node.kind == nodes.DIRECTORY:
        return
    if node is not None:
        raise InvalidArgument("read manifest: a file is in something that is no directory")
    _make_parents(found, parent)
    found[parent] = Node(nodes.DIRECTORY)
