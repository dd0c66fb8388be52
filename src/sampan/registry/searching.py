"""Search: what a registry has by a word.

Docker Hub, and registries after its first interface, have a search of their own, with descriptions
and stars. Others have a catalog of names, which is read to its end (up to a bound) and looked
through here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from yarl import URL

from sampan.registry import http
from sampan.registry.listing import MAX_PAGES, next_page
from sampan.spec import documents
from sampan.spec.image import MAX_MANIFEST

if TYPE_CHECKING:
    from sampan.registry.session import Session

HUB: Final = "docker.io"
MAX_FOUND: Final = 100
_HUBS_OWN: Final = URL("https://index.docker.io/v1/search")
_PAGE: Final = 1000
_ANSWER: Final = frozenset(("num_results", "query", "results", "page", "page_size", "num_pages"))
_RESULT: Final = frozenset(
    "name description star_count is_official is_automated is_trusted pull_count".split()
)
_CATALOG: Final = frozenset(("repositories",))


@dataclass(frozen=True, slots=True)
class Found:
    """One repository."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False
    automated: bool = False


async def search(session: Session, term: str, limit: int) -> list[Found]:
    """At most `limit` repositories that a word fits, as the registry orders them.

    Raises:
        Unauthenticated, PermissionDenied, Unavailable, NotFound: as the registry answers.
        InvalidArgument: its answer is not understood.
    """
    is_hub = session.reference.registry == HUB and not session.endpoint.asks_for
    url = _HUBS_OWN if is_hub else session.endpoint.base.with_path("/v1/search")
    async with session.request("GET", url.with_query(q=term, n=str(limit))) as response:
        if response.status == 200:
            content = await http.read_bounded(response, MAX_MANIFEST, "search")
            return _results(content)[:limit]
        if response.status not in (400, 404, 405):
            raise await session.failure(response, f"search {session.reference.registry}")
    return [Found(name) for name in await _catalog(session) if term in name][:limit]


def _results(content: bytes) -> list[Found]:
    place = "search"
    answer = documents.parse(content, place, _ANSWER, MAX_MANIFEST)
    found = []
    for item in answer.items("results", MAX_FOUND):
        fields = documents.Fields(item, place, _RESULT)
        found.append(
            Found(
                name=fields.text("name"),
                description=fields.optional("description") or "",
                stars=fields.integer("star_count", 0),
                official=fields.flag("is_official"),
                automated=fields.flag("is_automated"),
            )
        )
    return found


async def _catalog(session: Session) -> list[str]:
    names: list[str] = []
    base = session.endpoint.base.with_path(f"{session.endpoint.prefix}/_catalog")
    url: URL | None = base.with_query(n=str(_PAGE))
    for _ in range(MAX_PAGES):
        if url is None:
            break
        async with session.request("GET", url) as response:
            if response.status != 200:
                raise await session.failure(response, f"list {session.reference.registry}")
            content = await http.read_bounded(response, MAX_MANIFEST, "catalog")
            following = next_page(session, response.headers.get("Link", ""), response.url)
        names += documents.parse(content, "catalog", _CATALOG, MAX_MANIFEST).texts("repositories")
        url = following
    return names
