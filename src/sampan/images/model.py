"""An image as the rooms above see it.

An image is one config with its layers. Its id is the digest of the config; names (tags) and digests
(of the manifest or index that was pulled) lead to it. Everything here but the names follows from
content that is verified by its digest, and so never changes.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from sampan.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor, ImageConfig, Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The documents of one image, read and checked."""

    manifest_descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig

    @property
    def id(self) -> Digest:
        """The image's id."""
        return self.manifest.config.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image of the store. `size` is what its layers take on disk, in bytes.

    `names` are familiar forms (`busybox:latest`), `digests` familiar names at the digest that the
    registry knows (`busybox@sha256:...`). `created` is as in the config (RFC 3339), "" if unknown.
    `chain_id` names the committed snapshot of the topmost layer, "" for an image without layers.
    """

    id: Digest
    names: tuple[str, ...]
    digests: tuple[str, ...]
    config: ImageConfig
    created: str
    size: int
    chain_id: str
    layers: tuple[Descriptor, ...]
    target: Descriptor
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """As in the config."""
        return self.config.architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryStep:
    """One line of `history`, newest first."""

    id: str  # of the image for the newest step, else "<missing>", as dockerd has it
    created: str
    created_by: str
    comment: str
    size: int
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedImage:
    """One image out of an archive. `names` are familiar forms; a nameless image has none."""

    id: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """One thing that a removal did: a name taken away, or an image that is gone."""

    untagged: str = ""
    deleted: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a prune removed, and how many bytes of the disk that freed."""

    removed: tuple[Removed, ...]
    reclaimed: int
