"""Login: ask a registry whether it knows a user, before the credentials are kept anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sampan.errors import InvalidArgument, Unauthenticated, Unavailable
from sampan.registry import http
from sampan.registry.auth import Authenticator
from sampan.registry.hosts import shown
from sampan.spec.reference import DEFAULT_REGISTRY, Reference

if TYPE_CHECKING:
    from sampan.registry.credentials import Credentials

_HUB: Final = frozenset(("docker.io", "index.docker.io", "registry-1.docker.io", "hub.docker.com"))


def registry_of(server: str) -> str:
    """The registry that a server address as clients keep it means: `https://host/v1/` is `host`.

    Raises:
        InvalidArgument: it is no host.
    """
    host = server.partition("://")[2] or server
    host = host.partition("/")[0]
    if not host or host in _HUB:
        return DEFAULT_REGISTRY
    if "." not in host and ":" not in host and host != "localhost":
        raise InvalidArgument(f"log in to {server[:160]!r}: it is not a registry's host")
    return Reference.parse(f"{host}/x").registry


async def login(client: http.HttpClient, registry: str, credentials: Credentials) -> str:
    """Show the credentials to a registry; the token to keep instead of the password, or "".

    Raises:
        Unauthenticated: the registry refuses them.
        FailedPrecondition: it sends us to a place that must not see them.
        Unavailable: it does not answer.
    """
    endpoint = await client.settle(client.hosts.upstream(registry))
    asker = Authenticator(client, endpoint, Reference(registry, "login"), credentials)
    url = endpoint.base.with_path(f"{endpoint.prefix}/")
    authorization: str | None = None
    for last in (False, True):
        async with client.request(
            "GET",
            url,
            home=endpoint.origin,
            authorization=authorization,
            headers=dict(endpoint.headers),
            timeout=http.SHORT,
        ) as response:
            if response.status in (200, 404):  # 404: it has no API here, and asks nothing
                return asker.refresh_token
            if response.status >= 500 or response.status == 429:
                raise Unavailable(f"log in to {registry}: {shown(url)} answered {response.status}")
            if response.status != 401 or last:
                raise Unauthenticated(f"log in to {registry}: it refused the user or the password")
            challenge = ", ".join(response.headers.getall("WWW-Authenticate", []))
        await asker.challenged(challenge, None)
        authorization = await asker.login()
    raise AssertionError
