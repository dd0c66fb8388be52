"""`inspect`: everything the daemon knows of containers, images and volumes."""

from __future__ import annotations

from sampan.cli.session import Command, Failed, Refused, Session
from sampan.client import calls
from sampan.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.cli.flags import Values
    from sampan.client.calls import Call

    Kind = tuple[str, Callable[[str], Call]]

_KNOWN = ("container", "image", "volume")


def _kinds(wanted: str, *, size: bool) -> list[Kind]:
    kinds: list[Kind] = [
        ("container", lambda ref: calls.inspect(ref, size=size)),
        ("image", calls.image_inspect),
        ("volume", calls.volume_inspect),
    ]
    return [kind for kind in kinds if wanted in ("", kind[0])]


def find(session: Session, ref: str, kinds: list[Kind]) -> Any:
    """The document of the first kind that has `ref`; None when none of several has."""
    for _, call in kinds:
        try:
            return session.call(call(ref))
        except Refused as error:
            if error.status != 404 or len(kinds) == 1:
                raise
    return None


def inspect(session: Session, flags: Values, refs: list[str]) -> int:
    wanted = flags.text("type")
    if wanted and wanted not in _KNOWN:
        choices = ", ".join(f'"{kind}"' for kind in _KNOWN)
        raise Failed(f'unknown type: "{wanted}": must be one of {choices}')
    return _inspect(session, flags, refs, wanted)


def inspect_container(session: Session, flags: Values, refs: list[str]) -> int:
    return _inspect(session, flags, refs, "container")


def inspect_image(session: Session, flags: Values, refs: list[str]) -> int:
    return _inspect(session, flags, refs, "image")


def _inspect(session: Session, flags: Values, refs: list[str], wanted: str) -> int:
    kinds = _kinds(wanted, size=flags.on("size"))
    documents, errors = [], []
    for ref in refs:
        try:
            document = find(session, ref, kinds)
        except Refused as error:
            errors.append(str(error))
            continue
        if document is None:
            errors.append(f"Error: No such {wanted or 'object'}: {ref}")
        else:
            documents.append(document)
    print_documents(session, documents, flags.text("format"))
    for text in errors:
        session.error(text)
    return 1 if errors else 0


def print_documents(session: Session, documents: list[Any], layout: str) -> None:
    """Print what was found: as JSON, or through a template."""
    if not layout:
        session.out(encode(documents, "    "))
        return
    if layout == "json":
        session.out(encode(documents))
        return
    from sampan.cli.template import Template

    try:
        template = Template(layout)
        for document in documents:
            session.out(template.render(document))
    except ValueError as error:
        raise Failed(f"template parsing error: template: :1: {error}") from None


FORMAT = """\
  -f, --format string   Format output using a custom template:
                        'json':             Print in JSON format
                        'TEMPLATE':         Print output using the given
                        Go template.
"""
_SIZE = "  -s, --size            Display total file sizes if the type is container\n"

INSPECT = Command(
    inspect,
    "[OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on Sampan objects",
    FORMAT + _SIZE + "      --type string     Only inspect objects of the given type\n",
    least=1,
)
INSPECT_CONTAINER = Command(
    inspect_container,
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Display detailed information on one or more containers",
    FORMAT + _SIZE,
    least=1,
)
INSPECT_IMAGE = Command(
    inspect_image,
    "[OPTIONS] IMAGE [IMAGE...]",
    "Display detailed information on one or more images",
    FORMAT,
    least=1,
)
