"""Bodies of the Docker Engine API about builds and their cache."""

from __future__ import annotations

from msgspec import field

from sampan.wire.docker import Body


class CachePruned(Body, kw_only=True):
    """Answer of POST /build/prune."""

    caches_deleted: list[str] | None = None
    space_reclaimed: int = 0


class CacheRecord(Body, kw_only=True):
    """One entry of the cache, in GET /system/df."""

    id: str = field(name="ID")
    parents: list[str] | None = None
    type: str = "regular"
    description: str = ""
    in_use: bool = False
    shared: bool = False
    size: int = 0
    created_at: str
    last_used_at: str
    usage_count: int = 0


class BuildSecrets(Body, kw_only=True):
    """Body of POST /build/secrets, which is ours: what one build may see, base64 by id.

    `ssh` maps ids of agents to paths of sockets on the daemon's machine.
    """

    secrets: dict[str, str] = field(default_factory=dict)
    ssh: dict[str, str] = field(default_factory=dict, name="SSH")


class SecretsKept(Body, kw_only=True):
    """The token to give with that build; it counts once."""

    id: str


class AuthEntry(Body, rename="lower", kw_only=True):
    """Credentials of one registry in X-Registry-Config."""

    username: str = ""
    password: str = ""
    auth: str = ""
    identitytoken: str = ""
    registrytoken: str = ""
