"""The blocking client: performs calls over a unix socket, on connections that it keeps.

A call that answers with one document goes through `call`; one that answers for a long time
through `open` (an `Answer`, whose head has come when `open` returns, which is what a wait must be
before its container is started); one that takes the connection over through `upgrade`. Each holds
a connection of its own; connections whose answers ended are used again.

An answer of status 400 or more is raised as what the `refuse` given at construction makes of it.
A connection that the daemon had closed while it was idle is replaced without a word.
"""

from __future__ import annotations

import _socket  # `socket` costs ten milliseconds more, for names of constants
import select

from sampan.client.http import ProtocolError, Reader, chunk, request
from sampan.client.streams import Lines
from sampan.errors import InvalidArgument, Unavailable
from sampan.jsontext import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Self

    from sampan.client.calls import Call

    Refuse = Callable[["Call", int, str], Exception]

_PIECE = 65536
_MAX_DOCUMENT = 256 << 20


class Connection:
    """One connection and the reader of its responses."""

    __slots__ = ("_reader", "_socket", "reused")

    def __init__(self, path: str) -> None:
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._reader = Reader()
        self.reused = False
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            if error.errno is None:  # only a path that is too long has none
                raise InvalidArgument(f"connect to {path}: {error}") from error
            raise

    @property
    def reader(self) -> Reader:
        """What is known of the response."""
        return self._reader

    def fileno(self) -> int:
        """For poll."""
        return self._socket.fileno()

    def send(self, call: Call) -> None:
        """Send a request and read the head of its response."""
        self._reader.begin(call.method)
        chunked = call.upload is not None
        try:
            self._socket.sendall(
                request(call.method, call.target, call.headers, call.body, chunked=chunked)
            )
            for data in call.upload or ():
                if data:
                    self._socket.sendall(chunk(data))
            if chunked:
                self._socket.sendall(chunk(b""))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the daemon may have refused in the middle of an upload: its answer says why
        while not self._reader.head():
            self._receive()

    def _receive(self) -> None:
        try:
            self._reader.feed(self._socket.recv(_PIECE))
        except ConnectionResetError:
            self._reader.feed(b"")

    def pieces(self) -> Iterator[bytes]:
        """The body, as it comes."""
        while (piece := self._reader.piece()) != b"":
            if piece is None:
                self._receive()
            else:
                yield piece

    def whole(self) -> bytes:
        """The body."""
        parts, size = [], 0
        for piece in self.pieces():
            parts.append(piece)
            size += len(piece)
            if size > _MAX_DOCUMENT:
                raise Unavailable(f"answer of more than {_MAX_DOCUMENT} bytes")
        return b"".join(parts)

    def take(self) -> tuple[_socket.socket, bytes]:
        """The socket and what came after the head; this object is no more its owner."""
        return self._socket, self._reader.rest()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class Answer:
    """A response whose body is still to come. Close it, or read it to its end."""

    __slots__ = ("_client", "_connection", "_ended")

    def __init__(self, client: Client, connection: Connection) -> None:
        self._client = client
        self._connection = connection
        self._ended = False

    def _end(self) -> None:
        """Give the connection back; from here on it is not ours."""
        self._ended = True
        self._client.keep(self._connection)

    @property
    def headers(self) -> dict[str, str]:
        """The headers, their names in lower case."""
        return self._connection.reader.headers

    def fileno(self) -> int:
        """For poll: readable when more of the body came."""
        return self._connection.fileno()

    def ready(self, milliseconds: int = 0) -> bool:
        """Whether more of the body is there, or comes in time."""
        if self._connection.reader.buffered:
            return True
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(milliseconds))

    def pieces(self) -> Iterator[bytes]:
        """The body, as it comes."""
        yield from self._connection.pieces()
        self._end()

    def lines(self) -> Iterator[Any]:
        """The JSON values of the body, as they come."""
        lines = Lines()
        for piece in self.pieces():
            yield from lines.feed(piece)
        yield from lines.feed(b"")

    def document(self) -> Any:
        """The JSON value of the whole body; blocks until it ends."""
        document = document_of(self._connection.reader, self._connection.whole())
        self._end()
        return document

    def close(self) -> None:
        """Give up on the rest of the body; nothing when it was read to its end."""
        if not self._ended:
            self._ended = True
            self._client.drop(self._connection)


class Client:
    """Performs calls, blocking. Threads may share it; each call has a connection to itself."""

    __slots__ = ("_busy", "_idle", "_refuse", "path")

    def __init__(self, path: str, refuse: Refuse) -> None:
        self.path = path
        self._refuse = refuse
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> None:
        """Make sure that the daemon is there.

        Raises:
            OSError: nobody listens at the socket.
        """
        if not self._idle:
            self._idle.append(Connection(self.path))

    def call(self, call: Call) -> Any:
        """Perform `call` and give back the JSON value of its answer, None for an empty one.

        Raises:
            Exception: what `refuse` makes of a status of 400 or more.
            Unavailable: the connection broke.
        """
        connection = self._begin(call)
        body = connection.whole()
        self.keep(connection)
        return document_of(connection.reader, body)

    def open(self, call: Call) -> Answer:
        """Perform `call` and return as soon as the head of its answer is there."""
        return Answer(self, self._begin(call))

    def upgrade(self, call: Call) -> tuple[_socket.socket, bytes, bool]:
        """Perform `call` and take its connection over: socket, first bytes, whether framed."""
        connection = self._begin(call)
        reader = connection.reader
        if reader.status not in (101, 200):
            connection.close()
            raise ProtocolError(f"the daemon did not upgrade the connection: {reader.status}")
        framed = reader.headers.get("content-type", "").endswith("multiplexed-stream")
        raw, rest = connection.take()
        self._busy.discard(connection)
        return raw, rest, framed

    def keep(self, connection: Connection) -> None:
        """Keep a connection whose answer has ended for the next call, or close it."""
        self._busy.discard(connection)
        if connection.reader.reusable:
            connection.reused = True
            self._idle.append(connection)
        else:
            connection.close()

    def drop(self, connection: Connection) -> None:
        """Close a connection whose answer nobody wants any more."""
        self._busy.discard(connection)
        connection.close()

    def close(self) -> None:
        """Close every connection that was not taken over."""
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()
        self._busy.clear()

    def _begin(self, call: Call) -> Connection:
        connection = self._send(call)
        status = connection.reader.status
        if status < 400:
            return connection
        body = connection.whole()
        self.keep(connection)
        raise self._refuse(call, status, message_of(body) or connection.reader.reason)

    def _send(self, call: Call) -> Connection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = Connection(self.path)
            try:
                connection.send(call)
                self._busy.add(connection)
                return connection
            except ProtocolError:
                connection.close()
                stale = connection.reused and connection.reader.untouched
                if not stale or call.upload is not None:
                    raise
            except BaseException:
                connection.close()
                raise


def document_of(reader: Reader, body: bytes) -> Any:
    """The value of a whole body: JSON, text where it is no JSON, None where it is empty."""
    if not body or "json" not in reader.headers.get("content-type", "json"):
        return body.decode("utf-8", "replace") or None
    return decode(body)


def message_of(body: bytes) -> str:
    """The sentence in the body of a refusal."""
    try:
        document = decode(body)
    except ValueError:
        return body.decode("utf-8", "replace").strip()
    message = document.get("message") if isinstance(document, dict) else None
    return message if isinstance(message, str) else ""
