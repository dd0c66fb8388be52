"""How an image was made: an in-toto statement with SLSA's predicate, version 1.

It has the Dockerfile's name and digest, the target, the platform, the names of the build arguments
(values may be secret, and are left out), and the digests of the images that were built on. It has
no times and nothing of the machine: the same build has the same provenance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sampan.jsontext import encode
from sampan.spec.digest import Digest
from sampan.version import VERSION

if TYPE_CHECKING:
    from sampan.builder.graph import Build
    from sampan.images.model import Image

MEDIA_TYPE: Final = "application/vnd.in-toto+json"
_TYPE: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://slsa.dev/provenance/v1"
_BUILD_TYPE: Final = "urn:sampan:build:dockerfile:v1"


def statement(build: Build, image: Image, names: list[str], dockerfile: bytes) -> bytes:
    """The statement about an image."""
    options = build.options
    parameters: dict[str, Any] = {
        "dockerfile": {"name": options.dockerfile, "digest": _digest(Digest.of(dockerfile))},
        "target": options.target,
        "platform": str(build.platform),
        "arguments": sorted(options.args),
        "labels": dict(sorted(options.labels.items())),
    }
    subjects = [{"name": name, "digest": _digest(image.target.digest)} for name in names or ["_"]]
    predicate = {
        "buildDefinition": {
            "buildType": _BUILD_TYPE,
            "externalParameters": parameters,
            "resolvedDependencies": build.bases.resolved(),
        },
        "runDetails": {"builder": {"id": f"urn:sampan:builder:{VERSION}"}},
    }
    content = {
        "_type": _TYPE,
        "subject": subjects,
        "predicateType": _PREDICATE,
        "predicate": predicate,
    }
    return encode(content).encode()


def _digest(digest: Digest) -> dict[str, str]:
    return {digest.algorithm: digest.hex}
