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


class Attached(Body, kw_only=True):
    """Answer of POST /distribution/{name}/attach."""

    digest: str


class VerifyRequest(Body, kw_only=True):
    """Body of POST /distribution/{name}/verify: PEM texts; without any the policy judges."""

    keys: list[str] = msgspec.field(default_factory=list)


class Signer(Body, kw_only=True):
    """A key that signed, and the name that it signed for."""

    key: str
    fingerprint: str
    identity: str


class Verified(Body, kw_only=True):
    """Answer of POST /distribution/{name}/verify. `scope` is that of the policy."""

    digest: str
    scope: str
    signers: list[Signer]


class Requirement(Body, kw_only=True):
    """One requirement of the policy."""

    type: str
    keys: list[str]
    identity: str


class TrustScope(Body, kw_only=True):
    """A scope of the policy, and what it asks."""

    transport: str
    scope: str
    requirements: list[Requirement]


class Trust(Body, kw_only=True):
    """Answer of GET /system/trust."""

    default: list[Requirement]
    scopes: list[TrustScope]


class SearchResult(msgspec.Struct, kw_only=True):
    """One entry of GET /images/search, whose members are not in Docker's usual case."""

    description: str
    is_automated: bool
    is_official: bool
    name: str
    star_count: int
