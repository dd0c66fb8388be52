"""The log files of a container: dockerd's JSON objects, or the lines that kubelets read.

A record of json-file is `{"log":TEXT,"stream":"stdout"|"stderr","time":RFC3339Nano}`. TEXT ends
with a newline when the container ended the line; a line longer than 16 KiB becomes several records
of which only the last ends with one, and what stands unterminated at the end of the stream becomes
a record without. Bytes that are not UTF-8 become U+FFFD. A batch of bytes is one write and has one
time.

A record of cri is `RFC3339Nano stdout|stderr F|P TEXT`, bytes as they came; P says that the line
goes on in the next record of its stream. The file is there from the start, and is never rotated by
us: who asked for it moves it away and says `reopen`.

The file is opened at the first byte. When it has reached `max_size` it is rotated: the name gets
`.1`, `.1` becomes `.2`, and so on, `max_file` files in all (rotation.py).

A log that cannot be written (full disk) never blocks or breaks the container: the records of that
batch are dropped and counted, and a half-written one is cut off again. The first record that can be
written afterwards leaves a line about it in the journal of drops beside the log (`DROPS`):
`{"time":RFC3339Nano,"dropped":N,"reason":TEXT}`.
"""

from __future__ import annotations

import os
import stat
from json.encoder import encode_basestring, encode_basestring_ascii
from time import gmtime, time_ns

from sampan.shim import rotation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    Parts: TypeAlias = Sequence[bytes | memoryview]

DROPS = ".drops"
"""What the name of the journal of drops has behind the log's."""

STREAMS = (b"", b"stdout", b"stderr")
LONGEST = 16 * 1024

_FLAGS = (
    os.O_WRONLY
    | os.O_APPEND
    | os.O_CREAT
    | os.O_NOFOLLOW
    | os.O_NONBLOCK  # opening a FIFO fails instead of waiting for its reader
    | os.O_NOCTTY
    | os.O_CLOEXEC
)
_DIRECTORY = os.O_DIRECTORY | os.O_CLOEXEC
_HEAD = b'{"log":"'

# What a JSON string cannot hold as it is, and how it is written; the newline is dealt with apart.
_ESCAPES = {code: b"\\u%04x" % code for code in range(0x20) if code != 0x0A}
_ESCAPES |= {0x08: b"\\b", 0x09: b"\\t", 0x0C: b"\\f", 0x0D: b"\\r", 0x22: b'\\"', 0x5C: b"\\\\"}
_SPECIAL = tuple(bytes((code,)) for code in _ESCAPES)
_SAMPLE, _MANY = 256, 8
_CLEAN = bytes(code for code in range(256) if code not in _ESCAPES)


class JsonFile:
    """Writes the log at `path`; streams are 1 (stdout) and 2 (stderr)."""

    __slots__ = (
        "_attributes",
        "_fd",
        "_gap",
        "_max_file",
        "_max_size",
        "_packed",
        "_path",
        "_pending",
        "_prefix",
        "_second",
        "_size",
        "dropped",
    )

    def __init__(
        self,
        path: str,
        max_size: int,
        max_file: int,
        packed: bool = False,
        attributes: str = "",
    ) -> None:
        """`max_size` in bytes, 0 or less for no limit; `max_file` counts the current one.

        `packed`: older files are compressed. `attributes` is JSON, which every record gets.
        """
        self._path = path
        self._packed = packed
        self._attributes = b',"attrs":%s' % attributes.encode() if attributes else b""
        self._max_size = max_size
        self._max_file = max(1, max_file)
        self._fd = -1
        self._size = 0
        self._pending = [b"", b"", b""]
        self._second = 0
        self._prefix = b""
        self._gap = (0, "")
        self.dropped = 0

    def write(self, stream: int, data: bytes) -> None:
        """Log what the container wrote to `stream`; an open line waits for its end."""
        pending = self._pending[stream]
        if pending:
            data = pending + data
        end = data.rfind(b"\n") + 1
        if len(data) - end > LONGEST:
            end = _cut(data, end)
        self._pending[stream] = data[end:]
        if end:
            self._store(self._records(stream, data if end == len(data) else data[:end]))

    def end(self, stream: int) -> None:
        """The stream is at its end: log the line that was left open."""
        rest, self._pending[stream] = self._pending[stream], b""
        if rest:
            self._store(self._records(stream, rest))

    def reopen(self) -> None:
        """Open the path again at the next record, for it was moved away."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def renew(self) -> None:
        """The same, for whoever asks for it."""
        self.reopen()

    def close(self) -> None:
        """Log open lines of both streams and close the file."""
        self.end(1)
        self.end(2)
        self.reopen()

    def _records(self, stream: int, data: bytes) -> Parts:
        about = STREAMS[stream], self._attributes, self._now()
        tail = b'","stream":"%s"%s,"time":"%s"}\n' % about
        if len(data) <= LONGEST or _is_short_lined(data):
            return _encode(data, tail)
        return [b"".join(_encode(piece, tail)) for piece in _pieces(data)]

    def _now(self) -> bytes:
        second, fraction = divmod(time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._prefix = b"%04d-%02d-%02dT%02d:%02d:%02d" % gmtime(second)[:6]
        return b"%s.%09dZ" % (self._prefix, fraction)

    def _store(self, records: Parts) -> None:
        try:
            while records:
                if self._fd < 0:
                    self._open()
                if 0 < self._max_size <= self._size:
                    self._rotate()
                records = self._append(records)
                if self._gap[0]:
                    self._note_gap()
        except OSError as error:
            lost = b"".join(records).count(b"\n")
            self.dropped += lost
            self._gap = self._gap[0] + lost, error.strerror or str(error)

    def _note_gap(self) -> None:
        """Write down what was dropped; the disk has room again."""
        count, reason = self._gap
        now = self._now().decode("ascii")
        line = f'{{"time":"{now}","dropped":{count},"reason":{encode_basestring_ascii(reason)}}}\n'
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._path + DROPS, flags, 0o640)
        try:
            os.write(fd, line.encode("ascii"))
        finally:
            os.close(fd)
        self._gap = (0, "")

    def _append(self, records: Parts) -> Parts:
        """Write what belongs into the current file; the rest is for the next one."""
        size = sum(map(len, records))
        rest: Parts = []
        if 0 < self._max_size < self._size + size:
            # As dockerd: the record that crosses the limit is the last of its file.
            whole = b"".join(records)
            end = whole.find(b"\n", max(0, self._max_size - self._size - 1)) + 1 or size
            records, rest, size = [whole[:end]], [whole[end:]] if end < size else [], end
        written = os.writev(self._fd, records)
        if written != size:
            os.ftruncate(self._fd, self._size)
            raise OSError("write log: no space left")
        self._size += written
        return rest

    def _open(self, flags: int = _FLAGS) -> None:
        folder, name = os.path.split(self._path)
        directory = os.open(folder, _DIRECTORY)
        try:
            fd = os.open(name, flags, 0o640, dir_fd=directory)
        finally:
            os.close(directory)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise OSError(f"open log {self._path}: not a regular file")
        self._fd, self._size = fd, found.st_size

    def _rotate(self) -> None:
        self.reopen()
        if self._max_file == 1:
            self._open(_FLAGS | os.O_TRUNC)
            return
        folder, name = os.path.split(self._path)
        directory = os.open(folder, _DIRECTORY)
        try:
            rotation.rotate(directory, name, self._max_file, packed=self._packed)
            if self._packed:
                rotation.pack(directory, name, self._max_file)
        finally:
            os.close(directory)
        self._open()


class CriFile(JsonFile):
    """The same, in the format of the Kubernetes runtime interface."""

    __slots__ = ()

    def __init__(self, path: str, *_: object) -> None:
        """The rest is for others."""
        super().__init__(path, 0, 1)

    def renew(self) -> None:
        """Open the path again now: its reader waits for a new file there.

        Raises:
            OSError: it cannot be opened; the next record tries again.
        """
        self.reopen()
        self._open()

    def _note_gap(self) -> None:
        """The directory is its owner's."""
        self._gap = (0, "")

    def _records(self, stream: int, data: bytes) -> Parts:
        head = b"%s %s " % (self._now(), STREAMS[stream])
        if len(data) <= LONGEST or _is_short_lined(data):
            return [_lines(data, head)]
        return [_lines(piece, head) for piece in _pieces(data)]


def _lines(data: bytes, head: bytes) -> bytes:
    """Whole lines, and what follows the last newline as a part of one."""
    end = data.rfind(b"\n") + 1
    full = head + b"F "
    lines = full + data[: end - 1].replace(b"\n", b"\n" + full) + b"\n" if end else b""
    return lines if end == len(data) else b"%s%sP %s\n" % (lines, head, data[end:])


DRIVERS = {"cri": CriFile, "json-file": JsonFile, "local": JsonFile}


def open_log(
    driver: str,
    path: str,
    max_size: int,
    max_file: int,
    packed: bool = False,
    attributes: str = "",
) -> JsonFile:
    """The writer of one of DRIVERS; the arguments are JsonFile's."""
    log: JsonFile = DRIVERS[driver](path, max_size, max_file, packed, attributes)
    return log


def _encode(data: bytes, tail: bytes) -> Parts:
    """Records of whole lines, and of what follows the last newline, in pieces.

    All lines of a batch are treated as one text, by the few passes that run at memory speed: twice
    what json's encoder reaches, which wins where every third byte must be escaped, or every eighth
    and no two of them are alike.
    """
    if not data.isascii():
        data = data.decode("utf-8", "replace").encode()
    if len(data) < LONGEST or _has_special(data):
        found = data.translate(None, _CLEAN)
        if found:
            data = _escape(data, found)
    body = data.replace(b"\n", b"\\n" + tail + _HEAD)
    if data.endswith(b"\n"):
        return [_HEAD, memoryview(body)[: -len(_HEAD)]]
    return [_HEAD, body, tail]


def _has_special(data: bytes) -> bool:
    """Whether anything is to be escaped. Of much, 33 searches take half the time of a translate."""
    return any(code in data for code in _SPECIAL)


def _escape(data: bytes, found: bytes) -> bytes:
    """The same with everything escaped but the newlines; `found` is what there is to escape."""
    is_mixed = len(set(found[:_SAMPLE])) > _MANY
    if len(found) * (8 if is_mixed else 3) > len(data):
        data = _encode_dense(data)
    else:
        if b"\\" in found:  # first, before the other escapes bring backslashes of their own
            data = data.replace(b"\\", b"\\\\")
            found = found.replace(b"\\", b"")
        while found:
            code = found[:1]
            data = data.replace(code, _ESCAPES[code[0]])
            found = found.replace(code, b"")
    return data


def _encode_dense(data: bytes) -> bytes:
    """The same text with everything escaped but the newlines, by json's encoder."""
    if not data.strip(b"\0"):  # a device is copied
        return _ESCAPES[0] * len(data)
    lines = [encode_basestring(line)[1:-1].encode() for line in data.decode().split("\n")]
    return b"\n".join(lines)


def _is_short_lined(data: bytes) -> bool:
    """Whether no line of `data` is longer than LONGEST, its newline not counted."""
    position, size = 0, len(data)
    while size - position > LONGEST:
        newline = data.rfind(b"\n", position, position + LONGEST + 1)
        if newline < 0:
            return False
        position = newline + 1
    return True


def _pieces(data: bytes) -> list[bytes]:
    """`data` cut after its newlines and, within longer lines, before byte LONGEST."""
    pieces = []
    position, size = 0, len(data)
    while position < size:
        newline = data.rfind(b"\n", position, position + LONGEST + 1)
        end = newline + 1 if newline >= 0 else min(size, _boundary(data, position + LONGEST))
        pieces.append(data[position:end])
        position = end
    return pieces


def _cut(data: bytes, start: int) -> int:
    """Where the last whole piece of the open line from `start` ends."""
    while len(data) - start > LONGEST:
        start = _boundary(data, start + LONGEST)
    return start


def _boundary(data: bytes, position: int) -> int:
    """`position`, or up to three bytes before it where a UTF-8 character begins."""
    for back in range(4):
        if position - back < len(data) and data[position - back] & 0xC0 != 0x80:
            return position - back
    return position
