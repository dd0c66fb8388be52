"""`logs`: what a container wrote."""

from __future__ import annotations

from sampan.cli.session import Command, Session, write
from sampan.client import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.flags import Values


def _moment(text: str) -> str:
    if not text:
        return ""
    from sampan.cli.moments import parse_moment

    return parse_moment(text)


def logs(session: Session, flags: Values, refs: list[str]) -> int:
    from sampan.client.streams import STDOUT, Frames

    container = session.call(calls.inspect(refs[0]))
    tail = flags.text("tail")
    call = calls.logs(
        container["Id"],
        follow=flags.on("follow"),
        since=_moment(flags.text("since")),
        until=_moment(flags.text("until")),
        tail="" if tail == "all" else tail,
        timestamps=flags.on("timestamps"),
        details=flags.on("details"),
    )
    answer = session.client.open(call)
    if (container.get("Config") or {}).get("Tty"):
        for piece in answer.pieces():
            write(1, piece)
        return 0
    frames = Frames()
    for piece in answer.pieces():
        for stream, payload in frames.feed(piece):
            write(1 if stream == STDOUT else 2, payload)
    return 0


LOGS = Command(
    logs,
    "[OPTIONS] CONTAINER",
    "Fetch the logs of a container",
    """\
      --details        Show extra details provided to logs
  -f, --follow         Follow log output
      --since string   Show logs since timestamp (e.g.
                       "2013-01-02T13:23:37Z") or relative (e.g. "42m"
                       for 42 minutes)
  -n, --tail string    Number of lines to show from the end of the logs
                       (default "all")
  -t, --timestamps     Show timestamps
      --until string   Show logs before a timestamp (e.g.
                       "2013-01-02T13:23:37Z") or relative (e.g. "42m"
                       for 42 minutes)
""",
    least=1,
    most=1,
    names="container logs, logs",
)
