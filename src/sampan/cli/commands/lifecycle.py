"""The small verbs of a container's life: stop, restart, kill, pause, unpause, rename, wait, rm."""

from __future__ import annotations

from sampan.cli.session import Command, Refused, Session
from sampan.client import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.flags import Values

_MANY = "[OPTIONS] CONTAINER [CONTAINER...]"


def _timeout(flags: Values) -> int | None:
    for name in ("timeout", "time"):
        if flags.has(name):
            return flags.number(name)
    return None


def stop(session: Session, flags: Values, refs: list[str]) -> int:
    timeout, signal = _timeout(flags), flags.text("signal")
    return session.each(refs, lambda ref: session.call(calls.stop(ref, timeout, signal)))


def restart(session: Session, flags: Values, refs: list[str]) -> int:
    timeout, signal = _timeout(flags), flags.text("signal")
    return session.each(refs, lambda ref: session.call(calls.restart(ref, timeout, signal)))


def kill(session: Session, flags: Values, refs: list[str]) -> int:
    return session.each(refs, lambda ref: session.call(calls.kill(ref, flags.text("signal"))))


def pause(session: Session, _: Values, refs: list[str]) -> int:
    return session.each(refs, lambda ref: session.call(calls.pause(ref)))


def unpause(session: Session, _: Values, refs: list[str]) -> int:
    return session.each(refs, lambda ref: session.call(calls.unpause(ref)))


def rename(session: Session, _: Values, names: list[str]) -> int:
    session.call(calls.rename(names[0], names[1]))
    return 0


def wait(session: Session, _: Values, refs: list[str]) -> int:
    code = 0
    for ref in refs:
        try:
            session.out(str(session.call(calls.wait(ref))["StatusCode"]))
        except Refused as error:
            session.error(str(error))
            code = 1
    return code


def remove(session: Session, flags: Values, refs: list[str]) -> int:
    force, code = flags.on("force"), 0
    for ref in refs:
        try:
            session.call(calls.remove(ref.strip("/"), force=force, volumes=flags.on("volumes")))
            session.out(ref)
        except Refused as error:
            session.error(str(error))
            if not (force and error.status == 404):
                code = 1
    return code


STOP = Command(
    stop,
    _MANY,
    "Stop one or more running containers",
    """\
  -s, --signal string   Signal to send to the container
  -t, --timeout int     Seconds to wait before killing the container
      --time int        The same, by its old name
""",
    least=1,
    names="container stop, stop",
)
RESTART = Command(
    restart,
    _MANY,
    "Restart one or more containers",
    """\
  -s, --signal string   Signal to send to the container
  -t, --timeout int     Seconds to wait before killing the container
      --time int        The same, by its old name
""",
    least=1,
    names="container restart, restart",
)
KILL = Command(
    kill,
    _MANY,
    "Kill one or more running containers",
    "  -s, --signal string   Signal to send to the container\n",
    least=1,
    names="container kill, kill",
)
PAUSE = Command(
    pause,
    "CONTAINER [CONTAINER...]",
    "Pause all processes within one or more containers",
    least=1,
    names="container pause, pause",
)
UNPAUSE = Command(
    unpause,
    "CONTAINER [CONTAINER...]",
    "Unpause all processes within one or more containers",
    least=1,
    names="container unpause, unpause",
)
RENAME = Command(
    rename,
    "CONTAINER NEW_NAME",
    "Rename a container",
    least=2,
    most=2,
    names="container rename, rename",
)
WAIT = Command(
    wait,
    "CONTAINER [CONTAINER...]",
    "Block until one or more containers stop, then print their exit codes",
    least=1,
    names="container wait, wait",
)
RM = Command(
    remove,
    _MANY,
    "Remove one or more containers",
    """\
  -f, --force     Force the removal of a running container (uses SIGKILL)
  -v, --volumes   Remove anonymous volumes associated with the container
""",
    least=1,
    names="container rm, container remove, rm",
)
