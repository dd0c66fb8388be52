"""`commit`, `diff` and `port`: what became of a container."""

from __future__ import annotations

from sampan.cli.session import Command, Failed, Session
from sampan.client import calls, container_calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.flags import Values

_KINDS = "CAD"


def commit(session: Session, flags: Values, words: list[str]) -> int:
    call = container_calls.commit(
        words[0],
        words[1] if len(words) > 1 else "",
        author=flags.text("author"),
        message=flags.text("message"),
        changes=flags.many("change"),
        pause=flags.on("pause", default=True),
    )
    session.out(session.call(call)["Id"])
    return 0


def diff(session: Session, _: Values, names: list[str]) -> int:
    for change in session.call(container_calls.changes(names[0])) or ():
        session.out(f"{_KINDS[change['Kind']]} {change['Path']}")
    return 0


def port(session: Session, _: Values, words: list[str]) -> int:
    document = session.call(calls.inspect(words[0]))
    ports: dict[str, list[dict[str, str]] | None] = document["NetworkSettings"].get("Ports") or {}
    if len(words) > 1:
        number, _slash, protocol = words[1].partition("/")
        wanted = f"{number}/{protocol or 'tcp'}"
        found = ports.get(wanted)
        if not number.isdigit() or not found:
            raise Failed(f"Error: No public port '{words[1]}' published for {words[0]}")
        for binding in found:
            session.out(_address(binding))
        return 0
    for name in sorted(ports, key=_order):
        for binding in ports[name] or ():
            session.out(f"{name} -> {_address(binding)}")
    return 0


def _address(binding: dict[str, str]) -> str:
    host = binding.get("HostIp") or ""
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"


def _order(name: str) -> tuple[int, str]:
    number, _, protocol = name.partition("/")
    return int(number), protocol


COMMIT = Command(
    commit,
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    """\
  -a, --author string    Author (e.g., "John Hannibal Smith
                         <hannibal@a-team.com>")
  -c, --change list      Apply Dockerfile instruction to the created image
  -m, --message string   Commit message
  -p, --pause            Pause container during commit (default true)
""",
    least=1,
    most=2,
    names="container commit, commit",
)
DIFF = Command(
    diff,
    "CONTAINER",
    "Inspect changes to files or directories on a container's filesystem",
    least=1,
    most=1,
    names="container diff, diff",
)
PORT = Command(
    port,
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List port mappings or a specific mapping for the container",
    least=1,
    most=2,
    names="container port, port",
)
