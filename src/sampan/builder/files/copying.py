"""One COPY, ADD or WORKDIR as a request, carried out below a root.

The request is JSON that the engine wrote, because lists of files outgrow a message. `trees` says
what the sources are, in order: "archive" (an index and the file it points into) or "tree" (a
directory). `parts` are the words for one source each. Two scratch files come along: an archive that
ADD unpacks is first a file of its own there, then perhaps inflated.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from sampan.builder.files import accounts, index, nodes
from sampan.builder.files.modes import Mode
from sampan.builder.files.nodes import Archive, Directory, Node, write_all
from sampan.builder.files.place import Manner, Placer
from sampan.builder.files.select import Pick, Wish, ignore_of, select
from sampan.builder.language.ignore import Ignore
from sampan.layers import header
from sampan.layers.inflate import open_stream
from sampan.layers.limits import LayerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.builder.files.nodes import Source

_NOTHING: Final = Ignore([])


def run(request: dict[str, Any], root: int, sources: list[Source], scratch: list[int]) -> Placer:
    """Do what `request` says; the placer tells how much it was.

    Raises:
        InvalidArgument: a source is missing, or a target is something else.
        LayerError: an archive is malformed or hostile.
    """
    placer = Placer(root, _manner(request, root, scratch))
    target = request["target"].encode("utf-8", "surrogateescape")
    try:
        if not request["parts"]:
            placer.directory(target)
        for part in request["parts"]:
            _part(placer, part, sources[part["source"]], target, scratch)
    finally:
        placer.close()
    return placer


def _manner(request: dict[str, Any], root: int, scratch: list[int]) -> Manner:
    mode = Mode(request["chmod"]) if request["chmod"] else None
    if request["chown"]:
        uid, gid = _owner(request["chown"], root, scratch)
        return Manner(uid, gid, mode, chosen=True)
    if request["keep"]:
        return Manner(None, None, mode)
    return Manner(0, 0, mode)


def _owner(text: str, root: int, scratch: list[int]) -> tuple[int, int]:
    tree = Directory(root)

    def read(path: bytes, node: Node) -> bytes:
        os.ftruncate(scratch[0], 0)
        os.lseek(scratch[0], 0, os.SEEK_SET)
        tree.data(path, node, scratch[0])
        return os.pread(scratch[0], accounts.MAX_FILE, 0)

    try:
        passwd = accounts.file_of(tree, b"etc/passwd", read)
        return accounts.owner(text, passwd, accounts.file_of(tree, b"etc/group", read))
    finally:
        tree.close()


def _part(
    placer: Placer, part: dict[str, Any], source: Source, target: bytes, scratch: list[int]
) -> None:
    wish = Wish(**part["wish"])
    ignore = ignore_of(wish)
    for pick in select(source, wish):
        if part["unpack"] is not False and pick.node.kind == nodes.FILE:
            archive = _as_archive(source, pick, scratch, sure=part["unpack"])
            if archive is not None:
                everything = Pick(b"", Node(nodes.DIRECTORY), b"")
                with placer.keeping_owners():
                    placer.place(archive, everything, target, _NOTHING, into=True)
                continue
        placer.place(source, pick, target, ignore, into=wish.is_directory or wish.parents)


def _as_archive(
    source: Source, pick: Pick, scratch: list[int], *, sure: bool | None
) -> Archive | None:
    """The archive that a picked file is; None when it is none, which `sure` makes an error."""
    for fd in scratch:
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
    source.data(pick.path, pick.node, scratch[0])
    if not sure and not _begins_as_tar(scratch[0]):
        return None
    found = index.read(scratch[0], scratch[1], hashed=False)
    return Archive(scratch[1] if index.is_compressed(scratch[0]) else scratch[0], found)


def _begins_as_tar(fd: int) -> bool:
    head = bytearray(header.BLOCK)
    view = memoryview(head)
    try:
        stream = open_stream(fd)
        count = 0
        while count < len(head) and (step := stream.readinto(view[count:])):
            count += step
    except LayerError:
        return False
    return count == len(head) and head != bytes(header.BLOCK) and header.checksum_holds(bytes(head))


def inline(files: Sequence[tuple[str, bytes, int, int]], fd: int) -> dict[bytes, Node]:
    """Files that were never in an archive, as the index of one; their bytes go to `fd`.

    `files` are (name, content, mode, time in nanoseconds).
    """
    found: dict[bytes, Node] = {b"": Node(nodes.DIRECTORY)}
    offset = 0
    for name, content, mode, mtime in files:
        write_all(fd, content)
        size = len(content)
        found[name.encode()] = Node(nodes.FILE, mode, size=size, data=offset, mtime=mtime)
        offset += len(content)
    return found
