"""The asynchronous client, and the driver of flows on top of it.

It does what `client.sync` does, with asyncio's streams in place of sockets; bytes are made and
taken apart by the same code. Cancelling a call closes its connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from sampan.client import flows
from sampan.client.http import ProtocolError, Reader, chunk, request
from sampan.client.streams import Lines
from sampan.client.sync import document_of, message_of
from sampan.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sampan.client.calls import Call
    from sampan.client.flows import Flow, Step
    from sampan.client.sync import Refuse

T = TypeVar("T")
_PIECE = 65536


class AsyncConnection:
    """One connection and the reader of its responses."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._in = reader
        self._out = writer
        self.reader = Reader()
        self.reused = False

    @classmethod
    async def open(cls, path: str) -> AsyncConnection:
        """Connect to a socket."""
        return cls(*await asyncio.open_unix_connection(path, limit=4 * _PIECE))

    async def send(self, call: Call) -> None:
        """Send a request and read the head of its response."""
        self.reader.begin(call.method)
        chunked = call.upload is not None
        head = request(call.method, call.target, call.headers, call.body, chunked=chunked)
        try:
            self._out.write(head)
            for data in call.upload or ():
                if data:
                    self._out.write(chunk(data))
                    await self._out.drain()
            if chunked:
                self._out.write(chunk(b""))
            await self._out.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the daemon may have refused in the middle of an upload: its answer says why
        while not self.reader.head():
            await self._receive()

    async def receive(self) -> bytes:
        """Bytes of a connection that was taken over; none at its end."""
        rest = self.reader.rest()
        try:
            return rest or await self._in.read(_PIECE)
        except ConnectionResetError:
            return b""

    async def _receive(self) -> None:
        try:
            self.reader.feed(await self._in.read(_PIECE))
        except ConnectionResetError:
            self.reader.feed(b"")

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, as it comes."""
        while (piece := self.reader.piece()) != b"":
            if piece is None:
                await self._receive()
            else:
                yield piece

    async def give(self, data: bytes) -> None:
        """Send to a connection that was taken over, and close our half."""
        try:
            self._out.write(data)
            await self._out.drain()
            self._out.write_eof()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the process does not read any more: what it says still comes

    def close(self) -> None:
        """Hang up."""
        self._out.close()


class AsyncAnswer:
    """A response whose body is still to come. Close it, or read it to its end."""

    def __init__(self, client: AsyncClient, connection: AsyncConnection) -> None:
        self._client = client
        self._connection = connection
        self._ended = False

    def _end(self) -> None:
        """Give the connection back; from here on it is not ours."""
        self._ended = True
        self._client.keep(self._connection)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, as it comes."""
        async for piece in self._connection.pieces():
            yield piece
        self._end()

    async def lines(self) -> AsyncIterator[Any]:
        """The JSON values of the body, as they come."""
        lines = Lines()
        async for piece in self.pieces():
            for value in lines.feed(piece):
                yield value
        for value in lines.feed(b""):
            yield value

    async def document(self) -> Any:
        """The JSON value of the whole body."""
        body = b"".join([piece async for piece in self._connection.pieces()])
        self._end()
        return document_of(self._connection.reader, body)

    def close(self) -> None:
        """Give up on the rest of the body; nothing when it was read to its end."""
        if not self._ended:
            self._ended = True
            self._connection.close()


class AsyncClient:
    """Performs calls, for the tasks of one event loop."""

    def __init__(self, path: str, refuse: Refuse) -> None:
        self.path = path
        self._refuse = refuse
        self._idle: list[AsyncConnection] = []

    async def call(self, call: Call) -> Any:
        """Perform `call` and give back the JSON value of its answer, None for an empty one."""
        connection = await self._begin(call)
        answer = AsyncAnswer(self, connection)
        try:
            return await answer.document()
        finally:
            answer.close()

    async def open(self, call: Call) -> AsyncAnswer:
        """Perform `call` and return as soon as the head of its answer is there."""
        return AsyncAnswer(self, await self._begin(call))

    async def upgrade(self, call: Call) -> tuple[AsyncConnection, bool]:
        """Perform `call` and take its connection over: connection, whether it is framed."""
        connection = await self._begin(call)
        if connection.reader.status not in (101, 200):
            connection.close()
            status = connection.reader.status
            raise ProtocolError(f"the daemon did not upgrade the connection: {status}")
        kind = connection.reader.headers.get("content-type", "")
        return connection, kind.endswith("multiplexed-stream")

    def keep(self, connection: AsyncConnection) -> None:
        """Keep a connection whose answer has ended for the next call, or close it."""
        if connection.reader.reusable:
            connection.reused = True
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    async def _begin(self, call: Call) -> AsyncConnection:
        connection = await self._send(call)
        if connection.reader.status < 400:
            return connection
        body = b"".join([piece async for piece in connection.pieces()])
        self.keep(connection)
        reader = connection.reader
        raise self._refuse(call, reader.status, message_of(body) or reader.reason)

    async def _send(self, call: Call) -> AsyncConnection:
        while True:
            if self._idle:
                connection = self._idle.pop()
            else:
                connection = await AsyncConnection.open(self.path)
            try:
                await connection.send(call)
                return connection
            except ProtocolError:
                connection.close()
                stale = connection.reused and connection.reader.untouched
                if not stale or call.upload is not None:
                    raise
            except BaseException:
                connection.close()
                raise


class AsyncDriver:
    """Drives flows with an asynchronous client."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    async def drive(self, flow: Flow[T]) -> T:
        """Perform the steps of `flow`, and give back what it comes to."""
        try:
            step = next(flow)
            while True:
                try:
                    reply = await self._perform(step)
                except BaseException as error:  # thrown into the flow, which undoes and raises it
                    step = flow.throw(error)
                else:
                    step = flow.send(reply)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    async def _perform(self, step: Step) -> Any:
        match step:
            case flows.Open():
                return await self.client.open(step.call)
            case flows.Read():
                return await _in_time(step.handle.document(), step.timeout)
            case flows.Close():
                return _close(step.handle)
            case flows.Upgrade():
                return await self.client.upgrade(step.call)
            case flows.Talk():
                return await _in_time(_talk(step), step.timeout)
            case flows.Each():
                return await _each(await self.client.open(step.call), step.function)
            case _:
                return await self.client.call(step)


async def _each(answer: AsyncAnswer, function: Callable[[Any], None]) -> None:
    try:
        async for line in answer.lines():
            function(line)
    except BaseException:
        answer.close()
        raise


def _close(handle: Any) -> None:
    (handle[0] if isinstance(handle, tuple) else handle).close()


async def _in_time(work: Any, timeout: float | None) -> Any:
    try:
        async with asyncio.timeout(timeout):
            return await work
    except TimeoutError as error:
        raise DeadlineExceeded("wait for container: the time given was not enough") from error


async def _talk(step: flows.Talk) -> None:
    if isinstance(step.handle, AsyncAnswer):
        async for piece in step.handle.pieces():
            step.output.feed(piece)
        return
    connection, framed = step.handle
    step.output.begin(framed=framed)
    try:
        async with asyncio.TaskGroup() as group:
            if step.data is not None:
                group.create_task(connection.give(step.data))
            while data := await connection.receive():
                step.output.feed(data)
    except BaseExceptionGroup as group_error:
        raise group_error.exceptions[0] from None
