"""What is installed in an image, as an SPDX 2.3 document.

Packages are those that dpkg (also in the form of distroless images) and apk have written down in
the image; what was copied in by hand has no record and is not guessed at. The document has the
image's own time, so the same image always has the same one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sampan.jsontext import encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MEDIA_TYPE: Final = "application/spdx+json"
FILES: Final = (
    "etc/os-release",
    "usr/lib/os-release",
    "var/lib/dpkg/status",
    "lib/apk/db/installed",
)
DIRECTORIES: Final = ("var/lib/dpkg/status.d",)
MAX_PACKAGES: Final = 50_000
_UNKNOWN: Final = "NOASSERTION"
_FIELD: Final = re.compile(r"^([A-Za-z-]+):[ \t]*(.*)$", re.MULTILINE)
_APK: Final = {"P": "Package", "V": "Version", "A": "Architecture", "o": "Source", "L": "License"}


class Package(NamedTuple):
    """One installed package."""

    kind: str
    name: str
    version: str
    architecture: str
    source: str
    license: str


def document(image: str, digest: str, created: str, texts: Mapping[str, bytes]) -> bytes:
    """The SPDX document of an image; `texts` are FILES and what DIRECTORIES have, by path."""
    system = _system(texts)
    found = packages(texts)
    described = [_root(image, digest), *(_described(one, system) for one in found)]
    relations = [_relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image")]
    relations += [_relation("SPDXRef-Image", "CONTAINS", one["SPDXID"]) for one in described[1:]]
    content: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": image,
        "documentNamespace": f"urn:sampan:spdx:{digest}",
        "creationInfo": {"created": created, "creators": ["Tool: sampan"]},
        "packages": described,
        "relationships": relations,
    }
    return encode(content).encode()


def packages(texts: Mapping[str, bytes]) -> list[Package]:
    """The packages that are written down in the texts, sorted."""
    found: set[Package] = set()
    for path, content in texts.items():
        text = content.decode("utf-8", "replace")
        if path.startswith("var/lib/dpkg/status"):
            found.update(_debian(text, needs_status=path == "var/lib/dpkg/status"))
        elif path == "lib/apk/db/installed":
            found.update(_alpine(text))
    return sorted(found)[:MAX_PACKAGES]


def _debian(text: str, *, needs_status: bool) -> Iterable[Package]:
    for paragraph in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = dict(_FIELD.findall(paragraph))
        if "Package" not in fields or "Version" not in fields:
            continue
        if needs_status and not fields.get("Status", "").endswith(" installed"):
            continue
        source = (fields.get("Source") or fields["Package"]).partition(" ")[0]
        yield Package(
            "deb", fields["Package"], fields["Version"], fields.get("Architecture", ""), source, ""
        )


def _alpine(text: str) -> Iterable[Package]:
    for paragraph in text.split("\n\n"):
        fields = {
            _APK[line[0]]: line[2:]
            for line in paragraph.split("\n")
            if line[1:2] == ":" and line[0] in _APK
        }
        if "Package" in fields and "Version" in fields:
            yield Package(
                "apk",
                fields["Package"],
                fields["Version"],
                fields.get("Architecture", ""),
                fields.get("Source", fields["Package"]),
                fields.get("License", ""),
            )


def _system(texts: Mapping[str, bytes]) -> str:
    """The distribution's short name, for the packages' URLs."""
    text = texts.get("etc/os-release") or texts.get("usr/lib/os-release") or b""
    match = re.search(r'^ID="?([a-z0-9._-]+)"?$', text.decode("utf-8", "replace"), re.MULTILINE)
    return match[1] if match else "linux"


def _root(image: str, digest: str) -> dict[str, Any]:
    algorithm, _, value = digest.partition(":")
    return {
        "SPDXID": "SPDXRef-Image",
        "name": image,
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{"algorithm": algorithm.upper(), "checksumValue": value}],
    }


def _described(one: Package, system: str) -> dict[str, Any]:
    place = re.sub(
        r"[^A-Za-z0-9.-]", "-", f"{one.kind}-{one.name}-{one.version}-{one.architecture}"
    )
    locator = f"pkg:{one.kind}/{system}/{_quoted(one.name)}@{_quoted(one.version)}"
    if one.architecture:
        locator += f"?arch={_quoted(one.architecture)}"
    return {
        "SPDXID": f"SPDXRef-Package-{place}",
        "name": one.name,
        "versionInfo": one.version,
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "licenseDeclared": _UNKNOWN,
        "licenseComments": one.license,
        "sourceInfo": f"built from the source package {one.source}",
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": locator,
            }
        ],
    }


def _quoted(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._~-]", lambda found: f"%{ord(found[0]):02X}", text)


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
