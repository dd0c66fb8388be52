"""A SPDY/3.1 connection with its streams, over anything that carries bytes.

The client opens streams; `accept` decides which. What it sends on a stream waits there up to BOUND
pieces; then nothing more is read from the connection until somebody takes them, or says that he
will take no more (`deafen`). SPDY's own flow control is not spoken by Kubernetes' clients.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from sampan.errors import InvalidArgument
from sampan.wire import spdy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sampan.wire.spdy import Frame

BOUND = 32
MAX_STREAMS = 1024
"""Streams that are open at once; a forwarded connection takes two."""


class Pipe(Protocol):
    """A connection in both directions; `read` gives b"" at its end, or raises OSError."""

    async def read(self) -> bytes:
        """The next bytes."""

    async def write(self, data: bytes) -> None:
        """Send; calls do not mix their bytes."""


class Stream:
    """One stream. What was opened by the client has `headers`."""

    def __init__(self, session: Session, number: int, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self.number = number
        self._session = session
        self._pieces: deque[bytes] = deque()
        self._is_ended = self._is_deaf = self._is_finished = False
        self._changed = asyncio.Event()

    async def read(self) -> bytes:
        """The next bytes, b"" when the client sends no more."""
        while not self._pieces and not self._is_ended:
            await self._wait()
        piece = self._pieces.popleft() if self._pieces else b""
        self._changed.set()
        return piece

    async def write(self, data: bytes) -> None:
        """Send bytes, if the stream is not closed."""
        if not self._is_finished:
            await self._session.send(spdy.data(self.number, data))

    async def finish(self) -> None:
        """Nothing more is sent on it."""
        if not self._is_finished:
            self._is_finished = True
            await self._session.send(spdy.data(self.number, b"", fin=True))
            self._session.settle(self)

    def deafen(self) -> None:
        """What still comes is dropped."""
        self._is_deaf = True
        self._pieces.clear()
        self._changed.set()

    @property
    def is_over(self) -> bool:
        """Whether both directions have ended."""
        return self._is_ended and self._is_finished

    async def push(self, data: bytes, is_ended: bool) -> None:
        """For the session: bytes have come. Waits while too many wait already."""
        while len(self._pieces) >= BOUND and not self._is_deaf:
            await self._wait()
        if data and not self._is_deaf:
            self._pieces.append(data)
        self._is_ended = self._is_ended or is_ended
        self._changed.set()

    def end(self, *, is_reset: bool) -> None:
        """For the session: the client has reset the stream, or is gone."""
        self._is_ended = True
        self._is_finished = self._is_finished or is_reset
        self._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class Session:
    """The streams of one connection."""

    def __init__(self, pipe: Pipe, accept: Callable[[Stream], bool]) -> None:
        self._pipe = pipe
        self._accept = accept
        self._decoder, self._encoder = spdy.Decoder(), spdy.Encoder()
        self._streams: dict[int, Stream] = {}
        self._newest = 0

    async def run(self) -> None:
        """Read until the client is gone, or says what is no SPDY."""
        try:
            while data := await self._pipe.read():
                for frame in self._decoder.feed(data):
                    await self._take(frame)
        except (InvalidArgument, OSError):
            return
        finally:
            for stream in self._streams.values():
                stream.end(is_reset=True)

    async def goodbye(self) -> None:
        """No further streams."""
        await self.send(spdy.goaway(self._newest))

    async def send(self, data: bytes) -> None:
        """Write a frame; one that nobody can read any more is dropped."""
        try:
            await self._pipe.write(data)
        except OSError:
            return

    def settle(self, stream: Stream) -> None:
        """Forget a stream that is closed in both directions."""
        if stream.is_over:
            self._streams.pop(stream.number, None)

    async def _take(self, frame: Frame) -> None:
        if isinstance(frame, spdy.Data):
            stream = self._streams.get(frame.stream)
            if stream is not None:
                await stream.push(frame.payload, frame.is_ended)
                self.settle(stream)
        elif isinstance(frame, spdy.Opened):
            await self._open(frame)
        elif isinstance(frame, spdy.Reset):
            stream = self._streams.pop(frame.stream, None)
            if stream is not None:
                stream.end(is_reset=True)
        elif isinstance(frame, spdy.Ping):
            await self.send(spdy.ping(frame.number))

    async def _open(self, frame: spdy.Opened) -> None:
        number = frame.stream
        if number <= self._newest or not number % 2:
            raise InvalidArgument(f"read SPDY: stream {number} is opened out of turn")
        self._newest = number
        stream = Stream(self, number, frame.headers)
        if frame.is_ended:
            stream.end(is_reset=False)
        if len(self._streams) >= MAX_STREAMS or not self._accept(stream):
            await self.send(spdy.reset(number, spdy.REFUSED))
            return
        self._streams[number] = stream
        await self.send(self._encoder.reply(number))
