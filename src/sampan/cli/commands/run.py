"""`run`, `create`, `start` and `attach`: a container's life begins, and somebody may watch.

The order of an attached run is docker's: create, wait, attach, start; the wait is heard by the
daemon before the container starts, so no exit is missed. Exit codes are the container's own; 125
for an error of ours, 126 for a command that cannot be executed, 127 for one that is not there.
"""

from __future__ import annotations

import os

from sampan.cli.container_options import OPTIONS, create_body, split_rootfs
from sampan.cli.session import Command, Failed, Refused, Session
from sampan.client import calls
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.attached import Copy, Signals
    from sampan.cli.flags import Values
    from sampan.client.sync import Answer

_DETACH = """\
  -d, --detach                      Run container in background and print
                                    container ID
      --detach-keys string          Override the key sequence for detaching a
                                    container
"""
_PROXY = """\
      --sig-proxy                   Proxy received signals to the process
                                    (default true)
"""
_PULL = ("always", "missing", "never")


def run(session: Session, flags: Values, words: list[str]) -> int:
    try:
        return _run(session, flags, words)
    except (Refused, Failed, SampanError) as error:
        if isinstance(error, Failed) and error.code == 1 and not _is_ours(error):
            raise
        raise Failed(
            f"sampan: {error}\n\nRun '{session.path} --help' for more information",
            _code(str(error)),
        ) from None


def _is_ours(error: Failed) -> bool:
    return str(error) not in _BARE


_NOT_A_TTY = "the input device is not a TTY"
_CONFLICT = "conflicting options: cannot specify both --attach and --detach"
_BARE = (_NOT_A_TTY, _CONFLICT)


def _code(message: str) -> int:
    """The shell's code for a start that failed; docker's API has nothing but its sentence."""
    if "executable file not found" in message or "no such file or directory" in message:
        return 127 if "Error response" in message else 125
    if "permission denied" in message or "is a directory" in message:
        return 126 if "exec" in message and "Error response" in message else 125
    return 125


def _run(session: Session, flags: Values, words: list[str]) -> int:
    image, command = split_rootfs(flags, words)
    streams = _streams(flags)
    body = create_body(flags, image, command) | streams
    if flags.on("tty"):
        _check_terminal(flags, body)
    container = _create(session, flags, body, image)
    condition = "removed" if flags.on("rm") else "next-exit"
    if flags.on("detach"):
        session.call(calls.start(container))
        session.out(container)
        return 0
    return _Watch(session, container, flags, body).run(condition)


def _streams(flags: Values) -> dict[str, Any]:
    """Which streams are attached, from -a, -d and -i."""
    wanted = {name.lower() for name in flags.many("attach")}
    if wanted - {"stdin", "stdout", "stderr"}:
        raise Failed(
            "invalid argument for -a, --attach: valid streams are STDIN, STDOUT and STDERR"
        )
    if flags.on("detach"):
        if wanted:
            raise Failed(_CONFLICT)
        return {"OpenStdin": True} if flags.on("interactive") else {}
    if not wanted:
        wanted = {"stdout", "stderr"} | ({"stdin"} if flags.on("interactive") else set())
    stdin = "stdin" in wanted
    return {
        "AttachStdin": stdin,
        "AttachStdout": "stdout" in wanted,
        "AttachStderr": "stderr" in wanted,
        "OpenStdin": flags.on("interactive"),
        "StdinOnce": flags.on("interactive") and stdin,
    }


def _check_terminal(flags: Values, body: dict[str, Any]) -> None:
    from sampan.cli.terminal import is_terminal, size

    if body.get("AttachStdin") and flags.on("interactive") and not is_terminal(0):
        raise Failed(_NOT_A_TTY)
    height, width = size(1)
    if height:
        body["HostConfig"]["ConsoleSize"] = [height, width]


def _create(session: Session, flags: Values, body: dict[str, Any], image: str) -> str:
    policy = flags.text("pull", "missing")
    if policy not in _PULL:
        raise Failed(f"invalid pull option: '{policy}': "
                     'must be one of "always", "missing" or "never"')  # fmt: skip
    cidfile = flags.text("cidfile")
    if cidfile and os.path.exists(cidfile):
        raise Failed("container ID file found, make sure the other container isn't running "
                     f"or delete {cidfile}")  # fmt: skip
    if image and policy == "always":
        _pull(session, flags, image)
    call = calls.create(body, flags.text("name"), flags.text("platform"))
    try:
        created = session.call(call)
    except Refused as error:
        if error.status != 404 or not image or policy != "missing":
            raise
        if not flags.on("quiet"):
            session.error(f"Unable to find image '{_familiar(image)}' locally")
        _pull(session, flags, image)
        created = session.call(call)
    for warning in created.get("Warnings") or ():
        session.error(f"WARNING: {warning}")
    container = created["Id"]
    assert isinstance(container, str)
    if cidfile:
        _write_cidfile(cidfile, container)
    return container


def _write_cidfile(path: str, container: str) -> None:
    try:
        with open(path, "x", encoding="ascii") as file:
            file.write(container)
    except OSError as error:
        raise Failed(f"failed to create the container ID file: {error}") from error


def _familiar(image: str) -> str:
    name, tag = calls.split_tag(image)
    return f"{name}@{tag}" if "@" in image else f"{name}:{tag}"


def _pull(session: Session, flags: Values, image: str) -> None:
    from sampan.cli.progress import show

    answer = session.client.open(
        calls.pull(image, flags.text("platform"), credentials(session, image))
    )
    show(answer.lines(), 2, quiet=flags.on("quiet"))


def credentials(session: Session, image: str) -> str:
    """The X-Registry-Auth for an image; the empty object where nothing is stored."""
    from sampan.client.credentials import header_for

    return header_for(image)


class _Watch:
    """Attaches to a container that is about to start, and gives back its exit code."""

    def __init__(
        self, session: Session, container: str, flags: Values, body: dict[str, Any]
    ) -> None:
        self._session = session
        self._container = container
        self._flags = flags
        self._tty = bool(body.get("Tty"))
        self._stdin = bool(body.get("AttachStdin") and body.get("OpenStdin"))
        self._stdout = bool(body.get("AttachStdout"))
        self._stderr = bool(body.get("AttachStderr"))

    def run(self, condition: str, *, start: bool = True) -> int:
        from sampan.cli.attached import Copy, parse_keys, proxied

        client = self._session.client
        keys = self._flags.text("detach-keys")
        waiting = client.open(calls.wait(self._container, condition))
        attach = calls.attach(
            self._container, stdin=self._stdin, stdout=self._stdout, stderr=self._stderr,
            detach_keys=keys,
        )  # fmt: skip
        raw, first, framed = client.upgrade(attach)
        copy = Copy(
            raw, first, framed=framed and not self._tty, stdin=self._stdin, keys=parse_keys(keys)
        )
        with copy, proxied(tty=self._tty) as signals:
            if start:
                self._start(waiting)
            self._follow(copy, signals)
        if copy.may_be_detached and not waiting.ready():
            self._session.error("read escape sequence")
            return 0
        return exit_code(waiting)

    def _start(self, waiting: Answer) -> None:
        try:
            self._session.call(calls.start(self._container))
        except Refused:
            if self._flags.on("rm"):
                waiting.ready(10_000)  # the name is free when we are gone
            raise

    def _follow(self, copy: Copy, signals: Signals) -> None:
        if not self._tty:
            proxy = self._flags.on("sig-proxy", default=True)
            copy.run(signals, self._kill if proxy else _end)
            return
        from sampan.cli.terminal import RawMode, is_terminal

        self._resize("WINCH")
        if self._stdin and is_terminal(0):
            with RawMode(0):
                copy.run(signals, self._resize)
        else:
            copy.run(signals, self._resize)

    def _kill(self, name: str) -> None:
        try:
            self._session.call(calls.kill(self._container, name))
        except Refused:
            pass  # it has ended, and will be seen so

    def _resize(self, _: str) -> None:
        from sampan.cli.terminal import size

        height, width = size(1)
        if height:
            try:
                self._session.call(calls.resize(self._container, height, width))
            except Refused:
                pass  # it has ended, and will be seen so


def _end(name: str) -> None:
    if name in ("INT", "TERM", "HUP", "QUIT"):
        raise KeyboardInterrupt


def exit_code(waiting: Answer) -> int:
    """What the wait says in the end."""
    result = waiting.document()
    error = (result.get("Error") or {}).get("Message")
    if error:
        raise Failed(f"error waiting for container: {error}", 125)
    return int(result["StatusCode"]) & 0xFF


def create(session: Session, flags: Values, words: list[str]) -> int:
    image, command = split_rootfs(flags, words)
    body = create_body(flags, image, command) | _streams(flags)
    session.out(_create(session, flags, body, image))
    return 0


def start(session: Session, flags: Values, refs: list[str]) -> int:
    if not flags.on("attach") and not flags.on("interactive"):
        code = session.each(refs, lambda ref: session.call(calls.start(ref)))
        if code:
            raise Failed(f"failed to start containers: {', '.join(refs)}")
        return 0
    if len(refs) > 1:
        raise Failed("you cannot start and attach multiple containers at once")
    container = session.call(calls.inspect(refs[0]))
    config = container["Config"]
    body = {
        "Tty": config.get("Tty"),
        "OpenStdin": config.get("OpenStdin"),
        "AttachStdin": flags.on("interactive"),
        "AttachStdout": True,
        "AttachStderr": True,
    }
    removes = (container.get("HostConfig") or {}).get("AutoRemove")
    watch = _Watch(session, container["Id"], flags, body)
    return watch.run("removed" if removes else "next-exit")


_CANNOT = {
    "Paused": "You cannot attach to a paused container, unpause it first",
    "Restarting": "You cannot attach to a restarting container, wait until it is running",
}


def attach(session: Session, flags: Values, refs: list[str]) -> int:
    container = session.call(calls.inspect(refs[0]))
    state, config = container["State"], container["Config"]
    if not state.get("Running"):
        raise Failed("You cannot attach to a stopped container, start it first")
    for word, sentence in _CANNOT.items():
        if state.get(word):
            raise Failed(sentence)
    stdin = not flags.on("no-stdin") and bool(config.get("OpenStdin"))
    body = {
        "Tty": config.get("Tty"),
        "OpenStdin": stdin,
        "AttachStdin": stdin,
        "AttachStdout": True,
        "AttachStderr": True,
    }
    return _Watch(session, container["Id"], flags, body).run("", start=False)


RUN = Command(
    run,
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    OPTIONS.format(detach=_DETACH, proxy=_PROXY, verb="running"),
    least=1,
    names="container run, run",
    interspersed=False,
)
CREATE = Command(
    create,
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    OPTIONS.format(detach="", proxy="", verb="creating"),
    least=1,
    names="container create, create",
    interspersed=False,
)
START = Command(
    start,
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    """\
  -a, --attach               Attach STDOUT/STDERR and forward signals
      --detach-keys string   Override the key sequence for detaching a
                             container
  -i, --interactive          Attach container's STDIN
""",
    least=1,
    names="container start, start",
)
ATTACH = Command(
    attach,
    "[OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    """\
      --detach-keys string   Override the key sequence for detaching a
                             container
      --no-stdin             Do not attach STDIN
      --sig-proxy            Proxy all received signals to the process
                             (default true)
""",
    least=1,
    most=1,
    names="container attach, attach",
)
