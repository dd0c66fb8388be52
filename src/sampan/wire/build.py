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


class BuildNote(Body, rename="lower", kw_only=True, omit_defaults=True):
    """Something that happened in a step, in our own stream (`notes=1`)."""

    kind: str
    step: int = 0
    total: int = 0
    stage: str = ""
    text: str = ""
    place: str = ""
    lines: tuple[int, int] = (0, 0)
    stderr: bool = False
    status: str = ""
    item: str = ""
    current: int = 0
    size: int = 0


class BuildDone(Body, kw_only=True):
    """What a build made, the last line of our own stream."""

    id: str = field(name="ID")
    digest: str
    media_type: str
    size: int
    names: list[str]
    warnings: list[str]
    steps: int
    cached: int
    cache_names: list[str] = field(default_factory=list)
    platforms: dict[str, str] = field(default_factory=dict)
    provenance: str = ""


class BuildLine(Body, rename="lower", kw_only=True, omit_defaults=True):
    """One line of our own stream."""

    note: BuildNote | None = None
    result: BuildDone | None = None


class ContextKept(Body, kw_only=True):
    """Answer of POST /build/contexts, which is ours: the token to give with that build."""

    id: str
    entries: int = 0


class ContextCompared(Body, kw_only=True):
    """Answer of POST /build/contexts/sync, which is ours: the token to give with the build, and
    the numbers of the files whose bytes it has to bring, null for all."""

    id: str
    missing: list[int] | None


class CheckWarning(Body, kw_only=True):
    """One thing that `check=1` found."""

    rule: str
    text: str
    file: str
    line: int
    column: int = 1


class BuildChecked(Body, kw_only=True):
    """Answer of POST /build?check=1. `failed`: the file wants its warnings to be errors."""

    warnings: list[CheckWarning]
    failed: bool = False
