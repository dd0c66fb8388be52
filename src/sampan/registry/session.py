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
        path = f"{self.endpoint.prefix}/{self.reference.repository}/{kind}/{name}"
        url = self.endpoint.base.with_path(path)
        return url.with_query(ns=self.endpoint.asks_for) if self.endpoint.asks_for else url

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: URL,
        *,
        actions: str = PULL,
        also: str = "",
        headers: dict[str, str] | None = None,
        data: Callable[[], Any] | None = None,
        timeout: aiohttp.ClientTimeout = http.SHORT,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request, whatever its status but 401.

        `data` makes the body, once for each time that it is sent. `also` names a second repository
        that must be readable.

        Raises:
            Unauthenticated: the registry wants credentials that we do not have.
            Unavailable, FailedPrecondition: as `HttpClient.request`.
        """
        url = await self._settle(url)
        if Origin.of(url) == self.endpoint.origin:
            headers = {**self.endpoint.headers, **(headers or {})}
        for last in (False, True):
            authorization = None
            if Origin.of(url) == self.endpoint.origin:
                authorization = await self._authenticator.authorization(actions, also)
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

    async def _settle(self, url: URL) -> URL:
        """See to it that the endpoint's way to be spoken with is known, also to `url`."""
        before = self.endpoint
        self.endpoint = await self.client.settle(before)
        if self.endpoint is before or Origin.of(url) != before.origin:
            return url
        self._authenticator.settle(self.endpoint)
        return url.with_scheme(self.endpoint.base.scheme).with_port(self.endpoint.base.port)

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
            case 429:
                after = _seconds(response.headers.get("Retry-After", ""))
                return Busy(text + self._limit(response, after), after)
            case 408 | 503:
                return Busy(text, _seconds(response.headers.get("Retry-After", "")))
            case status if status >= 500:
                return Unavailable(text)
            case _:
                return FailedPrecondition(text)

    def _limit(self, response: aiohttp.ClientResponse, after: float) -> str:
        """What a rate limit means for the user, as far as the registry says."""
        allowed = response.headers.get("RateLimit-Limit", "").partition(";")
        count, window = _seconds(allowed[0]), _seconds(allowed[2].removeprefix("w="))
        text = "; the registry counts requests"
        if count and window:
            text += f" ({count:.0f} in {window / 3600:.3g} hours)"
        if after:
            text += f", try again in {after:.0f} seconds"
        if self._authenticator.is_anonymous:
            text += f", or log in to {self.reference.registry}, which usually allows more"
        return text


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
