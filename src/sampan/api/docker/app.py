"""The Docker Engine API: routes, the version prefix, errors, and the access log.

`DockerAPI.handle` is the one handler of aiohttp's low-level server. A path is `[/vX.Y]/noun/...`;
the routes are two dictionaries, one of whole paths and one of (method, noun, verb) around a name,
so that finding one costs two look-ups and no regular expression. Image names contain slashes, and
so may everything between the noun and the verb.

Requests that a browser made for a web page are refused (`origins.py`): nobody's page may drive the
daemon through a forwarded port. Every exception is caught here once and
becomes `{"message": ...}`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from time import monotonic
from typing import TYPE_CHECKING

from sampan.api import errors
from sampan.api.docker import (
    answers,
    archives,
    building,
    checkpoints,
    commits,
    containers,
    distribution,
    exec,  # noqa: A004 - a room
    images,
    listing,
    logs,
    networks,
    oldwords,
    openapi,
    origins,
    publishing,
    swarm,
    system,
    trust,
    upkeep,
    usage,
    volumes,
    websocket,
)
from sampan.api.docker.call import Call
from sampan.api.docker.hijack import Connection, ConnectionServer, TakenOver
from sampan.errors import InvalidArgument, NotFound
from sampan.version import DOCKER_API_MAX_VERSION, DOCKER_API_MIN_VERSION, DOCKER_API_VERSION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aiohttp.web_request import BaseRequest
    from aiohttp.web_response import StreamResponse

    from sampan.builder.ondemand import OnDemand
    from sampan.engine.engine import Engine

    Handler = Callable[[Call], Awaitable[StreamResponse]]

_log = logging.getLogger("sampan.api")
_USUAL = int(DOCKER_API_VERSION.partition(".")[2])
_NEWEST = int(DOCKER_API_MAX_VERSION.partition(".")[2])
_OLDEST = int(DOCKER_API_MIN_VERSION.partition(".")[2])
_LIMITS = {"max_line_size": 32 << 10, "max_field_size": 32 << 10, "max_headers": 100}

PATHS: dict[tuple[str, str], Handler] = {
    **building.PATHS,
    **system.PATHS,
    **trust.PATHS,
    **containers.PATHS,
    **commits.PATHS,
    **distribution.PATHS,
    **images.PATHS,
    **listing.PATHS,
    **networks.PATHS,
    **publishing.PATHS,
    **swarm.PATHS,
    **upkeep.PATHS,
    **usage.PATHS,
    **volumes.PATHS,
}
NAMED: dict[tuple[str, str, str], Handler] = {
    **archives.NAMED,
    **building.NAMED,
    **checkpoints.NAMED,
    **commits.NAMED,
    **containers.NAMED,
    **exec.NAMED,
    **distribution.NAMED,
    **images.NAMED,
    **logs.NAMED,
    **networks.NAMED,
    **publishing.NAMED,
    **swarm.NAMED,
    **trust.NAMED,
    **volumes.NAMED,
    **websocket.NAMED,
}


@functools.cache
def _document() -> bytes:
    return openapi.document(PATHS, NAMED)


async def options(_: Call) -> StreamResponse:
    """Every path may be asked what it can do; nothing is said, as by dockerd"""
    return answers.empty(200)


async def description(_: Call) -> StreamResponse:
    """GET /openapi.json: this API, described by what serves it"""
    return answers.text(_document(), {"Content-Type": "application/json"})


PATHS["GET", "/openapi.json"] = description


class DockerAPI:
    """Serves one engine. `names` are those of the certificate that clients know us by."""

    def __init__(
        self, engine: Engine, builder: OnDemand | None = None, names: Iterable[str] = ()
    ) -> None:
        self._names = tuple(names)
        self._engine = engine
        self._builder = builder
        self._lines = listing.Lines()
        self.active = 0
        """Requests that are being answered now."""
        self.last_request = monotonic()
        """When the last request began or ended."""

    def server(self) -> ConnectionServer:
        """The protocol factory for the event loop's `create_unix_server`."""
        return ConnectionServer(
            self.handle, access_log=None, tcp_keepalive=False, lingering_time=1.0, **_LIMITS
        )

    async def handle(self, request: BaseRequest) -> StreamResponse:
        """Answer one request."""
        began = self.last_request = monotonic()
        self.active += 1
        try:
            answer = await self._answer(request)
        finally:
            self.active -= 1
            self.last_request = monotonic()
            connection = request.protocol
            if isinstance(connection, Connection):
                connection.cancel_when_gone(None)
                connection.release()
        if _log.isEnabledFor(logging.DEBUG):
            spent = (self.last_request - began) * 1000
            _log.debug("%s %s %d %.1f ms", request.method, request.path, answer.status, spent)
        return answer

    async def _answer(self, request: BaseRequest) -> StreamResponse:
        try:
            origins.check(request, self._names)
            handler, name, minor = route(request.method, request.path)
            return await handler(
                Call(self._engine, request, name, minor, self._lines, self._builder)
            )
        except asyncio.CancelledError:
            if request.transport is None:
                return TakenOver()  # the client is gone, and the handler was told so
            raise
        except ConnectionError:
            return TakenOver()
        except Exception as error:
            if errors.is_defect(error):
                _log.exception("%s %s failed", request.method, request.path)
            return self._failed(request, error)

    def _failed(self, request: BaseRequest, error: Exception) -> StreamResponse:
        status, message = errors.describe(error)
        message = oldwords.of(message, asked_minor(request.path))
        if request.writer.output_size:
            # A stream has begun; only an end without the last chunk can tell the client.
            _log.warning("%s %s broke off: %s", request.method, request.path, message)
            if request.transport is not None:
                request.transport.close()
            return TakenOver()
        answer = answers.error(status, message)
        if not request.content.is_eof():
            answer.force_close()  # rather than read a body that nobody wants
        return answer


def route(method: str, path: str) -> tuple[Handler, str, int]:
    """The handler, the name in the path, and the minor API version that was asked for.

    Raises:
        NotFound: no such path.
        InvalidArgument: a version that is not served.
    """
    minor = _USUAL
    if path.startswith("/v") and path[2:3].isdigit():
        prefix, _, rest = path[2:].partition("/")
        minor = check_version(prefix)
        path = "/" + rest
    if method == "OPTIONS":
        return options, "", minor
    found = PATHS.get((method, path.removesuffix("/")))  # as old clients write `/networks/`
    if found is not None:
        return found, "", minor
    noun, _, rest = path[1:].partition("/")
    name, _, verb = rest.rpartition("/")
    found = NAMED.get((method, noun, verb)) if name else None
    if found is None and rest:
        found, name = NAMED.get((method, noun, "")), rest
    if found is None:
        raise NotFound("page not found")
    return found, name, minor


def asked_minor(path: str) -> int:
    """The minor version in a path, as far as it is one; for the words of errors only, which are the
    old ones where no version is asked for."""
    version = path[2:].partition("/")[0] if path.startswith("/v") else ""
    minor = version.partition(".")[2]
    return int(minor) if minor.isdigit() and len(minor) < 4 else oldwords.LAST


def check_version(text: str) -> int:
    """The minor number of version `text`.

    Raises:
        InvalidArgument: too old, too new, or no version.
    """
    major, _, minor = text.partition(".")
    if not (major.isdigit() and minor.isdigit() and len(text) < 16):
        raise InvalidArgument(f"invalid API version {text[:32]!r}")
    asked = (int(major), int(minor))
    if asked > (1, _NEWEST):
        raise InvalidArgument(
            f"client version {text} is too new. Maximum supported API version is "
            f"{DOCKER_API_MAX_VERSION}"
        )
    if asked < (1, _OLDEST):
        raise InvalidArgument(
            f"client version {text} is too old. Minimum supported API version is "
            f"{DOCKER_API_MIN_VERSION}, please upgrade your client to a newer version"
        )
    return asked[1]
