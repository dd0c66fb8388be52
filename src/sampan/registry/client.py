"""The registry room's front: `Registry` for all registries, `Repository` for one of an operation.

`Registry` owns the connections and the configuration. `repository()` binds a reference and one
user's credentials, which end with that object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.registry.hosts import Hosts
from sampan.registry.retry import Retry

if TYPE_CHECKING:
    from sampan.registry.credentials import Credentials
    from sampan.registry.http import HttpClient
    from sampan.registry.proxies import Proxies
    from sampan.registry.repository import Repository
    from sampan.spec.reference import Reference


class Registry:
    """The door to all registries. Belongs to one event loop; `aclose` ends its connections."""

    def __init__(
        self,
        hosts: Hosts | None = None,
        retry: Retry | None = None,
        proxies: Proxies | None = None,
    ) -> None:
        self.hosts = hosts or Hosts()
        self.retry = retry or Retry()
        self._proxies = proxies
        self._made: HttpClient | None = None

    @property
    def _client(self) -> HttpClient:
        """Imported late: it needs aiohttp, and an engine that is asked for no image does not."""
        from sampan.registry.http import HttpClient

        if self._made is None:
            self._made = HttpClient(self.hosts, self._proxies)
        return self._made

    async def login(self, server: str, credentials: Credentials) -> str:
        """Show credentials to a registry; what to keep in place of the password. See `login`."""
        from sampan.registry import login

        registry = login.registry_of(server)
        return await self.retry.run(lambda: login.login(self._client, registry, credentials))

    async def aclose(self) -> None:
        """Close every connection."""
        if self._made is not None:
            await self._made.aclose()

    def repository(
        self, reference: Reference, credentials: Credentials | None = None
    ) -> Repository:
        """The repository that `reference` names, asked on behalf of `credentials`."""
        from sampan.registry.repository import Repository
        from sampan.registry.session import Session

        endpoints = self.hosts.endpoints(reference.registry)
        sessions = [
            Session(self._client, endpoint, reference, credentials) for endpoint in endpoints
        ]
        return Repository(reference, sessions, self.retry)
