"""Frames that carry stdin, stdout and stderr over one connection.

Eight bytes, `[stream, 0, 0, 0, length as 32-bit big-endian]`, then the payload. Stream 0 is stdin,
1 stdout, 2 stderr, 3 an error of the daemon. Docker calls this `stdcopy`.

`Demultiplexer` does no input or output: bytes go in as they arrive, whole frames and parts of
frames come out as soon as they are there, so that a huge frame needs no huge buffer.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument

STDIN, STDOUT, STDERR, SYSTEM = 0, 1, 2, 3
HEADER_SIZE = 8
CONTENT_TYPE = "application/vnd.docker.multiplexed-stream"
RAW_CONTENT_TYPE = "application/vnd.docker.raw-stream"

_STREAMS = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR}
_PREFIX = tuple(bytes((number, 0, 0, 0)) for number in range(4))


def frame(stream: int, payload: bytes) -> bytes:
    """One frame with the whole payload, which must be under 4 GiB."""
    return _PREFIX[stream] + len(payload).to_bytes(4, "big") + payload


def number_of(name: str) -> int:
    """The number of the stream called `name`."""
    return _STREAMS[name]


class Demultiplexer:
    """Takes a byte stream apart into (stream, payload) pieces, in order."""

    __slots__ = ("_header", "_left", "_stream")

    def __init__(self) -> None:
        self._header = b""
        self._stream = STDOUT
        self._left = 0

    @property
    def is_between_frames(self) -> bool:
        """Whether the stream may end here without loss."""
        return not self._left and not self._header

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The pieces in `data`. A frame may come out in several pieces, an empty one in none.

        Raises:
            InvalidArgument: the bytes are no frames; the connection is of no further use.
        """
        pieces: list[tuple[int, bytes]] = []
        position, end = 0, len(data)
        while position < end:
            if self._left:
                piece = data[position : position + self._left]
                pieces.append((self._stream, piece))
                self._left -= len(piece)
                position += len(piece)
                continue
            taken = data[position : position + HEADER_SIZE - len(self._header)]
            self._header += taken
            position += len(taken)
            if len(self._header) == HEADER_SIZE:
                self._open(self._header)
                self._header = b""
        return pieces

    def _open(self, header: bytes) -> None:
        if header[0] > SYSTEM or header[1:4] != b"\0\0\0":
            raise InvalidArgument(f"read a frame of output: {header.hex()} is not a header")
        self._stream = header[0]
        self._left = int.from_bytes(header[4:], "big")
