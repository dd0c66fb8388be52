"""Bodies of the Docker Engine API about volumes; `docker.py` says how such structs are meant."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from sampan.wire.docker import Body


class VolumeCreate(Body, kw_only=True):
    """Body of POST /volumes/create."""

    name: str | None = ""
    driver: str | None = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class UsageData(Body, kw_only=True):
    """What a volume takes; -1 means: not counted."""

    size: int = -1
    ref_count: int = -1


class Volume(Body, kw_only=True):
    """One volume."""

    created_at: str
    driver: str = "local"
    labels: dict[str, str] | None
    mountpoint: str
    name: str
    options: dict[str, str] | None
    scope: str = "local"
    usage_data: UsageData | UnsetType = UNSET


class VolumeList(Body, kw_only=True):
    """Answer of GET /volumes."""

    volumes: list[Volume]
    warnings: list[str] | None = None


class VolumesPruned(Body, kw_only=True):
    """Answer of POST /volumes/prune."""

    volumes_deleted: list[str] | None
    space_reclaimed: int = 0
