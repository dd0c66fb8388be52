"""`sampan manual`: the manual pages, made of the same tables as the help, so that they agree.

`sampan manual run` prints a page in man(7)'s language for `man -l -`; `--install DIR` writes all
of them below DIR/man1, where man(1) finds them when DIR is in its path.
"""

from __future__ import annotations

import os

from sampan.cli.catalog import COMMANDS, GROUPS
from sampan.cli.help import text_of
from sampan.cli.session import Command, Failed, Session
from sampan.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.flags import Values

_SEE_ALSO = "docker(1), sampan(1), sampan\\-oci(1)"
_FILES = (
    ("/etc/sampan/config.toml", "settings of the daemon"),
    ("/var/lib/sampan", "images, containers, volumes"),
    ("/run/sampan/docker.sock", "the daemon's socket"),
)


def paths() -> list[str]:
    """Every command as it is typed, the management commands among them."""
    found = ["sampan", *(f"sampan {name}" for name in sorted(COMMANDS))]
    for group, names in sorted(GROUPS.items()):
        found += [f"sampan {group}", *(f"sampan {group} {name}" for name in sorted(names))]
    return found


def page(path: str) -> str:
    """The manual page of a command.

    Raises:
        Failed: there is no such command.
    """
    usage, *paragraphs = text_of(path).split("\n\n")
    summary = paragraphs.pop(0)
    title = path.replace(" ", "-")
    head = f'.TH "{_escape(title.upper())}" 1 "" "Sampan {VERSION}" "Sampan"'
    parts = [head, ".SH NAME", f"{_escape(title)} \\- {_escape(_first_line(summary))}"]
    parts += [".SH SYNOPSIS", f".B {_escape(usage.removeprefix('Usage:').strip())}"]
    rest = summary.partition("\n")[2].strip()
    if rest:
        parts += [".SH DESCRIPTION", _escape(rest)]
    for paragraph in paragraphs:
        parts += _section(paragraph)
    parts.append(".SH FILES")
    for name, what in _FILES:
        parts += [".TP", f".I {_escape(name)}", what]
    return "\n".join([*parts, ".SH SEE ALSO", _SEE_ALSO, ""])


def _section(paragraph: str) -> list[str]:
    """A titled list of the help, as it stands: its columns are for a terminal as well."""
    title, colon, body = paragraph.partition(":\n")
    if not colon:
        return [".PP", _escape(paragraph)]
    return [f'.SH "{_escape(title.upper())}"', ".nf", _escape(body), ".fi"]


def _first_line(text: str) -> str:
    line = text.partition("\n")[0]
    return line[:1].lower() + line[1:]


def _escape(text: str) -> str:
    """Text that groff shows as it is: no requests at the start of lines, no hyphens for minus."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    lines = [f"\\&{line}" if line.startswith((".", "'")) else line for line in text.split("\n")]
    return "\n".join(lines)


def _install(directory: str) -> int:
    place = os.path.join(directory, "man1")
    os.makedirs(place, exist_ok=True)
    for path in paths():
        with open(f"{place}/{path.replace(' ', '-')}.1", "w", encoding="utf-8") as file:
            file.write(page(path))
    return len(paths())


def show(session: Session, flags: Values, words: list[str]) -> int:
    if flags.text("install"):
        try:
            count = _install(flags.text("install"))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Failed(f"write manual pages to {flags.text('install')}: {reason}") from error
        session.out(f"{count} pages are in {flags.text('install')}/man1")
        return 0
    session.out(page(" ".join(["sampan", *words])).rstrip("\n"))
    return 0


MANUAL = Command(
    show,
    "[OPTIONS] [COMMAND...]",
    "Print a manual page, or install all of them",
    """\
      --install string   Write every page below this directory
                         (/usr/local/share/man)
""",
    most=2,
)
