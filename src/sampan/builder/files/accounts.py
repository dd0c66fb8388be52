"""`--chown`: users and groups, by number or as the image's own files name them.

`user`, `user:group`, `uid:gid`. Without a group, a user by name or number that is in the image's
passwd has its group from there, another number has itself as group, as dockerd has it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sampan.builder.files import nodes
from sampan.builder.files.nodes import resolve
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sampan.builder.files.nodes import Source

MAX_FILE: Final = 4 << 20
MAX_ID: Final = 0x7FFFFFFF
_NUMBER: Final = re.compile(r"[0-9]{1,10}", re.ASCII)


def owner(text: str, passwd: bytes, group: bytes) -> tuple[int, int]:
    """The uid and gid of `text`.

    Raises:
        InvalidArgument: no such user or group, or a number out of range.
    """
    user, colon, wanted = text.partition(":")
    if colon and not wanted:
        colon = ""
    found = _user(user, passwd)
    uid = found[0]
    gid = _group(wanted, group) if colon else found[1]
    return uid, gid


def _user(text: str, passwd: bytes) -> tuple[int, int]:
    if not text:
        return 0, 0
    number = _number(text)
    for row in _rows(passwd, 4):
        ids = _number(row[2]), _number(row[3])
        if ids[0] is None or ids[1] is None:
            continue
        if row[0] == text or ids[0] == number:
            return ids[0], ids[1]
    if number is None:
        raise InvalidArgument(
            f"unable to convert uid/gid chown string to host mapping: can't find uid for user "
            f"{text[:80]}: no such user: {text[:80]}"
        )
    return number, number


def _group(text: str, group: bytes) -> int:
    number = _number(text)
    for row in _rows(group, 3):
        gid = _number(row[2])
        if gid is not None and row[0] == text:
            return gid
    if number is None:
        raise InvalidArgument(
            f"unable to convert uid/gid chown string to host mapping: can't find gid for group "
            f"{text[:80]}: no such group: {text[:80]}"
        )
    return number


def _number(text: str) -> int | None:
    if _NUMBER.fullmatch(text) is None:
        return None
    value = int(text)
    if value > MAX_ID:
        raise InvalidArgument(f"the uid or gid {text} is out of range")
    return value


def _rows(content: bytes, fields: int) -> Iterator[list[str]]:
    for line in content.decode("utf-8", "replace").split("\n"):
        row = line.strip().split(":")
        if len(row) >= fields:
            yield row


def file_of(source: Source, path: bytes, read: Callable[[bytes, nodes.Node], bytes]) -> bytes:
    """A small regular file of an image, b"" when it is not there.

    Raises:
        InvalidArgument: it is no regular file, or too large.
    """
    reached, node = resolve(source, path)
    if node is None:
        return b""
    if node.kind != nodes.FILE or node.size > MAX_FILE:
        raise InvalidArgument(f"read /{path.decode()}: it is no regular file, or too large")
    return read(reached, node)
