"""A tar archive read once, front to back, from chunks that somebody else fills.

`TarStream.next` gives the entries in order, with GNU and PAX extended headers folded in;
`write_to` moves the data of the current entry straight from the chunk to a descriptor, without a
copy in between. The rules are Go's archive/tar, narrowed: an extended header belongs to exactly one
entry and is never repeated or mixed with the other dialect, its sizes count, a header type that
nobody agrees on is refused, and behind the end marker there are only zeros. What this parser
accepts, every other reader in the field sees as the same list of files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from sampan.layers import header, pax, sparse
from sampan.layers.header import BLOCK, ZERO_BLOCK, Entry
from sampan.layers.limits import (
    MAX_LONG_NAME,
    MAX_NAME,
    MAX_PAX,
    MAX_XATTR_NAME,
    MAX_XATTR_VALUE,
    LayerError,
    show,
)

NextChunk = Callable[[], memoryview]

_NOTHING: Final = memoryview(b"")
_GLOBAL_KEYS: Final = frozenset((b"comment",))  # what git archive writes; all else means something


class _Extended:
    """The extended headers in front of one entry."""

    __slots__ = ("long_link", "long_name", "pairs", "records")

    def __init__(self) -> None:
        self.records: pax.Records | None = None
        self.pairs: pax.Extents = []
        self.long_name: bytes | None = None
        self.long_link: bytes | None = None

    def __bool__(self) -> bool:
        return any(x is not None for x in (self.records, self.long_name, self.long_link))


class TarStream:
    """The entries of one archive. Raises LayerError for whatever is no sound tar."""

    __slots__ = (
        "_end",
        "_left",
        "_next_chunk",
        "_padding",
        "_passed",
        "_position",
        "_view",
        "closed",
    )

    def __init__(self, next_chunk: NextChunk) -> None:
        """Read from `next_chunk`, whose views live until the next call; empty means the end."""
        self._next_chunk = next_chunk
        self._view = _NOTHING
        self._position = self._end = 0
        self._passed = 0  # bytes of the chunks before this one
        self._left = 0  # data bytes of the current entry that nobody took yet
        self._padding = 0
        self.closed = False  # whether the end marker was seen

    def next(self) -> Entry | None:
        """The next entry, or None when the archive has ended. Data not taken is skipped."""
        self._skip(self._left)
        self._skip_padding()
        self._left = self._padding = 0
        extended: _Extended | None = None
        while True:
            block = self._header_block(extended is not None and bool(extended))
            if block is None:
                return None
            entry = header.decode(block)
            if entry.kind not in header.META:
                break
            extended = extended or _Extended()
            self._read_extended(entry, extended)
        if extended is not None:
            self._fold(entry, extended)
        if entry.old_sparse is not None:
            sparse.read_old(entry, entry.old_sparse, self._read_block)
            entry.kind = header.REGULAR
        _settle_kind(entry)
        self._left = entry.stored
        self._padding = -entry.stored % BLOCK
        return entry

    @property
    def offset(self) -> int:
        """Where in the archive the next byte is; behind `next`, where the entry's data begin."""
        return self._passed + self._position

    def pieces(self, count: int) -> Iterator[memoryview]:
        """The next `count` data bytes of the current entry; a view is good until the next one."""
        self._left -= count
        while count:
            if self._position == self._end:
                self._refill()
            start = self._position
            self._position = min(start + count, self._end)
            count -= self._position - start
            yield self._view[start : self._position]

    def write_to(self, fd: int, count: int) -> None:
        """Write the next `count` data bytes of the current entry to `fd`."""
        self._left -= count
        while count:
            if self._position == self._end:
                self._refill()
            start = self._position
            stop = min(start + count, self._end)
            written = os.write(fd, self._view[start:stop])
            self._position = start + written
            count -= written

    # Below: bytes.

    def _refill(self) -> None:
        self._passed += self._end
        self._view = self._next_chunk()
        self._position, self._end = 0, len(self._view)
        if not self._end:
            raise LayerError("read tar: ends in the middle of an entry")

    def _skip(self, count: int) -> None:
        while count:
            if self._position == self._end:
                self._refill()
            step = min(count, self._end - self._position)
            self._position += step
            count -= step

    def _skip_padding(self) -> None:
        """Docker's command, given `-f -`, sends an archive that ends with its last entry's data."""
        if self._padding and self._position == self._end:
            self._passed += self._end
            self._view = self._next_chunk()
            self._position, self._end = 0, len(self._view)
        if self._end:
            self._skip(self._padding)

    def _read(self, count: int) -> bytes:
        stop = self._position + count
        if stop <= self._end:
            data = self._view[self._position : stop].tobytes()
            self._position = stop
            return data
        parts: list[bytes] = []
        while count:
            if self._position == self._end:
                self._refill()
            stop = min(self._position + count, self._end)
            parts.append(self._view[self._position : stop].tobytes())
            count -= stop - self._position
            self._position = stop
        return b"".join(parts)

    def _read_block(self) -> bytes:
        return self._read(BLOCK)

    # Below: headers.

    def _header_block(self, extended: bool) -> bytes | None:
        """The next header, or None at the end: after two zero blocks, or where the data ends."""
        if self._position == self._end:
            self._view = self._next_chunk()
            self._position, self._end = 0, len(self._view)
        block = self._read(BLOCK) if self._end else ZERO_BLOCK
        if block != ZERO_BLOCK:
            return block
        if extended:
            raise LayerError("read tar: extended header without an entry")
        self.closed = self._end > 0
        self._expect_zeros()
        return None

    def _expect_zeros(self) -> None:
        """Read to the end. An entry here would be seen by some readers and not by others."""
        while self._end:
            rest = self._view[self._position : self._end].tobytes()
            if rest.count(0) != len(rest):
                raise LayerError("read tar: data after the end marker")
            self._view = self._next_chunk()
            self._position, self._end = 0, len(self._view)

    def _read_extended(self, entry: Entry, extended: _Extended) -> None:
        """Read one extended header's data and note what it says."""
        limit = MAX_PAX if entry.kind in (header.PAX, header.PAX_GLOBAL) else MAX_LONG_NAME
        if entry.stored > limit:
            raise LayerError(f"read tar: extended header of {entry.stored} bytes, at most {limit}")
        data = self._read(entry.stored)
        self._skip(-entry.stored % BLOCK)
        if entry.kind == header.PAX_GLOBAL:
            _check_global(data, extended)
        elif entry.kind == header.PAX:
            _refuse_second(extended.records)
            extended.records, extended.pairs = pax.parse(data)
        elif entry.kind == header.GNU_LONG_NAME:
            _refuse_second(extended.long_name)
            extended.long_name = _gnu_text(data)
        else:
            _refuse_second(extended.long_link)
            extended.long_link = _gnu_text(data)

    def _fold(self, entry: Entry, extended: _Extended) -> None:
        """Apply the extended headers."""
        if extended.long_name is not None:
            entry.name = extended.long_name
        if extended.long_link is not None:
            entry.link = extended.long_link
        if extended.records is not None:
            _fold_pax(entry, extended)
            self._fold_sparse(entry, extended)

    def _fold_sparse(self, entry: Entry, extended: _Extended) -> None:
        records = extended.records or {}
        if entry.kind in (0, header.REGULAR):
            sparse.read_pax(entry, records, extended.pairs, self._read_block)
        elif extended.pairs or any(key.startswith(b"GNU.sparse.") for key in records):
            raise LayerError("read tar: sparse map on an entry without data")


def _refuse_second(seen: object) -> None:
    if seen is not None:
        raise LayerError("read tar: extended header repeated before one entry")


def _gnu_text(data: bytes) -> bytes:
    text = data.rstrip(b"\0")
    if not text or b"\0" in text:
        raise LayerError("read tar: GNU long name is empty or has a NUL")
    return text


def _check_global(data: bytes, extended: _Extended) -> None:
    """Global headers change later entries for some readers only, so they may only comment."""
    records, pairs = pax.parse(data)
    unknown = [key for key in records if key not in _GLOBAL_KEYS]
    if extended:
        raise LayerError("read tar: global header between an extended header and its entry")
    if unknown or pairs:
        raise LayerError(f"read tar: global header sets {show(b', '.join(unknown))}")


def _fold_pax(entry: Entry, extended: _Extended) -> None:
    records = extended.records or {}
    if b"path" in records:
        _refuse_second(extended.long_name)
        entry.name = records[b"path"]
    if b"linkpath" in records:
        _refuse_second(extended.long_link)
        entry.link = records[b"linkpath"]
    if b"size" in records:
        entry.size = entry.stored = pax.number(b"size", records[b"size"])
    entry.uid = _id(b"uid", records, entry.uid)
    entry.gid = _id(b"gid", records, entry.gid)
    if b"mtime" in records:
        entry.mtime = entry.atime = pax.time(b"mtime", records[b"mtime"])
    if b"atime" in records:
        entry.atime = pax.time(b"atime", records[b"atime"])
    for key, value in records.items():
        if key.startswith(pax.XATTR_PREFIX):
            _add_xattr(entry, key.removeprefix(pax.XATTR_PREFIX), value)


def _id(key: bytes, records: pax.Records, default: int) -> int:
    if key not in records:
        return default
    number = pax.number(key, records[key])
    if number > header.MAX_ID:
        raise LayerError(f"parse pax header: {show(key)} {number} is out of range")
    return number


def _add_xattr(entry: Entry, name: bytes, value: bytes) -> None:
    namespace, dot, rest = name.partition(b".")
    if not namespace or not dot or not rest or len(name) > MAX_XATTR_NAME:
        raise LayerError(f"parse pax header: bad extended attribute name {show(name)}")
    if len(value) > MAX_XATTR_VALUE:
        raise LayerError(f"parse pax header: extended attribute {show(name)} is too large")
    if entry.xattrs is None:
        entry.xattrs = {}
    entry.xattrs[name] = value


def _settle_kind(entry: Entry) -> None:
    """Resolve the old types, and refuse what readers disagree about."""
    slash = entry.name.endswith(b"/")
    if entry.kind == 0:
        entry.kind = header.DIRECTORY if slash else header.REGULAR
    elif entry.kind == header.CONTIGUOUS:
        entry.kind = header.REGULAR
    if entry.kind not in header.KNOWN:
        raise LayerError(f"read tar: unknown type {entry.kind:#x} of {show(entry.name)}")
    if not entry.name or len(entry.name) > MAX_NAME:
        raise LayerError(f"read tar: bad name {show(entry.name)}")
    if entry.kind == header.REGULAR:
        if slash:
            raise LayerError(f"read tar: file with a directory's name {show(entry.name)}")
    elif entry.stored:
        raise LayerError(f"read tar: size on {show(entry.name)}, which can have no data")
