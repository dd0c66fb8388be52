"""The documents of an image: descriptor, index, manifest and image config.

OCI image specification 1.1, and Docker's image manifest version 2 schema 2, which has the same
shape. `parse` takes the exact bytes and the media type under which they were announced and refuses
a document whose own `mediaType` or structure says something else: one digest must not be a manifest
for one reader and an index for another. `encode` gives the bytes of documents that we make.

Ceilings: a manifest or index of 4 MiB, a config of 8 MiB, 1000 descriptors in an index, 512 layers.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Final

from sampan.errors import InvalidArgument
from sampan.records import dataclass
from sampan.spec import documents, mediatypes
from sampan.spec.digest import Digest
from sampan.spec.documents import Fields
from sampan.spec.platform import Platform

MAX_MANIFEST: Final = 4 << 20
MAX_CONFIG: Final = 8 << 20
MAX_DESCRIPTORS: Final = 1000
MAX_LAYERS: Final = 512
MAX_HISTORY: Final = 4096

_DESCRIPTOR: Final = frozenset(
    "mediaType digest size annotations platform urls artifactType".split()
)
_PLATFORM: Final = frozenset("os architecture variant".split())
_MANIFEST: Final = frozenset("schemaVersion mediaType config layers manifests annotations".split())
_IMAGE: Final = frozenset("architecture os variant created author config rootfs history".split())
_ROOTFS: Final = frozenset(("type", "diff_ids"))
_HISTORY: Final = frozenset("created created_by author comment empty_layer".split())
_CONFIG: Final = frozenset(
    "User Env Entrypoint Cmd WorkingDir ExposedPorts Volumes Labels StopSignal Shell "
    "Healthcheck OnBuild".split()
)
_HEALTHCHECK: Final = frozenset("Test Interval Timeout StartPeriod StartInterval Retries".split())


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What identifies content: its type, its digest and its size in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: dict[str, str] = field(default_factory=dict, hash=False)
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    artifact_type: str = ""

    @classmethod
    def read(cls, value: Any, place: str) -> Descriptor:
        """The descriptor in a parsed document.

        Raises:
            InvalidArgument: a field is missing or wrong.
        """
        fields = Fields(value, place, _DESCRIPTOR)
        platform = fields.get("platform")
        return cls(
            media_type=fields.text("mediaType"),
            digest=Digest.parse(fields.text("digest")),
            size=fields.integer("size"),
            annotations=fields.mapping("annotations"),
            platform=None if platform is None else _read_platform(platform, place),
            urls=fields.texts("urls", 64),
            artifact_type=fields.text("artifactType", ""),
        )

    def document(self) -> dict[str, Any]:
        """The JSON object, with the three fields that every reader needs."""
        content: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.annotations:
            content["annotations"] = self.annotations
        return content


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its config and its layers, bottom first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def parse(cls, content: bytes, media_type: str) -> Manifest:
        """The manifest in `content`, which was announced as `media_type`.

        Raises:
            InvalidArgument: it is something else, or breaks a rule of the specification.
        """
        fields = _top(content, media_type, "manifest", mediatypes.MANIFESTS)
        if fields.get("manifests") is not None:
            raise InvalidArgument("manifest: it has `manifests`, as only an index may")
        if fields.get("config") is None:
            raise InvalidArgument("manifest: it has no config")
        layers = fields.items("layers", MAX_LAYERS)
        return cls(
            media_type=media_type,
            config=Descriptor.read(fields.get("config"), "manifest.config"),
            layers=tuple(Descriptor.read(layer, "manifest.layers") for layer in layers),
            annotations=fields.mapping("annotations"),
        )

    def encode(self) -> bytes:
        """The bytes of this manifest."""
        content: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.document(),
            "layers": [layer.document() for layer in self.layers],
        }
        if self.annotations:
            content["annotations"] = self.annotations
        return documents.encode(content)


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests (or further indexes), mostly one for each platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: dict[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def parse(cls, content: bytes, media_type: str) -> Index:
        """The index in `content`, which was announced as `media_type`.

        Raises:
            InvalidArgument: it is something else, or breaks a rule of the specification.
        """
        fields = _top(content, media_type, "index", mediatypes.INDEXES)
        if fields.get("layers") is not None or fields.get("config") is not None:
            raise InvalidArgument("index: it has `config` or `layers`, as only a manifest may")
        manifests = fields.items("manifests", MAX_DESCRIPTORS)
        return cls(
            media_type=media_type,
            manifests=tuple(Descriptor.read(entry, "index.manifests") for entry in manifests),
            annotations=fields.mapping("annotations"),
        )


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """How to see whether a container is well; durations in nanoseconds, 0 = inherited."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What an image says of containers made from it. Empty means that it says nothing."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict, hash=False)
    stop_signal: str | None = None
    shell: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """The JSON object, without what is empty."""
        content: dict[str, Any] = {
            "User": self.user,
            "ExposedPorts": {port: {} for port in self.exposed_ports},
            "Env": list(self.env),
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.cmd),
            "Volumes": {path: {} for path in self.volumes},
            "WorkingDir": self.working_dir,
            "Labels": self.labels,
            "StopSignal": self.stop_signal,
            "Shell": list(self.shell),
            "Healthcheck": self.healthcheck and _healthcheck_document(self.healthcheck),
            "OnBuild": list(self.on_build),
        }
        return {key: value for key, value in content.items() if value}


@dataclass(frozen=True, slots=True)
class History:
    """One step of how an image was made."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False

    def document(self) -> dict[str, Any]:
        """The JSON object, without what is empty."""
        content: dict[str, Any] = {
            "created": self.created,
            "created_by": self.created_by,
            "author": self.author,
            "comment": self.comment,
            "empty_layer": self.empty_layer,
        }
        return {key: value for key, value in content.items() if value}


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The config of an image: for which platform, of which layers, and how to run it."""

    architecture: str
    os: str
    variant: str = ""
    created: str | None = None
    author: str = ""
    config: RunConfig = RunConfig()
    rootfs_diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()

    @classmethod
    def parse(cls, content: bytes, media_type: str = mediatypes.OCI_CONFIG) -> ImageConfig:
        """The image config in `content`, which was announced as `media_type`.

        Raises:
            InvalidArgument: it is something else, or breaks a rule of the specification.
        """
        if media_type not in mediatypes.CONFIGS:
            raise InvalidArgument(f"image config: {media_type[:160]!r} is not an image's config")
        fields = documents.parse(content, "image config", _IMAGE, MAX_CONFIG)
        history = fields.items("history", MAX_HISTORY)
        return cls(
            architecture=fields.text("architecture", ""),
            os=fields.text("os", ""),
            variant=fields.text("variant", ""),
            created=fields.optional("created"),
            author=fields.text("author", ""),
            config=_read_run_config(fields.get("config")),
            rootfs_diff_ids=_read_diff_ids(fields.get("rootfs")),
            history=tuple(_read_history(entry) for entry in history),
        )

    def encode(self) -> bytes:
        """The bytes of this config."""
        content: dict[str, Any] = {
            "created": self.created,
            "author": self.author,
            "architecture": self.architecture,
            "os": self.os,
            "variant": self.variant,
            "config": self.config.document(),
            "rootfs": {"type": "layers", "diff_ids": list(self.rootfs_diff_ids)},
            "history": [entry.document() for entry in self.history],
        }
        needed = ("architecture", "os", "config", "rootfs")
        return documents.encode({k: v for k, v in content.items() if v or k in needed})

    @property
    def platform(self) -> Platform:
        """The platform that the image is for."""
        return Platform.make(self.os, self.architecture, self.variant)


def media_type_of(content: bytes) -> str:
    """The media type that a manifest or index states or, where it states none, has by its shape.

    Raises:
        InvalidArgument: it is neither.
    """
    fields = documents.parse(content, "manifest", _MANIFEST, MAX_MANIFEST)
    if stated := fields.text("mediaType", ""):
        return stated
    has_manifests = fields.get("manifests") is not None
    has_layers = fields.get("layers") is not None
    if has_manifests == has_layers:
        raise InvalidArgument("manifest: it has neither layers nor manifests, or both")
    return mediatypes.OCI_INDEX if has_manifests else mediatypes.OCI_MANIFEST


def _top(content: bytes, media_type: str, place: str, allowed: tuple[str, ...]) -> Fields:
    if media_type not in allowed:
        raise InvalidArgument(f"{place}: the media type {media_type[:160]!r} is not supported")
    fields = documents.parse(content, place, _MANIFEST, MAX_MANIFEST)
    if fields.integer("schemaVersion") != 2:
        raise InvalidArgument(f"{place}: schema version 2 is expected")
    stated = fields.text("mediaType", media_type)
    if stated != media_type:
        raise InvalidArgument(
            f"{place}: it was announced as {media_type} and calls itself {stated[:160]!r}"
        )
    return fields


def _read_platform(value: Any, place: str) -> Platform:
    fields = Fields(value, f"{place}.platform", _PLATFORM)
    return Platform.make(
        fields.text("os", ""), fields.text("architecture", ""), fields.text("variant", "")
    )


def _read_diff_ids(value: Any) -> tuple[Digest, ...]:
    fields = Fields(value, "image config.rootfs", _ROOTFS)
    if fields.text("type", "layers") != "layers":
        raise InvalidArgument("image config.rootfs: the type is not `layers`")
    return tuple(Digest.parse(text) for text in fields.texts("diff_ids", MAX_LAYERS))


def _read_history(value: Any) -> History:
    fields = Fields(value, "image config.history", _HISTORY)
    return History(
        created=fields.optional("created"),
        created_by=fields.text("created_by", ""),
        author=fields.text("author", ""),
        comment=fields.text("comment", ""),
        empty_layer=fields.flag("empty_layer"),
    )


def _read_run_config(value: Any) -> RunConfig:
    if value is None:
        return RunConfig()
    fields = Fields(value, "image config.config", _CONFIG)
    return RunConfig(
        user=fields.text("User", ""),
        env=fields.texts("Env"),
        entrypoint=fields.texts("Entrypoint"),
        cmd=fields.texts("Cmd"),
        working_dir=fields.text("WorkingDir", ""),
        exposed_ports=fields.names("ExposedPorts"),
        volumes=fields.names("Volumes"),
        labels=fields.mapping("Labels"),
        stop_signal=fields.optional("StopSignal"),
        shell=fields.texts("Shell"),
        healthcheck=_read_healthcheck(fields.get("Healthcheck")),
        on_build=fields.texts("OnBuild"),
    )


def _read_healthcheck(value: Any) -> Healthcheck | None:
    if value is None:
        return None
    fields = Fields(value, "image config.config.Healthcheck", _HEALTHCHECK)
    return Healthcheck(
        test=fields.texts("Test"),
        interval=fields.integer("Interval", 0),
        timeout=fields.integer("Timeout", 0),
        start_period=fields.integer("StartPeriod", 0),
        start_interval=fields.integer("StartInterval", 0),
        retries=fields.integer("Retries", 0),
    )


def _healthcheck_document(check: Healthcheck) -> dict[str, Any]:
    content: dict[str, Any] = {
        "Test": list(check.test),
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
        "Retries": check.retries,
    }
    return {key: value for key, value in content.items() if value}
