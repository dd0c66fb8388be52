"""/build: a context comes as a tar, what happens goes back as lines; and the cache's upkeep.

The classic protocol of dockerd. Where its builder has a parameter and this one has not, the request
is refused instead of half obeyed. Secrets do not travel in a URL: `POST /build/secrets` keeps them
in memory for one build, which names them by a token.
"""

from __future__ import annotations

import base64
import binascii
import time
from typing import TYPE_CHECKING, Final

import msgspec

from sampan.api.docker import answers, streaming
from sampan.api.docker.ages import parse_moment, rfc3339
from sampan.api.docker.buildoptions import options_of
from sampan.api.docker.buildstream import Classic
from sampan.api.docker.images import parts
from sampan.builder import fetch
from sampan.builder.files.index import is_archive
from sampan.errors import InvalidArgument, NotFound, NotImplementedHere
from sampan.ids import new_id
from sampan.spec.reference import Reference
from sampan.wire import build as bodies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call

MAX_KEPT: Final = 64
MAX_SECRET: Final = 500_000
KEPT_S: Final = 300.0
_EMPTY_TAR: Final = bytes(1024)
_decode_secrets = msgspec.json.Decoder(bodies.BuildSecrets)


class _Kept:
    """Secrets that wait for their builds, in memory, for a while."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[float, dict[str, bytes], dict[str, str]]] = {}

    def put(self, secrets: dict[str, bytes], ssh: dict[str, str]) -> str:
        """Keep them; the token."""
        now = time.monotonic()
        for token, (deadline, _, _) in list(self._waiting.items()):
            if deadline < now or len(self._waiting) >= MAX_KEPT:
                del self._waiting[token]
        token = new_id()
        self._waiting[token] = (now + KEPT_S, secrets, ssh)
        return token

    def take(self, token: str) -> tuple[dict[str, bytes], dict[str, str]]:
        """What a token stands for, once. Raises NotFound."""
        found = self._waiting.pop(token, None)
        if found is None:
            raise NotFound("no such secrets: the token was used, or is too old")
        return found[1], found[2]


_kept = _Kept()


async def secrets(call: Call) -> StreamResponse:
    """POST /build/secrets"""
    body = await call.json(_decode_secrets)
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
    return answers.json(bodies.SecretsKept(id=_kept.put(values, body.ssh)), status=201)


async def build(call: Call) -> StreamResponse:
    """POST /build: see `buildoptions` for the query"""
    token = call.text("sampansecrets")
    kept = _kept.take(token) if token else ({}, {})
    options = options_of(call, *kept)
    builder = call.builder
    content, dockerfile = await _content(call)

    async def work(lines: streaming.Lines) -> None:
        classic = Classic(lines, quiet=call.flag("q"), removes=call.flag("rm", default=True))
        try:
            result = await builder.build(content, options, classic.report, dockerfile=dockerfile)
        except BaseException:
            classic.flush()
            raise
        classic.finish(result, _tags(call))

    return await streaming.run(call, work)


def _tags(call: Call) -> tuple[str, ...]:
    """The names that were asked for, as people write them."""
    names = [Reference.parse(text).with_default_tag() for text in call.values("t") if text]
    return tuple(dict.fromkeys(name.familiar() for name in names))


async def _content(call: Call) -> tuple[AsyncIterator[bytes], bytes | None]:
    """The context, and the Dockerfile where it is not in the context."""
    remote = call.text("remote")
    if not remote:
        return parts(call), None
    if not fetch.is_remote(remote):
        raise NotImplementedHere(f"build from {remote[:200]!r}: only http(s) URLs are supported")
    found = await fetch.fetch(remote)
    if is_archive(found.content[:512]):
        return _once(found.content), None
    return _once(_EMPTY_TAR), found.content


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def prune(call: Call) -> StreamResponse:
    """POST /build/prune?all&keep-storage&filters={"until": ...}"""
    filters = call.filters()
    if unknown := filters.keys() - {"until", "unused-for"}:
        raise InvalidArgument(f"invalid filter '{min(unknown)}'")
    before = None
    for text in (*filters.get("until", ()), *filters.get("unused-for", ())):
        before = parse_moment(text, time.time_ns())
    keep = call.number("keep-storage") or call.number("reserved-space") or 0
    done = await call.builder.prune(before_ns=before, keep=keep)
    return answers.json(
        bodies.CachePruned(
            caches_deleted=list(done.ids) or None,
            space_reclaimed=done.reclaimed,
        )
    )


async def usage(call: Call) -> list[bodies.CacheRecord]:
    """The cache in GET /system/df."""
    return [
        bodies.CacheRecord(
            id=record.id,
            parents=[record.parent] if record.parent else None,
            type=record.kind,
            description=record.title,
            shared=record.shared,
            size=record.size,
            created_at=rfc3339(record.created_ns),
            last_used_at=rfc3339(record.used_ns),
            usage_count=record.uses,
        )
        for record in await call.builder.usage()
    ]


PATHS = {
    ("POST", "/build"): build,
    ("POST", "/build/prune"): prune,
    ("POST", "/build/secrets"): secrets,
}
