"""/build: a context comes as a tar, what happens goes back as lines; and the cache's upkeep.

The classic protocol of dockerd. Where its builder has a parameter and this one has not, the request
is refused instead of half obeyed. Our own client asks for `notes=1`, a stream that tells stages and
places, and for `check=1`, which builds nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sampan.api.docker import answers, buildinputs, streaming
from sampan.api.docker.ages import parse_moment, rfc3339
from sampan.api.docker.buildoptions import options_of
from sampan.api.docker.buildstream import Classic, Notes
from sampan.api.docker.images import parts
from sampan.builder import fetch, git, sbom
from sampan.builder.files.sources import Synced
from sampan.errors import InvalidArgument, NotImplementedHere
from sampan.spec.reference import Reference
from sampan.wire import build as bodies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.building import Handler
    from sampan.api.docker.call import Call
    from sampan.builder.builder import Content
    from sampan.builder.model import BuildOptions

_EMPTY_TAR: Final = bytes(1024)


async def build(call: Call) -> StreamResponse:
    """POST /build?dockerfile&t&remote&q&nocache&cachefrom&pull&rm&forcerm&memory&memswap&cpushares&cpusetcpus&cpuperiod&cpuquota&shmsize&buildargs&labels&extrahosts&networkmode&platform&target&squash&outputs&version"""  # noqa: E501 - the query is described from here
    contexts = buildinputs.taken_contexts(call)
    content: Content = ""
    try:
        options = options_of(call, *buildinputs.taken_secrets(call), contexts)
        content, dockerfile = await _content(call)
        if call.flag("check"):
            return await _check(call, content, options, dockerfile)
        return await _build(call, content, options, dockerfile)
    finally:
        buildinputs.close(contexts)
        if isinstance(content, Synced):
            content.comparison.close()


async def _build(
    call: Call, content: Content, options: BuildOptions, dockerfile: bytes | None
) -> StreamResponse:
    builder = await call.builder()

    async def work(lines: streaming.Lines) -> None:
        quiet = call.flag("q")
        told: Classic | Notes
        if call.flag("notes"):
            told = Notes(lines)
        else:
            told = Classic(lines, quiet=quiet, removes=call.flag("rm", default=True))
        try:
            result = await builder.build(content, options, told.report, dockerfile=dockerfile)
        except BaseException:
            told.flush()
            raise
        told.finish(result, _tags(call))

    return await streaming.run(call, work)


async def _check(
    call: Call, content: Content, options: BuildOptions, dockerfile: bytes | None
) -> StreamResponse:
    """What is allowed in the Dockerfile and probably wrong; nothing is built."""
    found = await (await call.builder()).check(content, options, dockerfile=dockerfile)
    warnings = [
        bodies.CheckWarning(
            rule=one.rule,
            text=one.text,
            file=one.place.file,
            line=one.place.line,
            column=one.place.column,
        )
        for one in found.warnings
    ]
    return answers.json(bodies.BuildChecked(warnings=warnings, failed=found.failed))


def _tags(call: Call) -> tuple[str, ...]:
    """The names that were asked for, as people write them."""
    names = [Reference.parse(text).with_default_tag() for text in call.values("t") if text]
    return tuple(dict.fromkeys(name.familiar() for name in names))


async def _content(call: Call) -> tuple[Content, bytes | None]:
    """The context, and the Dockerfile where it is not in the context."""
    comparison = buildinputs.taken_comparison(call)
    if comparison is not None:
        return Synced(comparison, parts(call)), None
    remote = call.text("remote")
    if not remote:
        return parts(call), None
    if git.is_repository(remote):
        return remote, None
    if not fetch.is_remote(remote):
        raise InvalidArgument(f"build from {remote[:200]!r}: only URLs are supported")
    text = await (await call.builder()).document(remote)
    return (remote, None) if text is None else (_once(_EMPTY_TAR), text)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def prune(call: Call) -> StreamResponse:
    """POST /build/prune?all&keep-storage&reserved-space&max-used-space&min-free-space&filters"""
    filters = call.filters()
    if unknown := filters.keys() - {"until", "unused-for", "label", "label!"}:
        raise InvalidArgument(f"invalid filter '{min(unknown)}'")
    if filters.get("label"):  # `system prune` passes it to everything; the cache has no labels
        return answers.json(bodies.CachePruned(caches_deleted=None, space_reclaimed=0))
    before = None
    for text in (*filters.get("until", ()), *filters.get("unused-for", ())):
        before = parse_moment(text, time.time_ns())
    if call.number("min-free-space"):
        raise NotImplementedHere("prune until so much is free: say how much may stay instead")
    sizes = (call.number(name) for name in ("keep-storage", "reserved-space", "max-used-space"))
    keep = max((size for size in sizes if size), default=0)
    done = await (await call.builder()).prune(before_ns=before, keep=keep)
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
        for record in await (await call.builder()).usage()
    ]


async def bill(call: Call) -> StreamResponse:
    """GET /images/{name}/sbom"""
    content = await (await call.builder()).sbom(call.name)
    return answers.text(content, {"Content-Type": sbom.MEDIA_TYPE})


async def no_session(_: Call) -> StreamResponse:
    """POST /session and /grpc: a client's half of BuildKit, which has no other half here"""
    raise NotImplementedHere(
        "sessions of BuildKit are not served: set DOCKER_BUILDKIT=0, and docker build sends its "
        "files as an archive; or build with sampan build"
    )


HANDLERS: Final[dict[tuple[str, ...], Handler]] = {
    ("GET", "images", "sbom"): bill,
    ("POST", "/build"): build,
    ("POST", "/build/prune"): prune,
    ("POST", "/session"): no_session,
    ("POST", "/grpc"): no_session,
    ("POST", "/build/contexts"): buildinputs.contexts,
    ("POST", "/build/contexts/sync"): buildinputs.sync,
    ("POST", "/build/secrets"): buildinputs.secrets,
}
