"""One call of the API, as a handler sees it: the engine, the name in the path, query and body.

Query values follow Docker's rules: a flag is false when it is absent, empty, `0`, `no`, `false` or
`none`, and true otherwise. `filters` is JSON, a map of names to a list or to a map of values to
true. A JSON body is refused with a content type other than `application/json`: a web page cannot
send that across origins without being asked first.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import parse_qs

import msgspec
from aiohttp.web_protocol import RequestPayloadError

from sampan.api.docker import versions
from sampan.api.docker.hijack import Connection, TakenOver, upgraded_head
from sampan.errors import DeadlineExceeded, InvalidArgument, NotImplementedHere

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.web_request import BaseRequest

    from sampan.api.docker.listing import Lines
    from sampan.builder.builder import Builder
    from sampan.builder.ondemand import OnDemand
    from sampan.engine.engine import Engine

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MAX_BODY = 4 << 20
BODY_SECONDS = 60.0
_DOCKERS_OWN = "Docker-Client/"
_READS_ON = (_DOCKERS_OWN, "Go-http-client/")
"""Clients of Go's, which keep what came with the head; those in Python lose it."""

_KEY = re.compile(r"object keys must be strings \(byte ([0-9]+)\)")
_FALSE = frozenset(("", "0", "no", "false", "none"))
_decode_filters = msgspec.json.Decoder(dict[str, list[str] | dict[str, bool]]).decode


class Decoder(Protocol[T_co]):
    """What makes a body of JSON."""

    def decode(self, content: bytes, /) -> T_co:
        """The body. Raises msgspec.MsgspecError."""


class Call:
    """One request, after routing."""

    __slots__ = ("_builder", "_query", "engine", "lines", "minor", "name", "request")

    def __init__(
        self,
        engine: Engine,
        request: BaseRequest,
        name: str,
        minor: int,
        lines: Lines,
        builder: OnDemand | None = None,
    ) -> None:
        self.engine = engine
        self._builder = builder
        self.request = request
        self.name = name
        """What the path names: a container, an exec, an image; "" where it names nothing."""
        self.minor = minor
        """The minor number of the API version that was asked for."""
        self.lines = lines
        """The lines of containers that were told last."""
        self._query: dict[str, list[str]] | None = None

    async def builder(self) -> Builder:
        """What builds images. Raises NotImplementedHere where nothing does."""
        if self._builder is None:
            raise NotImplementedHere("this engine has no builder")
        return await self._builder.get()

    def values(self, key: str) -> list[str]:
        """Every value of a query parameter."""
        if self._query is None:
            query = self.request.rel_url.raw_query_string
            self._query = parse_qs(query, keep_blank_values=True) if query else {}
        return self._query.get(key, [])

    def text(self, key: str, default: str = "") -> str:
        """The first value of a query parameter."""
        found = self.values(key)
        return found[0] if found else default

    def flag(self, key: str, default: bool = False) -> bool:
        """A query parameter as a boolean."""
        found = self.values(key)
        return found[0].strip().lower() not in _FALSE if found else default

    def number(self, key: str) -> int | None:
        """A query parameter as an integer; None when it is absent or empty.

        Raises:
            InvalidArgument: it is something else.
        """
        text = self.text(key)
        if not text:
            return None
        try:
            return int(text)
        except ValueError:
            raise InvalidArgument(f"query parameter {key}: {text!r} is not a number") from None

    def filters(self) -> dict[str, list[str]]:
        """The `filters` parameter: name -> values.

        Raises:
            InvalidArgument: it is not the JSON that it should be.
        """
        text = self.text("filters")
        if not text:
            return {}
        try:
            found = _decode_filters(text)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"invalid filter: {error}") from error
        return {
            name: values if isinstance(values, list) else [key for key, on in values.items() if on]
            for name, values in found.items()
        }

    async def json(self, decoder: Decoder[T]) -> T | None:
        """The body, decoded; None when there is none, or null in its place.

        Raises:
            InvalidArgument: another content type, too long, or not what it should be.
        """
        content = await self.body()
        if content.strip() in (b"", b"null"):
            return None
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise InvalidArgument(
                f"unsupported Content-Type header ({kind}): must be 'application/json'"
            )
        try:
            return decoder.decode(content)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"invalid JSON: {in_gos_words(error, content)}") from error

    async def needed_json(self, decoder: Decoder[T]) -> T:
        """`json`, of a body that must be there. Raises InvalidArgument."""
        found = await self.json(decoder)
        if found is None:
            raise InvalidArgument("invalid JSON: got EOF while reading request body")
        return found

    async def body(self) -> bytes:
        """The whole body, at most `MAX_BODY` bytes, within `BODY_SECONDS`."""
        length = self.request.content_length
        if length is not None and length > MAX_BODY:
            raise InvalidArgument(f"the body is larger than {MAX_BODY} bytes")
        payload = self.request.content
        if payload.is_eof() and length is not None:
            return await payload.read()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self._read_body()
        except TimeoutError as error:
            raise DeadlineExceeded("read the body: it did not come in time") from error
        except RequestPayloadError as error:
            raise InvalidArgument("read the body: it broke off") from error

    async def stream(self) -> AsyncIterator[bytes]:
        """The body as it comes, however long it is; each piece within `BODY_SECONDS`.

        Raises:
            InvalidArgument: the client broke off; DeadlineExceeded: it stopped sending.
        """
        content = self.request.content
        while True:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    part = await content.readany()
            except TimeoutError as error:
                raise DeadlineExceeded("read the body: it did not come in time") from error
            except RequestPayloadError as error:
                raise InvalidArgument("read the body: it broke off") from error
            if not part:
                return
            yield part

    async def _read_body(self) -> bytes:
        parts: list[bytes] = []
        total = 0
        async for part in self.request.content.iter_any():
            total += len(part)
            if total > MAX_BODY:
                raise InvalidArgument(f"the body is larger than {MAX_BODY} bytes")
            parts.append(part)
        return b"".join(parts)

    @property
    def connection(self) -> Connection:
        """The connection that the request came by."""
        connection = self.request.protocol
        assert isinstance(connection, Connection)
        return connection

    @property
    def is_dockers_own(self) -> bool:
        """Whether the client is docker's command, or a program that says so."""
        return self._agent.startswith(_DOCKERS_OWN)

    @property
    def _agent(self) -> str:
        return self.request.headers.get("User-Agent", "")

    def cancel_when_gone(self) -> None:
        """Cancel this handler when the client closes: it only waits and writes for it."""
        self.connection.cancel_when_gone(asyncio.current_task())

    def take_over(self, is_raw: bool) -> int:
        """Answer with the head of a raw stream; gives the descriptor of the stream.

        Before API 1.42 the content type was raw-stream whatever the stream was.
        """
        upgrade = self.request.headers.get("Upgrade", "").lower() == "tcp"
        return self.connection.take_over(
            upgraded_head(is_raw or self.minor < versions.FRAMED_TYPE, upgrade)
        )

    @property
    def reads_on(self) -> bool:
        """Whether the client is known to read what follows a head out of the same buffer; others
        must have read the head before anything else is written."""
        return self._agent.startswith(_READS_ON)

    async def take_over_settled(self, is_raw: bool) -> int:
        """`take_over`, and wait until the client has read the head, where that matters."""
        fd = self.take_over(is_raw)
        if self.reads_on:
            return fd
        try:
            await self.connection.wait_until_read(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def taken_over(self) -> TakenOver:
        """What a handler returns after `take_over`."""
        return TakenOver()

    async def taken_over_with(self, farewell: bytes) -> TakenOver:
        """The same; `farewell` is written before the close."""
        transport = self.request.transport
        if transport is not None:
            if not self.reads_on:
                await self.connection.wait_until_read(transport.get_extra_info("socket").fileno())
            transport.write(farewell)
        return TakenOver()


def in_gos_words(error: msgspec.MsgspecError, content: bytes) -> str:
    """What is wrong with `content`; where dockerd has a sentence for it, that one."""
    found = _KEY.search(str(error))
    if found is None:
        return str(error)
    char = content[int(found[1]) :].decode(errors="replace")[:1]
    return f"invalid character '{char}' looking for beginning of object key string"
