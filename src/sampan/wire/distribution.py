"""Bodies about what registries have. Descriptors are spelled as in the OCI specification."""

from __future__ import annotations

import msgspec

from sampan.wire.docker import Body


class Descriptor(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Content of a registry."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}
    artifact_type: str = ""


class Platform(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A platform that a manifest is for."""

    architecture: str
    os: str
    variant: str = ""


class Inspect(Body, kw_only=True):
    """Answer of GET /distribution/{name}/json."""

    descriptor: Descriptor
    platforms: list[Platform]


class Tags(Body, kw_only=True):
    """Answer of GET /distribution/{name}/tags."""

    name: str
    tags: list[str]


class Referrers(Body, kw_only=True):
    """Answer of GET /distribution/{name}/referrers."""

    subject: str
    referrers: list[Descriptor]
