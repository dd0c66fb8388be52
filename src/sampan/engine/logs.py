"""Reading the json-file log that a shim writes: by time, by tail, and on while it grows.

The log is `container.log` and its rotated elders `.1`, `.2` ...; the highest number is the oldest.
Reading goes from old to new, a bounded piece at a time, and never holds a whole file. `follow`
keeps the current file open, so a rotation loses nothing: at the end of a file that is no longer the
newest, the next newer one is found by the inode of the one that was just read (logfiles.py).

A line that is no record of ours (cut by a full disk) is skipped: it cannot become another record.
"""

from __future__ import annotations

import asyncio
import os
from calendar import timegm
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from sampan.engine.inotify import DirectoryWatch
from sampan.engine.logfiles import PACKED, LogFile, close_all, open_file, paths
from sampan.engine.model import LogQuery, LogRecord

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    from sampan.engine.containers import Wait

T = TypeVar("T")

PIECE = 1 << 18
LONGEST_LINE = 1 << 20
_WHOLE = len("2006-01-02T15:04:05.000000000Z")
_PAUSE = 0.5  # between looks where inotify is not to be had


class _Line(msgspec.Struct):
    log: str
    stream: str
    time: str
    attrs: dict[str, str] = {}


_decoder = msgspec.json.Decoder(_Line)
_decode, _decode_lines = _decoder.decode, _decoder.decode_lines


class LogReader:
    """Reads one container's log. `end` is done when nothing more will be written."""

    def __init__(self, path: str, end: Wait | None = None) -> None:
        self._path = path
        self._end = end
        self._clock = _Clock()

    async def read(self, query: LogQuery) -> AsyncIterator[LogRecord]:
        """The records that `query` wants, oldest first."""
        async with aclosing(self.pieces(query)) as pieces:
            async for piece in pieces:
                for record in piece:
                    yield record

    async def pieces(self, query: LogQuery) -> AsyncGenerator[list[LogRecord], None]:
        """The same, as many at a time as are there, about PIECE bytes at most."""
        wanted = _streams(query)
        for_tail = None
        if query.tail is not None:
            for_tail = await self._in_time(self._skip_to_tail, query, wanted)
        watch = self._watch() if query.follow else None
        try:
            async for lines in self._lines(query.follow, watch, for_tail):
                found = [
                    record
                    for record in self._records(lines)
                    if record.stream in wanted and record.time_ns >= query.since
                ]
                is_past = query.until and found and found[-1].time_ns > query.until
                if is_past:
                    found = [record for record in found if record.time_ns <= query.until]
                if found:
                    yield found
                if is_past:
                    return
        finally:
            if watch is not None:
                watch.close()
            if self._end is not None:
                self._end.cancel()

    # forward

    async def _lines(
        self, follow: bool, watch: DirectoryWatch | None, start: _Start | None
    ) -> AsyncIterator[bytes]:
        if start is None:
            start = await self._in_time(self._open_first)
        (file, offset), newer = start, None
        try:
            while True:
                # Before the read: what came until then is read below.
                over = self._end is None or self._end.is_done
                if file is None:
                    file, offset = await self._in_time(self._open_first)
                while file is not None:
                    # Also before the read: a file that has a successor is written to its end.
                    newer = await self._in_time(self._open_newer, file)
                    while piece := _read_lines(file.fd, offset):
                        yield piece.lines
                        offset = piece.end
                        await asyncio.sleep(0)
                    if newer is None:
                        break
                    file.close()
                    file, offset, newer = newer, 0, None
                if not follow or over:
                    return
                await _change(watch)
        finally:
            close_all(file, newer)

    async def _in_time(self, call: Callable[..., T], *arguments: object) -> T:
        """Call it here, or where it may take its time when files must be unpacked for it."""
        if any(path.endswith(PACKED) for path in paths(self._path)):
            return await asyncio.to_thread(call, *arguments)
        return call(*arguments)

    def _open_first(self) -> _Start:
        """The oldest file, None when there is none."""
        for path in reversed(paths(self._path)):
            file = open_file(path)
            if file is not None:
                return _Start(file, 0)
        return _Start(None, 0)

    def _open_newer(self, file: LogFile) -> LogFile | None:
        """The file that came after `file`, None when that is the newest."""
        while True:
            path = self._next_path(file)
            if not path:
                return None
            newer = open_file(path)
            # Rotated between the look and the open, the name would mean another file, or none.
            again = self._next_path(file) if newer is not None else ""
            if newer is not None and again and newer.is_at(again):
                return newer
            close_all(newer)

    def _next_path(self, file: LogFile) -> str:
        """The name of the file that came after `file`; "" when that is the newest."""
        found = paths(self._path)
        for index, path in enumerate(found):
            if file.is_at(path):
                return found[index - 1] if index else ""
        # It was removed: everything that is there is newer.
        return found[-1] if found else ""

    def _records(self, lines: bytes) -> list[LogRecord]:
        """The records of whole lines: of all at once, unless one is no record of ours."""
        try:
            entries = _decode_lines(lines)
            if len(entries) == lines.count(b"\n"):
                return [self._record(entry) for entry in entries]
        except (msgspec.MsgspecError, ValueError):
            pass
        return [record for record in map(self._parse, lines.split(b"\n")) if record]

    def _parse(self, line: bytes) -> LogRecord | None:
        try:
            return self._record(_decode(line))
        except (msgspec.MsgspecError, ValueError):
            return None

    def _record(self, entry: _Line) -> LogRecord:
        at = self._clock.parse(entry.time)
        return LogRecord(entry.stream, at, entry.log.encode(), entry.attrs)

    def _watch(self) -> DirectoryWatch | None:
        try:
            watch = DirectoryWatch(os.path.dirname(self._path))
        except OSError:
            return None
        if self._end is not None:
            self._end.when_done(watch.changed.set)
        return watch

    # backward

    def _skip_to_tail(self, query: LogQuery, wanted: frozenset[str]) -> _Start | None:
        """Where the last `tail` records of the wanted streams begin; None for the very start."""
        assert query.tail is not None
        left = query.tail
        for path in paths(self._path):
            file = open_file(path)
            if file is None:
                continue
            if left == 0:
                return _Start(file, os.fstat(file.fd).st_size)
            for offset, line in _lines_backward(file.fd):
                record = self._parse(line)
                if record is None or record.stream not in wanted:
                    continue
                if query.until and record.time_ns > query.until:
                    continue
                left -= 1
                if left == 0:
                    return _Start(file, offset)
            file.close()
        return None


class _Clock:
    """RFC 3339 with nanoseconds to nanoseconds since 1970; remembers the last second."""

    __slots__ = ("_base", "_prefix")

    def __init__(self) -> None:
        self._prefix, self._base = "", 0

    def parse(self, text: str) -> int:
        """Raises ValueError when it is no such time."""
        prefix = text[:19]
        if prefix != self._prefix:
            date, clock = prefix.split("T")
            year, month, day = (int(part) for part in date.split("-"))
            hour, minute, second = (int(part) for part in clock.split(":"))
            self._base = timegm((year, month, day, hour, minute, second)) * 10**9
            self._prefix = prefix
        if len(text) == _WHOLE:
            return self._base + int(text[20:29])
        fraction = text[20:].rstrip("Z")
        return self._base + (int(fraction.ljust(9, "0")[:9]) if fraction else 0)


async def _change(watch: DirectoryWatch | None) -> None:
    """Wait until the log may have grown; at the latest a little later, for the end has no file."""
    if watch is None:
        await asyncio.sleep(_PAUSE)
        return
    try:
        async with asyncio.timeout(_PAUSE):
            await watch.changed.wait()
    except TimeoutError:
        return
    watch.changed.clear()


def _streams(query: LogQuery) -> frozenset[str]:
    wanted = (("stdout", query.stdout), ("stderr", query.stderr))
    return frozenset(name for name, is_wanted in wanted if is_wanted)


class _Start(NamedTuple):
    """A file and where to begin in it."""

    file: LogFile | None
    offset: int


class _Piece(NamedTuple):
    """Whole lines, and the offset behind them."""

    lines: bytes
    end: int


def _read_lines(fd: int, offset: int) -> _Piece | None:
    """Whole lines from `offset` on, at most about PIECE bytes; None when there is none."""
    data = os.pread(fd, PIECE, offset)
    end = data.rfind(b"\n") + 1
    if end == 0:
        if len(data) < PIECE:
            return None
        # A line that is longer than any record of ours: look for its end, and drop it.
        data = os.pread(fd, LONGEST_LINE, offset)
        end = data.find(b"\n") + 1 or len(data)
    return _Piece(data[:end], offset + end)


def _lines_backward(fd: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line) from the last whole line to the first."""
    position = os.fstat(fd).st_size
    rest = b""
    is_last = True
    while position > 0:
        size = min(PIECE, position)
        position -= size
        data = os.pread(fd, size, position) + rest
        if is_last:
            data = data[: data.rfind(b"\n") + 1]  # what has no end yet is no record
            is_last = not data
        lines = data.split(b"\n")
        if data.endswith(b"\n"):
            lines.pop()
        begins = [position]
        for line in lines[:-1]:
            begins.append(begins[-1] + len(line) + 1)
        first = 1 if position > 0 else 0
        for index in range(len(lines) - 1, first - 1, -1):
            yield begins[index], lines[index]
        rest = lines[0] + b"\n" if position > 0 and not is_last else b""
        if len(rest) > LONGEST_LINE:
            rest = b""
