"""The `.git` directory of `ADD --keep-git-dir`: what makes a repository of the files beside it.

It is put together from a bare clone: the objects, the index that belongs to the commit, a detached
HEAD, and a configuration of our own words. No hook, no attribute file and no setting of the clone
comes along, and no password of the URL.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from sampan.layers import header, tarwriter

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = b".git/"
_CONFIG: Final = """\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = false
[remote "origin"]
\turl = {}
\tfetch = +refs/heads/*:refs/remotes/origin/*
"""
_USER: Final = re.compile(r"(?<=://)[^/@]*@")
_PIECE: Final = 1 << 20


def pieces(clone: str, commit: str, url: str, mtime: int) -> Iterator[bytes]:
    """The entries of a tar, for the bare repository `clone` at `commit`."""
    for name in ("", "objects/", "refs/", "refs/heads/"):
        yield tarwriter.header(ROOT + name.encode(), header.DIRECTORY, mode=0o755, mtime=mtime)
    config = _CONFIG.format(_USER.sub("", url).replace("\\", "\\\\").replace('"', '\\"'))
    for name, text in (("HEAD", f"{commit}\n"), ("config", config)):
        yield _head(name, len(text.encode()), mtime)
        yield text.encode() + tarwriter.padding(len(text.encode()))
    for name in ("index", "shallow"):
        yield from _file(clone, name, mtime)
    for folder, inner, names in os.walk(os.path.join(clone, "objects")):
        inner.sort()
        below = os.path.relpath(folder, clone)
        if below != "objects":
            yield tarwriter.header(
                ROOT + os.fsencode(below) + b"/", header.DIRECTORY, mode=0o755, mtime=mtime
            )
        for name in sorted(names):
            yield from _file(clone, os.path.join(below, name), mtime)


def _head(name: str, size: int, mtime: int) -> bytes:
    raw = ROOT + os.fsencode(name)
    return tarwriter.header(raw, header.REGULAR, mode=0o644, mtime=mtime, size=size)


def _file(clone: str, name: str, mtime: int) -> Iterator[bytes]:
    """A file of the clone, when it is there."""
    try:
        file = open(os.path.join(clone, name), "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return
    with file:
        left = os.fstat(file.fileno()).st_size
        size = left
        yield _head(name, size, mtime)
        while left and (piece := file.read(min(left, _PIECE))):
            left -= len(piece)
            yield piece
        yield tarwriter.padding(size)
