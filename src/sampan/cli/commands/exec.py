"""`exec`: another process in a running container."""

from __future__ import annotations

from sampan.cli.container_options import environment_of
from sampan.cli.session import Command, Failed, Refused, Session
from sampan.client import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.attached import Copy, Signals
    from sampan.cli.flags import Values


def execute(session: Session, flags: Values, words: list[str]) -> int:
    try:
        return _execute(session, flags, words)
    except Refused as error:
        raise Failed(str(error), _code(error.message)) from None


def _code(message: str) -> int:
    if "executable file not found" in message or "no such file or directory" in message:
        return 127
    if "exec" in message and "permission denied" in message:
        return 126
    return 1


def _execute(session: Session, flags: Values, words: list[str]) -> int:
    detach, tty = flags.on("detach"), flags.on("tty")
    stdin = flags.on("interactive") and not detach
    size = _terminal_size(stdin=stdin) if tty and not detach else None
    body: dict[str, Any] = {
        "AttachStderr": not detach,
        "AttachStdin": stdin,
        "AttachStdout": not detach,
        "Cmd": words[1:],
        "DetachKeys": flags.text("detach-keys"),
        "Env": environment_of(flags),
        "Privileged": flags.on("privileged"),
        "Tty": tty,
        "User": flags.text("user"),
        "WorkingDir": flags.text("workdir"),
    }
    if size:
        body["ConsoleSize"] = size
    exec_id = session.call(calls.exec_create(words[0], body))["Id"]
    if detach:
        session.call(calls.exec_start_detached(exec_id, tty=tty))
        return 0
    _attend(session, flags, exec_id, size, stdin=stdin)
    result = session.call(calls.exec_inspect(exec_id))
    return int(result.get("ExitCode") or 0) & 0xFF


def _terminal_size(*, stdin: bool) -> list[int] | None:
    from sampan.cli.terminal import is_terminal, size

    if stdin and not is_terminal(0):
        raise Failed("the input device is not a TTY")
    height, width = size(1)
    return [height, width] if height else None


def _attend(
    session: Session, flags: Values, exec_id: str, size: list[int] | None, *, stdin: bool
) -> None:
    from sampan.cli.attached import Copy, parse_keys, proxied

    tty = flags.on("tty")
    raw, first, framed = session.client.upgrade(calls.exec_start(exec_id, tty=tty, size=size))
    copy = Copy(
        raw, first, framed=framed and not tty, stdin=stdin,
        keys=parse_keys(flags.text("detach-keys")),
    )  # fmt: skip
    with copy, proxied(tty=True) as signals:  # docker passes no signals on either
        if tty:
            _with_terminal(session, exec_id, copy, signals, stdin=stdin)
        else:
            copy.run(signals, lambda _: None)
    if copy.may_be_detached:
        running = session.call(calls.exec_inspect(exec_id)).get("Running")
        if running:
            raise Failed("read escape sequence", 0)


def _with_terminal(
    session: Session, exec_id: str, copy: Copy, signals: Signals, *, stdin: bool
) -> None:
    from sampan.cli.terminal import RawMode, size

    def resize(_: str) -> None:
        height, width = size(1)
        if height:
            try:
                session.call(calls.exec_resize(exec_id, height, width))
            except Refused:
                pass  # it has ended, and will be seen so

    resize("WINCH")
    if not stdin:
        copy.run(signals, resize)
        return
    with RawMode(0):
        copy.run(signals, resize)


EXEC = Command(
    execute,
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    """\
  -d, --detach               Detached mode: run command in the background
      --detach-keys string   Override the key sequence for detaching a
                             container
  -e, --env list             Set environment variables
      --env-file list        Read in a file of environment variables
  -i, --interactive          Keep STDIN open even if not attached
      --privileged           Give extended privileges to the command
  -t, --tty                  Allocate a pseudo-TTY
  -u, --user string          Username or UID (format:
                             "<name|uid>[:<group|gid>]")
  -w, --workdir string       Working directory inside the container
""",
    least=2,
    names="container exec, exec",
    interspersed=False,
)
