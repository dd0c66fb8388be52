"""What a build gets beside its request: secrets, which must not travel in a URL, and contexts.

A client sends each first and is given a token; the request of the build names the tokens. They
wait in memory (contexts in files without names), count once, and are dropped after a while.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from sampan.api.docker import answers
from sampan.api.docker.images import parts
from sampan.errors import InvalidArgument, NotFound, ResourceExhausted
from sampan.ids import new_id
from sampan.wire import build as bodies

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call
    from sampan.builder.files.service import Context
    from sampan.builder.files.sources import Comparison

T = TypeVar("T")

MAX_KEPT: Final = 64
MAX_SECRET: Final = 500_000
KEPT_S: Final = 300.0
_decode = msgspec.json.Decoder(bodies.BuildSecrets)

Secrets = tuple[dict[str, bytes], dict[str, str]]


class _Waiting(Generic[T]):
    """Things that wait for their builds, by token."""

    def __init__(self, what: str, drop: Callable[[T], None]) -> None:
        self._what = what
        self._drop = drop
        self._things: dict[str, tuple[T, asyncio.TimerHandle]] = {}

    def put(self, thing: T) -> str:
        """Keep a thing; its token.

        Raises:
            ResourceExhausted: too many wait.
        """
        if len(self._things) >= MAX_KEPT:
            self._drop(thing)
            raise ResourceExhausted(f"more than {MAX_KEPT} {self._what} wait for their builds")
        token = new_id()
        timer = asyncio.get_running_loop().call_later(KEPT_S, self._expire, token)
        self._things[token] = (thing, timer)
        return token

    def _expire(self, token: str) -> None:
        thing, _ = self._things.pop(token)
        self._drop(thing)

    def take(self, token: str) -> T:
        """What a token stands for, once. Raises NotFound."""
        found = self._things.pop(token, None)
        if found is None:
            raise NotFound(f"no such {self._what}: the token was used, or is too old")
        found[1].cancel()
        return found[0]


_secrets: _Waiting[Secrets] = _Waiting("secrets", lambda _: None)
_synced: _Waiting[Comparison] = _Waiting("contexts", lambda found: found.close())
_contexts: _Waiting[Context] = _Waiting("contexts", lambda context: context.close())


async def secrets(call: Call) -> StreamResponse:
    """POST /build/secrets"""
    body = await call.json(_decode)
    if body is None:
        raise InvalidArgument("keep secrets: a body is needed")
    values: dict[str, bytes] = {}
    for name, text in body.secrets.items():
        try:
            values[name] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidArgument("keep secrets: a value is not base64") from None
        if len(values[name]) > MAX_SECRET:
            raise InvalidArgument(f"keep secrets: one is larger than {MAX_SECRET} bytes")
    return answers.json(bodies.SecretsKept(id=_secrets.put((values, body.ssh))), status=201)


async def contexts(call: Call) -> StreamResponse:
    """POST /build/contexts: a tar that a later build has under a name"""
    context = await (await call.builder()).receive(parts(call))
    token = _contexts.put(context)
    return answers.json(bodies.ContextKept(id=token, entries=context.entries), status=201)


async def sync(call: Call) -> StreamResponse:
    """POST /build/contexts/sync?key: the manifest of a directory; what of it is missing here"""
    found = await (await call.builder()).compare(call.text("key"), parts(call))
    missing = found.missing
    return answers.json(bodies.ContextCompared(id=_synced.put(found), missing=missing), status=201)


def taken_comparison(call: Call) -> Comparison | None:
    """The comparison that a build goes on from."""
    token = call.text("sampansync")
    return _synced.take(token) if token else None


def taken_secrets(call: Call) -> Secrets:
    """The secrets and agents that a build names."""
    token = call.text("sampansecrets")
    return _secrets.take(token) if token else ({}, {})


def taken_contexts(call: Call) -> dict[str, Context | str]:
    """The named contexts of a build: `name=token:...`, `name=docker-image://...`, `name=URL`."""
    found: dict[str, Context | str] = {}
    try:
        for text in call.values("context"):
            name, equals, value = text.partition("=")
            if not name or not equals or not value:
                raise InvalidArgument(f"invalid context {text[:160]!r}: expected name=where")
            token = value.removeprefix("token:")
            found[name] = value if token == value else _contexts.take(token)
    except BaseException:
        close(found)
        raise
    return found


def close(contexts: dict[str, Context | str]) -> None:
    """Let contexts go."""
    for context in contexts.values():
        if not isinstance(context, str):
            context.close()
