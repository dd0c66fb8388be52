"""Bodies of the Docker Engine API about images.

See `docker.py` for how these structs are meant.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, field

from sampan.wire.containers import GraphDriver
from sampan.wire.distribution import Descriptor, Platform
from sampan.wire.docker import NO_TIME, Body
from sampan.wire.hostconfig import Healthcheck


class ManifestSize(Body, kw_only=True):
    """What a manifest's blobs take, and what they take with their unpacked layers."""

    content: int
    total: int


class UnpackedSize(Body, kw_only=True):
    """What unpacked layers take."""

    unpacked: int


class ImageData(Body, kw_only=True):
    """What a manifest that is an image says."""

    platform: Platform
    size: UnpackedSize
    containers: list[str]


class AttestationData(Body, kw_only=True):
    """What a manifest that attests something is about."""

    subject: str = field(name="For")


class ManifestSummary(Body, kw_only=True):
    """One manifest of an image's index."""

    id: str = field(name="ID")
    descriptor: Descriptor
    available: bool
    size: ManifestSize
    kind: str
    image_data: ImageData | UnsetType = UNSET
    attestation_data: AttestationData | UnsetType = UNSET


class Statement(Body, kw_only=True):
    """One entry of GET /images/{name}/attestations."""

    descriptor: Descriptor
    predicate_type: str
    statement: msgspec.Raw | UnsetType = UNSET


class ImageSummary(Body, kw_only=True):
    """One entry of GET /images/json. -1 means: not counted."""

    containers: int = -1
    created: int
    id: str
    labels: dict[str, str] | None
    parent_id: str = ""
    repo_digests: list[str] | None
    repo_tags: list[str] | None
    shared_size: int = -1
    size: int
    virtual_size: int | UnsetType = UNSET
    descriptor: Descriptor | UnsetType = UNSET
    manifests: list[ManifestSummary] | UnsetType = UNSET


class ImageConfig(Body, kw_only=True):
    """How containers of an image run; members that the image does not state are left out, but for
    those that older versions of the API have always had, and empty."""

    hostname: str | UnsetType = UNSET
    domainname: str | UnsetType = UNSET
    user: str | UnsetType = UNSET
    attach_stdin: bool | UnsetType = UNSET
    attach_stdout: bool | UnsetType = UNSET
    attach_stderr: bool | UnsetType = UNSET
    tty: bool | UnsetType = UNSET
    open_stdin: bool | UnsetType = UNSET
    stdin_once: bool | UnsetType = UNSET
    image: str | UnsetType = UNSET
    exposed_ports: dict[str, dict[str, Any]] | UnsetType = UNSET
    env: list[str] | UnsetType | None = UNSET
    cmd: list[str] | UnsetType | None = UNSET
    healthcheck: Healthcheck | UnsetType = UNSET
    volumes: dict[str, dict[str, Any]] | UnsetType | None = UNSET
    working_dir: str | UnsetType = UNSET
    entrypoint: list[str] | UnsetType | None = UNSET
    on_build: list[str] | UnsetType | None = UNSET
    labels: dict[str, str] | UnsetType | None = UNSET
    stop_signal: str | UnsetType = UNSET
    shell: list[str] | UnsetType = UNSET


class RootFS(Body, kw_only=True):
    """The layers of an image, by diff id, bottom first."""

    type: str = "layers"
    layers: list[str]


class Metadata(Body, kw_only=True):
    """What the daemon knows beside the image's own documents."""

    last_tag_time: str = NO_TIME


class ImageInspect(Body, kw_only=True):
    """Answer of GET /images/{name}/json."""

    id: str
    repo_tags: list[str] | None
    repo_digests: list[str] | None
    parent: str | UnsetType = UNSET
    comment: str | UnsetType = UNSET
    created: str | UnsetType = UNSET
    container: str | UnsetType = UNSET
    container_config: ImageConfig | UnsetType | None = UNSET
    docker_version: str | UnsetType = UNSET
    author: str | UnsetType = UNSET
    config: ImageConfig
    architecture: str
    variant: str | UnsetType = UNSET
    os: str
    size: int
    virtual_size: int | UnsetType = UNSET
    graph_driver: GraphDriver | UnsetType = UNSET
    root_fs: RootFS = field(name="RootFS")
    metadata: Metadata = field(default_factory=Metadata)
    descriptor: Descriptor | UnsetType = UNSET
    manifests: list[ManifestSummary] | UnsetType = UNSET


class HistoryEntry(Body, kw_only=True):
    """One entry of GET /images/{name}/history, newest first."""

    comment: str = ""
    created: int
    created_by: str
    id: str = "<missing>"
    size: int = 0
    tags: list[str] | None = None


class ImageDeleted(Body, kw_only=True):
    """One entry of the answer of DELETE /images/{name}: one of the two members."""

    untagged: str | UnsetType = UNSET
    deleted: str | UnsetType = UNSET


class ImagesPruned(Body, kw_only=True):
    """Answer of POST /images/prune."""

    images_deleted: list[ImageDeleted] | None
    space_reclaimed: int = 0
