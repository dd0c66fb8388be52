"""`--sbom` and `--provenance`: documents about an image, as its referrers at the registry."""

from __future__ import annotations

from sampan.cli.session import Failed, Session
from sampan.client import buildquery
from sampan.client.credentials import header_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values

_TYPES = {"sbom": "application/spdx+json", "provenance": "application/vnd.in-toto+json"}
_OFF = ("false", "0", "disabled=true")


def wanted(flags: Values, *, pushes: bool) -> frozenset[str]:
    """Which documents are asked for.

    Raises:
        Failed: there is no registry that they could be at.
    """
    found = {name for name in _TYPES if flags.text(name) and flags.text(name) not in _OFF}
    for text in flags.many("attest"):
        words = buildquery.fields_of(text, "attest", ("type", "mode", "disabled"))
        kind = words.get("type", "")
        if kind not in _TYPES:
            raise Failed(f"invalid attest {text!r}: type is sbom or provenance")
        if words.get("disabled") != "true":
            found.add(kind)
    if found and not pushes:
        raise Failed(
            f"{' and '.join(sorted(found))} are kept beside the image at its registry: "
            "add --push, or --output type=registry"
        )
    return frozenset(found)


def attach(session: Session, kinds: frozenset[str], result: dict[str, Any]) -> None:
    """Push the documents that were asked for, for each name."""
    for name in result.get("Names") or ():
        for kind in sorted(kinds):
            if kind == "sbom":
                document = session.client.open(buildquery.sbom(result["ID"])).pieces()
                content = b"".join(document)
            else:
                content = result.get("Provenance", "").encode()
            call = buildquery.attach(name, _TYPES[kind], content, header_for(name))
            session.call(call)
