"""`cp` and `export`: a container's files here, and files of this host there."""

from __future__ import annotations

import os

from sampan.cli.output import pieces_of, refuse_terminal, to_file
from sampan.cli.session import Command, Failed, Session, write
from sampan.cli.units import decimal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.flags import Values


def _split(word: str) -> tuple[str, str]:
    """(container, path) of `CONTAINER:PATH`; ("", path) of what is here."""
    if word.startswith("/"):
        return "", word
    container, colon, path = word.partition(":")
    if not colon or container.startswith("."):
        return "", word
    return container, path


def copy(session: Session, flags: Values, words: list[str]) -> int:
    (source, path), (target, place) = map(_split, words)
    if source and target:
        raise Failed("copying between containers is not supported")
    if not source and not target:
        raise Failed("must specify at least one container source")
    if not words[0] or not words[1]:
        raise Failed(f"{'source' if not words[0] else 'destination'} can not be empty")
    if source:
        size = _out(session, flags, source, path, place)
    else:
        size = _in(session, flags, path, target, place)
    quiet = flags.on("quiet", default=not os.isatty(1))
    if not quiet and place != "-":
        session.error(f"Successfully copied {decimal_size(size, 3)} to {words[1]}")
    return 0


def _out(session: Session, flags: Values, ref: str, path: str, target: str) -> int:
    from sampan.client import copying

    follow = flags.on("follow-link")
    if target == "-":
        return copying.read_out(
            session.client, ref, path, lambda data: write(1, data), follow=follow
        )
    return copying.copy_out(
        session.client, ref, path, target, follow=follow, keep_owner=flags.on("archive")
    )


def _in(session: Session, flags: Values, source: str, ref: str, path: str) -> int:
    from sampan.client import copying

    keep = flags.on("archive")
    if source == "-":
        return copying.write_in(session.client, ref, pieces_of(""), path, keep_owner=keep)
    return copying.copy_in(
        session.client, ref, source, path, follow=flags.on("follow-link"), keep_owner=keep
    )


def export(session: Session, flags: Values, names: list[str]) -> int:
    from sampan.client.container_calls import export as call

    target = flags.text("output")
    refuse_terminal(target)
    pieces = session.client.open(call(names[0])).pieces()
    to_file(pieces, target)
    return 0


CP = Command(
    copy,
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n"
    "        sampan cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    """\
Copy files/folders between a container and the local filesystem

Use '-' as the source to read a tar archive from stdin
and extract it to a directory destination in a container.
Use '-' as the destination to stream a tar archive of a
container source to stdout.""",
    """\
  -a, --archive       Archive mode (copy all uid/gid information)
  -L, --follow-link   Always follow symbol link in SRC_PATH
  -q, --quiet         Suppress progress output during copy. Progress
                      output is automatically suppressed if no terminal
                      is attached
""",
    least=2,
    most=2,
    names="container cp, cp",
)
EXPORT = Command(
    export,
    "[OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    "  -o, --output string   Write to a file, instead of STDOUT\n",
    least=1,
    most=1,
    names="container export, export",
)
