"""/distribution/*: what registries have. `json` is Docker's; `manifest`, `tags`, `referrers` and
`copy` are ours, for what its clients do without a daemon."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sampan.api.docker import answers, pictures, streaming
from sampan.api.docker.images import credentials_of
from sampan.errors import InvalidArgument
from sampan.registry.searching import MAX_FOUND
from sampan.wire import distribution as bodies
from sampan.wire import progress

DEFAULT_FOUND = 25

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call
    from sampan.images.remote import Remote
    from sampan.registry.searching import Found


MAX_ATTACHED: Final = 64 << 20
_ARTIFACT: Final = re.compile(r"[a-z]+/[a-z0-9.+-]{1,100}", re.ASCII)


async def inspect(call: Call) -> StreamResponse:
    """GET /distribution/{name}/json"""
    found = await _remote(call).manifest()
    return answers.json(
        bodies.Inspect(
            descriptor=pictures.descriptor(found.descriptor),
            platforms=[
                bodies.Platform(
                    architecture=platform.architecture, os=platform.os, variant=platform.variant
                )
                for platform in found.platforms
            ],
        )
    )


async def manifest(call: Call) -> StreamResponse:
    """GET /distribution/{name}/manifest: its bytes as the registry has them"""
    found = await _remote(call).manifest()
    headers = {
        "Content-Type": found.descriptor.media_type,
        "Docker-Content-Digest": str(found.descriptor.digest),
    }
    return answers.text(found.content, headers)


async def tags(call: Call) -> StreamResponse:
    """GET /distribution/{name}/tags"""
    return answers.json(bodies.Tags(name=call.name, tags=list(await _remote(call).tags())))


async def referrers(call: Call) -> StreamResponse:
    """GET /distribution/{name}/referrers?artifactType"""
    digest, found = await _remote(call).referrers(call.text("artifactType"))
    return answers.json(
        bodies.Referrers(
            subject=str(digest), referrers=[pictures.descriptor(entry) for entry in found]
        )
    )


async def attach(call: Call) -> StreamResponse:
    """POST /distribution/{name}/attach?artifactType: the body becomes a referrer of the image"""
    kind = call.text("artifactType")
    if _ARTIFACT.fullmatch(kind) is None:
        raise InvalidArgument(f"attach: invalid artifactType {kind[:80]!r}")
    content = b"".join([part async for part in call.stream()])
    if not content or len(content) > MAX_ATTACHED:
        raise InvalidArgument(f"attach: a document of 1 to {MAX_ATTACHED} bytes is needed")
    digest = await _remote(call).attach(kind, content)
    return answers.json(bodies.Attached(digest=str(digest)), status=201)


async def copy(call: Call) -> StreamResponse:
    """POST /distribution/copy?from&to"""
    source, destination = call.text("from"), call.text("to")
    if not source or not destination:
        raise InvalidArgument("copy an image: from and to are needed")
    auth, other = credentials_of(call), credentials_of(call, "X-Registry-Auth-Destination")

    async def work(lines: streaming.Lines) -> None:
        digest = await call.engine.images.copy(
            source, destination, auth=auth, destination_auth=other, progress=lines.report
        )
        lines.add(progress.aux({"Digest": str(digest)}))

    return await streaming.run(call, work)


async def search(call: Call) -> StreamResponse:
    """GET /images/search?term&limit&filters: a term may begin with a registry's name"""
    term, limit = call.text("term"), call.number("limit") or DEFAULT_FOUND
    if not term:
        raise InvalidArgument("search: a term is needed")
    if not 1 <= limit <= MAX_FOUND:
        raise InvalidArgument(f"invalid limit {limit}: it must be between 1 and {MAX_FOUND}")
    registry, slash, rest = term.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, rest = "docker.io", term
    passes = _search_filter(call.filters())
    remote = call.engine.images.remote(f"{registry}/search", credentials_of(call))
    return answers.json(
        [
            bodies.SearchResult(
                description=one.description,
                is_automated=one.automated,
                is_official=one.official,
                name=one.name if registry == "docker.io" else f"{registry}/{one.name}",
                star_count=one.stars,
            )
            for one in await remote.search(rest, limit)
            if passes(one)
        ]
    )


def _search_filter(filters: dict[str, list[str]]) -> Callable[[Found], bool]:
    unknown = set(filters) - {"is-automated", "is-official", "stars"}
    if unknown:
        raise InvalidArgument(f"invalid filter '{min(unknown)}'")
    stars = filters.get("stars", ["0"])
    if not all(value.isdigit() for value in stars):
        raise InvalidArgument(f"invalid filter 'stars={stars}'")

    def passes(found: Found) -> bool:
        official = filters.get("is-official", [str(found.official).lower()])
        automated = filters.get("is-automated", [str(found.automated).lower()])
        return (
            found.stars >= max(map(int, stars))
            and str(found.official).lower() in official
            and str(found.automated).lower() in automated
        )

    return passes


def _remote(call: Call) -> Remote:
    return call.engine.images.remote(call.name, credentials_of(call))


PATHS = {
    ("GET", "/images/search"): search,
    ("POST", "/distribution/copy"): copy,
}
NAMED = {
    ("GET", "distribution", "json"): inspect,
    ("POST", "distribution", "attach"): attach,
    ("GET", "distribution", "manifest"): manifest,
    ("GET", "distribution", "referrers"): referrers,
    ("GET", "distribution", "tags"): tags,
}
