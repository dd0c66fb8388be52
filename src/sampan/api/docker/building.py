"""The routes of builds, whose handlers are imported with the first request (`build`).

Few daemons ever build, and a builder is much to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call

    Handler = Callable[[Call], Awaitable[StreamResponse]]


class Later:
    """A handler of `build`, by the key that its table has it under."""

    __slots__ = ("_key",)

    def __init__(self, *key: str) -> None:
        self._key = key

    async def __call__(self, call: Call) -> StreamResponse:
        """Answer one request."""
        return await self.load()(call)

    def load(self) -> Handler:
        """The handler itself."""
        from sampan.api.docker import build

        return build.HANDLERS[self._key]


NAMED = {("GET", "images", "sbom"): Later("GET", "images", "sbom")}
PATHS = {
    ("POST", path): Later("POST", path)
    for path in (
        "/build",
        "/build/prune",
        "/session",
        "/grpc",
        "/build/contexts",
        "/build/contexts/sync",
        "/build/secrets",
    )
}
