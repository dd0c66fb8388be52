"""`top`: the processes of a container."""

from __future__ import annotations

from sampan.cli.session import Command, Session
from sampan.client import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.flags import Values

_MIN_WIDTH = 20


def top(session: Session, _: Values, words: list[str]) -> int:
    answer = session.call(calls.top(words[0], " ".join(words[1:])))
    rows = [answer["Titles"], *(answer["Processes"] or [])]
    widths = [
        max(_MIN_WIDTH, *(len(row[at]) + 1 for row in rows)) for at in range(len(rows[0]) - 1)
    ]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        session.out("".join(cells) + row[-1])
    return 0


TOP = Command(
    top,
    "CONTAINER [ps OPTIONS]",
    "Display the running processes of a container",
    least=1,
    names="container top, top",
    interspersed=False,
)
