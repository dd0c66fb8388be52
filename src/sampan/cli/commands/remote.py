"""`manifest inspect`, `image tags`, `image referrers`, `image copy`: what registries have."""

from __future__ import annotations

from sampan.cli.progress import show
from sampan.cli.session import Command, Session, write
from sampan.cli.tables import show as table
from sampan.client import calls
from sampan.client.credentials import header_for
from sampan.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.flags import Values

_HEADERS = {"Digest": "DIGEST", "Size": "SIZE", "Type": "TYPE"}


def manifest(session: Session, flags: Values, names: list[str]) -> int:
    answer = session.client.open(calls.remote_manifest(names[0], header_for(names[0])))
    content = b"".join(answer.pieces())
    if not flags.on("raw"):
        from sampan.jsontext import decode

        content = encode(decode(content), "   ").encode() + b"\n"
    write(1, content)
    return 0


def tags(session: Session, _: Values, names: list[str]) -> int:
    for name in session.call(calls.remote_tags(names[0], header_for(names[0])))["Tags"]:
        session.out(name)
    return 0


def referrers(session: Session, flags: Values, names: list[str]) -> int:
    call = calls.remote_referrers(names[0], flags.text("artifact-type"), header_for(names[0]))
    rows = [
        {
            "Digest": entry["digest"],
            "Size": str(entry["size"]),
            "Type": entry.get("artifactType") or entry["mediaType"],
        }
        for entry in session.call(call)["Referrers"]
    ]
    table(session, rows, "Digest Type Size", _HEADERS, flags.text("format"))
    return 0


def copy(session: Session, flags: Values, names: list[str]) -> int:
    source, destination = names
    call = calls.copy(source, destination, header_for(source), header_for(destination))
    show(session.client.open(call).lines(), 1, quiet=flags.on("quiet"))
    return 0


MANIFEST = Command(
    manifest,
    "[OPTIONS] IMAGE",
    "Show the manifest or index that a registry has",
    "      --raw   Print the bytes as the registry has them\n",
    least=1,
    most=1,
)
TAGS = Command(tags, "IMAGE", "List the tags of a repository at its registry", least=1, most=1)
REFERRERS = Command(
    referrers,
    "[OPTIONS] IMAGE",
    "List what refers to an image at its registry: signatures, attestations",
    """\
      --artifact-type string   Only those of this type
      --format string          Format output using a custom template:
                               'json' or a Go template
""",
    least=1,
    most=1,
)
COPY = Command(
    copy,
    "[OPTIONS] SOURCE DESTINATION",
    "Copy an image, every platform of it, from one registry to another",
    "  -q, --quiet   Suppress verbose output\n",
    least=2,
    most=2,
)
