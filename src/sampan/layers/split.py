"""An archive of images taken apart: each file of the tar becomes a numbered file.

What `docker save`, skopeo and others write is a tar of blobs and documents. Nothing in it is meant
to be a path here: the files are written as `0`, `1`, ... into one empty directory, and `list` says
which name each had and which names were links to others. Who reads the list decides by digests.

`list` has one JSON array for each line: `[name, number, size]` for a file, `[name, target]` for a
link, whose target is a name of the archive too.
"""

from __future__ import annotations

import json
import os
from typing import Final

from sampan.layers import header
from sampan.layers.feed import Feed
from sampan.layers.inflate import open_pipe
from sampan.layers.limits import LIST, MAX_ARCHIVE_FILES, LayerError, show
from sampan.layers.tarstream import TarStream
from sampan.layers.tree import split as split_name

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def split(source: int, destination: int, *, limit: int) -> tuple[int, int]:
    """Take the archive that comes through the pipe `source` apart; its files and their bytes.

    Raises:
        LayerError: it is no sound tar, has what no archive of images has, or is beyond a bound.
        OSError: the directory cannot be written.
    """
    feed = Feed(open_pipe(source, limit=limit), None)
    try:
        return _Splitter(TarStream(feed.next_chunk), destination).run()
    except MemoryError:
        raise LayerError("unpack archive: needs more memory than it may have") from None
    finally:
        feed.close()


class _Splitter:
    """Writes the files of one archive."""

    def __init__(self, stream: TarStream, directory: int) -> None:
        self._stream = stream
        self._directory = directory
        self._names: set[str] = set()
        self._lines: list[str] = []
        self._size = 0
        self._files = 0

    def run(self) -> tuple[int, int]:
        while (entry := self._stream.next()) is not None:
            self._take(entry)
        if not self._lines:
            raise LayerError("unpack archive: there is nothing in it")
        fd = os.open(LIST, _CREATE, 0o600, dir_fd=self._directory)
        with open(fd, "w", encoding="utf-8") as file:
            file.writelines(self._lines)
        return self._files, self._size

    def _take(self, entry: header.Entry) -> None:
        if entry.kind == header.DIRECTORY:
            return
        name = _name(entry.name)
        if name in self._names:
            raise LayerError(f"unpack archive: {show(entry.name)} is there twice")
        self._names.add(name)
        if len(self._names) > MAX_ARCHIVE_FILES:
            raise LayerError(f"unpack archive: more than {MAX_ARCHIVE_FILES} files")
        if entry.kind == header.REGULAR and not entry.extents:
            self._file(entry, name)
        elif entry.kind in (header.SYMLINK, header.HARD_LINK):
            target = _target(entry, name)
            self._lines.append(json.dumps([name, target]) + "\n")
        else:
            raise LayerError(f"unpack archive: {show(entry.name)} is neither a file nor a link")

    def _file(self, entry: header.Entry, name: str) -> None:
        fd = os.open(str(self._files), _CREATE, 0o600, dir_fd=self._directory)
        try:
            self._stream.write_to(fd, entry.size)
        finally:
            os.close(fd)
        self._lines.append(json.dumps([name, self._files, entry.size]) + "\n")
        self._files += 1
        self._size += entry.size


def _name(raw: bytes) -> str:
    """The name in one spelling.

    Raises:
        LayerError: it leaves the archive, or is no text.
    """
    try:
        return b"/".join(split_name(raw)).decode()
    except UnicodeDecodeError:
        raise LayerError(f"unpack archive: the name {show(raw)} is not UTF-8") from None


def _target(entry: header.Entry, name: str) -> str:
    """The name in the archive that a link means; a symbolic one starts beside itself."""
    parts = name.split("/")[:-1] if entry.kind == header.SYMLINK else []
    if entry.link.startswith(b"/"):
        raise LayerError(f"unpack archive: {show(entry.name)} links out of the archive")
    for part in entry.link.split(b"/"):
        if part == b"..":
            if not parts:
                raise LayerError(f"unpack archive: {show(entry.name)} links out of the archive")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(_name(part))
    return "/".join(parts)
