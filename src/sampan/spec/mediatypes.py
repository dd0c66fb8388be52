"""Media types of images, in OCI's and in Docker's spelling, and what each of them says.

Only these are understood. A manifest of another type (the old schema 1, an artifact) is refused by
who meets it; a layer's compression is a hint, the layer room looks at the bytes.
"""

from __future__ import annotations

from typing import Final

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_LAYER_FOREIGN: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_LAYER_FOREIGN_GZIP: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_LAYER_FOREIGN_ZSTD: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"

DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD: Final = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_LAYER_FOREIGN_GZIP: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

INDEXES: Final = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS: Final = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIGS: Final = (OCI_CONFIG, DOCKER_CONFIG)

_COMPRESSION: Final = {
    OCI_LAYER: "none",
    OCI_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    OCI_LAYER_FOREIGN: "none",
    OCI_LAYER_FOREIGN_GZIP: "gzip",
    OCI_LAYER_FOREIGN_ZSTD: "zstd",
    DOCKER_LAYER: "none",
    DOCKER_LAYER_GZIP: "gzip",
    DOCKER_LAYER_ZSTD: "zstd",
    DOCKER_LAYER_FOREIGN_GZIP: "gzip",
}


def is_index(media_type: str) -> bool:
    """Whether it names a list of manifests by platform."""
    return media_type in INDEXES


def is_manifest(media_type: str) -> bool:
    """Whether it names one image."""
    return media_type in MANIFESTS


def is_layer(media_type: str) -> bool:
    """Whether it names a layer that can be unpacked."""
    return media_type in _COMPRESSION


def compression_of(media_type: str) -> str:
    """`none`, `gzip` or `zstd`; `none` for what is no layer."""
    return _COMPRESSION.get(media_type, "none")
