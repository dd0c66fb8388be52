"""The documents inside an archive of images.

Two formats, often in one file: docker's, whose `manifest.json` names config and layers by path, and
the OCI image layout, whose `index.json` names manifests by digest (`blobs/<algorithm>/<hex>`), with
the images' names in annotations. `docker save` and we write both at once, so that every reader
finds its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sampan.errors import InvalidArgument
from sampan.spec import documents, mediatypes
from sampan.spec.documents import Fields
from sampan.spec.image import MAX_LAYERS, Descriptor
from sampan.spec.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sampan.spec.digest import Digest
    from sampan.spec.image import Manifest

MANIFEST: Final = "manifest.json"
INDEX: Final = "index.json"
REPOSITORIES: Final = "repositories"
LAYOUT: Final = "oci-layout"
LAYOUT_CONTENT: Final = b'{"imageLayoutVersion":"1.0.0"}'
MAX_DOCUMENT: Final = 8 << 20
MAX_IMAGES: Final = 1000
MAX_NAMES: Final = 1000

NAME: Final = "io.containerd.image.name"  # the whole reference
REF_NAME: Final = "org.opencontainers.image.ref.name"  # a tag, or with some writers a reference

_ENTRY: Final = frozenset("Config RepoTags Layers".split())
_VERSION: Final = frozenset(("imageLayoutVersion",))


@dataclass(frozen=True, slots=True)
class DockerEntry:
    """One image of a `manifest.json`: paths in the archive, and its names."""

    config: str
    names: tuple[Reference, ...]
    layers: tuple[str, ...]


def parse_docker(content: bytes) -> list[DockerEntry]:
    """The images of a `manifest.json`.

    Raises:
        InvalidArgument: it is malformed, or a name in it is no reference.
    """
    entries = documents.load(content, MANIFEST, MAX_DOCUMENT)
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_IMAGES:
        raise InvalidArgument(f"{MANIFEST}: a list of 1 to {MAX_IMAGES} images is expected")
    found: list[DockerEntry] = []
    for entry in entries:
        fields = Fields(entry, MANIFEST, _ENTRY)
        found.append(
            DockerEntry(
                config=fields.text("Config"),
                names=tuple(map(parse_name, fields.texts("RepoTags", MAX_NAMES))),
                layers=fields.texts("Layers", MAX_LAYERS),
            )
        )
    return found


def parse_name(text: str) -> Reference:
    """A name of an archive, with a tag. Raises InvalidArgument."""
    reference = Reference.parse(text).with_default_tag()
    if reference.digest is not None:
        raise InvalidArgument(f"archive: the name {text[:160]!r} has a digest instead of a tag")
    return reference


def check_layout(content: bytes) -> None:
    """Refuse an `oci-layout` of a version that we do not know. Raises InvalidArgument."""
    fields = documents.parse(content, LAYOUT, _VERSION, 64 << 10)
    version = fields.text("imageLayoutVersion")
    if not version.startswith("1."):
        raise InvalidArgument(f"{LAYOUT}: version {version[:40]!r} is not known")


def name_of(entry: Descriptor) -> Reference | None:
    """The name of an entry of `index.json`; None where it has none, or a tag without a name.

    Raises:
        InvalidArgument: it is no reference.
    """
    if text := entry.annotations.get(NAME):
        return parse_name(text)
    text = entry.annotations.get(REF_NAME, "")
    # `skopeo copy ... oci-archive:file:busybox:1` writes the name here, others a tag alone.
    return parse_name(text) if "/" in text or ":" in text else None


def blob_path(digest: Digest) -> str:
    """Where a blob is in a layout."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def index_document(entries: Iterable[tuple[Descriptor, Sequence[Reference]]]) -> bytes:
    """The `index.json` of images and their names; one entry for each name."""
    manifests: list[dict[str, Any]] = []
    for descriptor, names in entries:
        plain = descriptor.document()
        plain.pop("annotations", None)
        if descriptor.platform is not None:
            plain["platform"] = descriptor.platform.document()
        for name in names:
            annotations = {NAME: str(name), REF_NAME: name.tag}
            manifests.append({**plain, "annotations": annotations})
        if not names:
            manifests.append(plain)
    return documents.encode(
        {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": manifests}
    )


def docker_document(images: Iterable[tuple[Manifest, Sequence[Reference]]]) -> bytes:
    """The `manifest.json` of images and their names."""
    entries = [
        {
            "Config": blob_path(manifest.config.digest),
            "RepoTags": [name.familiar() for name in names] or None,
            "Layers": [blob_path(layer.digest) for layer in manifest.layers],
        }
        for manifest, names in images
    ]
    return documents.encode(entries)


def repositories_document(images: Iterable[tuple[Manifest, Sequence[Reference]]]) -> bytes:
    """The `repositories` of the oldest kind of archive: names, tags, and the id of a top layer.

    dockerd still writes it, and scripts look into it for the names.
    """
    found: dict[str, dict[str, str]] = {}
    for manifest, names in images:
        top = manifest.layers[-1].digest if manifest.layers else manifest.config.digest
        for name in names:
            if name.tag is not None:
                found.setdefault(name.familiar_name(), {})[name.tag] = top.hex
    return documents.encode(found)
