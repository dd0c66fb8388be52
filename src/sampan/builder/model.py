"""The builder's words: what is asked for, what happens meanwhile, and what comes out.

A *build* carries out the instructions of a Dockerfile, stage by stage. A *state* is what there is
behind an instruction: files (a chain of cached results above a base image), and the config of the
image that it would be. States are never changed; an instruction makes a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from sampan.spec.image import History, RunConfig

if TYPE_CHECKING:
    from sampan.builder.files.service import Context
    from sampan.engine.model import HostConfig
    from sampan.images.diffing import CommittedLayer
    from sampan.images.model import Image
    from sampan.images.progress import Progress
    from sampan.registry.credentials import Credentials
    from sampan.spec.image import Descriptor
    from sampan.spec.platform import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How to build. Empty means the default.

    `epoch` (seconds since 1970) is the newest time that files and the image may have; None is the
    context's newest file. `host` limits the processes of RUN, and says their network.
    `allow_host_network` and `allow_insecure` are what RUN may ask for. `contexts` are more places
    to take files from, by name: an archive that was sent, or `docker-image://`, a URL of an archive
    or of a git repository. `cache_from` are images with a cache (with `cache_only_from`, where none
    of them can be had nothing else is used either), `cache_to` names for images that get this
    build's; `cache_inline` puts it beside the image itself.
    """

    dockerfile: str = "Dockerfile"
    tags: tuple[str, ...] = ()
    target: str = ""
    args: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    pull: bool = False
    platform: str = ""
    squash: bool = False
    cache_from: tuple[str, ...] = ()
    cache_only_from: bool = False
    cache_to: tuple[str, ...] = ()
    cache_every_stage: bool = False
    cache_inline: bool = False
    provenance: bool = False
    epoch: int | None = None
    host: HostConfig | None = None
    allow_host_network: bool = False
    allow_insecure: bool = False
    contexts: Mapping[str, Context | str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    ssh: Mapping[str, str] = field(default_factory=dict)
    credentials: Callable[[str], Credentials | None] = lambda _: None


class NoteKind(StrEnum):
    """What a note says of its step."""

    STARTED = "started"
    PULLING = "pulling"
    CACHED = "cached"
    RUNNING = "running"
    OUTPUT = "output"
    WARNING = "warning"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that happened in step `number` of `total`; steps of several stages mix.

    `text` is the instruction (started), an id (running, done), a warning, or what a command
    printed; `stage` the name of the stage. `place` is the number of a step among those of its stage
    that may take time, as in "2/5", "" for the others; `lines` are where it stands in the file.
    """

    kind: NoteKind
    number: int
    total: int
    stage: str = ""
    text: str = ""
    is_error: bool = False
    place: str = ""
    lines: tuple[int, int] = (0, 0)
    progress: Progress | None = None


Report = Callable[[Note], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What there is behind an instruction.

    `key` names it in the cache; `image` is the id of the image it began with. `results` are the
    cached results whose layers it has, bottom first, `top` the newest result (which may have no
    layer), `base` the chain id of the image below ("" for scratch) and `base_layers` its layers.
    `made_s` is the time of the newest step.
    """

    key: str
    platform: Platform
    config: RunConfig = field(default_factory=RunConfig)
    author: str = ""
    history: tuple[History, ...] = ()
    image: str = ""
    base: str = ""
    base_layers: tuple[CommittedLayer, ...] = ()
    results: tuple[int, ...] = ()
    top: int | None = None
    made_s: int | None = None
    created: str | None = None
    shell: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What a build made. `cached` and `steps` count the steps that could be cached, `total` all.

    `images` has one for each platform, `image` is the machine's own or the first; `target` is what
    the names lead to, an index when there are several.
    """

    image: Image
    warnings: tuple[str, ...] = ()
    steps: int = 0
    cached: int = 0
    total: int = 0
    cache_names: tuple[str, ...] = ()
    provenance: bytes = b""
    target: Descriptor
    images: tuple[Image, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """One entry of the cache: a result, or a directory of a cache mount."""

    id: str
    parent: str
    kind: str
    title: str
    shared: bool
    size: int
    created_ns: int
    used_ns: int
    uses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedCache:
    """What a prune of the cache removed; the size in bytes."""

    ids: tuple[str, ...]
    reclaimed: int
