"""Requests to one endpoint of a registry, about one repository, on behalf of one user.

A request goes out without credentials until the registry asks for them; then it is sent once more
with what the challenge wants. Answers that mean failure become errors here: the words of the
registry are quoted (bounded, one line), and what the caller decides by is the class.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from sampan.errors import (
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    SampanError,
    Unauthenticated,
    Unavailable,
)
from sampan.registry import http
from sampan.registry.auth import Authenticator
from sampan.registry.hosts import Origin, shown
from sampan.registry.retry import Busy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from yarl import URL

    from sampan.registry.credentials import Credentials
    from sampan.registry.hosts import Endpoint
    from sampan.spec.reference import Reference

PULL: Final = "pull"
PUSH: Final = "pull,push"
_MAX_ERROR: Final = 64 << 10


class Session:
    """One repository at one endpoint."""

    def __init__(
        self,
        client: http.HttpClient,
        endpoint: Endpoint,
        reference: Reference,
        credentials: Credentials | None,
    ) -> None:
        self.client = client
        self.endpoint = endpoint
        self.reference = reference
        self._authenticator = Authenticator(client, endpoint, reference, credentials)

    def url(self, kind: str, name: str = "") -> URL:
        """The URL of `manifests`, `blobs` or `blobs/uploads` of this repository."""
        return self.endpoint.base.with_path(f"/v2/{self.reference.repository}/{kind}/{name}")

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: URL,
        *,
        actions: str = PULL,
        headers: dict[str, str] | None = None,
        data: Callable[[], Any] | None = None,
        timeout: aiohttp.ClientTimeout = http.SHORT,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request, whatever its status but 401.

        `data` makes the body, once for each time that it is sent.

        Raises:
            Unauthenticated: the registry wants credentials that we do not have.
            Unavailable, FailedPrecondition: as `HttpClient.request`.
        """
        for last in (False, True):
            authorization = None
            if Origin.of(url) == self.endpoint.origin:
                authorization = await self._authenticator.authorization(actions)
            async with self.client.request(
                method,
                url,
                home=self.endpoint.origin,
                authorization=authorization,
                headers=headers,
                data=None if data is None else data(),
                timeout=timeout,
            ) as response:
                home = Origin.of(response.url) == self.endpoint.origin
                if response.status != 401 or not home:
                    yield response
                    return
                if last:
                    raise Unauthenticated(await _message(response))
                challenge = ", ".join(response.headers.getall("WWW-Authenticate", []))
                await self._authenticator.challenged(challenge, authorization)

    async def failure(self, response: aiohttp.ClientResponse, doing: str) -> SampanError:
        """The error that an answer with an unexpected status means, while we were `doing` it."""
        text = f"{doing}: {await _message(response)}"
        match response.status:
            case 401:
                return Unauthenticated(text)
            case 403:
                return PermissionDenied(text)
            case 404:
                return NotFound(text)
            case 408 | 429 | 503:
                return Busy(text, _seconds(response.headers.get("Retry-After", "")))
            case status if status >= 500:
                return Unavailable(text)
            case _:
                return FailedPrecondition(text)


async def _message(response: aiohttp.ClientResponse) -> str:
    """What the registry says about its refusal, in one line as dockerd words it."""
    plain = f"{shown(response.url)} answered {response.status} {response.reason or ''}".rstrip()
    try:
        content = json.loads(await http.read_bounded(response, _MAX_ERROR, "an error"))
        first = content["errors"][0]
        code = str(first["code"]).replace("_", " ").lower()
        text = f"{code}: {first.get('message') or code}"
    except (
        SampanError,
        aiohttp.ClientError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ):
        return plain
    return "".join(char if char.isprintable() else " " for char in text[:500])


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
