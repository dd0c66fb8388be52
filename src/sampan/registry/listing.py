"""What a repository has: its tags, and what refers to a manifest.

Referrers are asked for at the registry's own endpoint (distribution specification 1.1) and, where a
registry does not know that, found under the tag that takes its place: the digest with a dash. Pages
are followed while they lead to the registry itself, up to a bound.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sampan.errors import FailedPrecondition, NotFound
from sampan.registry import http
from sampan.registry.hosts import Origin, shown
from sampan.spec import documents, mediatypes
from sampan.spec.image import MAX_MANIFEST, Descriptor, Index, media_type_of

if TYPE_CHECKING:
    from yarl import URL

    from sampan.registry.session import Session
    from sampan.spec.digest import Digest

MAX_PAGES: Final = 200
MAX_TAGS: Final = 100_000
_PAGE: Final = 1000
_TAGS: Final = frozenset(("name", "tags"))
_NEXT: Final = re.compile(r'\s*<([^>]{1,2000})>\s*;\s*rel="?next"?', re.ASCII)


async def tags(session: Session) -> list[str]:
    """Every tag of a repository, sorted.

    Raises:
        NotFound: there is no such repository.
        Unauthenticated, PermissionDenied, Unavailable: as the registry answers.
    """
    found: list[str] = []
    doing = f"list tags of {session.reference.familiar_name()}"
    url: URL | None = session.url("tags", "list").extend_query(n=_PAGE)
    for _ in range(MAX_PAGES):
        if url is None:
            break
        async with session.request("GET", url) as response:
            if response.status != 200:
                raise await session.failure(response, doing)
            content = await http.read_bounded(response, MAX_MANIFEST, "tags")
            following = next_page(session, response.headers.get("Link", ""), response.url)
        found += documents.parse(content, "tags", _TAGS, MAX_MANIFEST).texts("tags", MAX_TAGS)
        if len(found) > MAX_TAGS:
            raise FailedPrecondition(f"{doing}: more than {MAX_TAGS}")
        url = following
    return sorted(set(found))


async def referrers(session: Session, subject: Digest, artifact_type: str = "") -> list[Descriptor]:
    """The manifests that refer to `subject`, perhaps of one type only.

    Raises:
        Unauthenticated, PermissionDenied, Unavailable: as the registry answers.
        InvalidArgument: the answer is no index.
    """
    found: list[Descriptor] = []
    url: URL | None = session.url("referrers", subject)
    if artifact_type:
        url = session.url("referrers", subject).extend_query(artifactType=artifact_type)
    for _ in range(MAX_PAGES):
        if url is None:
            break
        async with session.request("GET", url) as response:
            if response.status in (400, 404, 405):
                return await _by_tag(session, subject, artifact_type)
            if response.status != 200:
                raise await session.failure(response, f"list referrers of {subject}")
            content = await http.read_bounded(response, MAX_MANIFEST, "referrers")
            url = next_page(session, response.headers.get("Link", ""), response.url)
        found += Index.parse(content, media_type_of(content)).manifests
    return _of_type(found, artifact_type)


async def _by_tag(session: Session, subject: Digest, artifact_type: str) -> list[Descriptor]:
    """The way for registries without the endpoint."""
    url = session.url("manifests", f"{subject.algorithm}-{subject.hex}")
    accept = ", ".join(mediatypes.INDEXES)
    async with session.request("GET", url, headers={"Accept": accept}) as response:
        if response.status == 404:
            return []
        if response.status != 200:
            raise await session.failure(response, f"list referrers of {subject}")
        content = await http.read_bounded(response, MAX_MANIFEST, "referrers")
    return _of_type(Index.parse(content, media_type_of(content)).manifests, artifact_type)


def _of_type(found: tuple[Descriptor, ...] | list[Descriptor], kind: str) -> list[Descriptor]:
    unique = {entry.digest: entry for entry in found}
    return [entry for entry in unique.values() if kind in ("", entry.artifact_type)]


def next_page(session: Session, link: str, base: URL) -> URL | None:
    """The following page, on the same server."""
    match = _NEXT.match(link)
    if match is None:
        return None
    try:
        url = base.join(type(base)(match[1], encoded=True))
    except ValueError:
        raise NotFound(f"answer of {shown(base)}: the link {match[1][:160]!r} is no URL") from None
    if Origin.of(url) != session.endpoint.origin:
        raise FailedPrecondition(f"answer of {shown(base)}: its next page is on another server")
    return url
