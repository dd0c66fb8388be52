"""`sampan-vm`: the few verbs of runc's command line that a shim calls.

The words before the verb say which kernel and how much memory. Everything of a container is in the
current directory, its bundle. One with the annotation MACHINE is a container in the machine
whose bundle that names, one without it is a machine.
"""

from __future__ import annotations

import os
import socket
import sys
from json import dumps, loads
from typing import TYPE_CHECKING, Any, NoReturn

from sampan.errors import SampanError
from sampan.kernel import cgroups, fds, process, terminal
from sampan.vm import machine, sharing, standin
from sampan.vm.frames import document
from sampan.vm.machine import QUESTIONS, Settings
from sampan.vm.port import say_and_hear, take
from sampan.vm.words import MACHINE

if TYPE_CHECKING:
    from collections.abc import Callable

_FLAGS = {"--detach", "--force"}


def main() -> NoReturn:
    """One verb."""
    options, rest = parse(sys.argv[1:])
    try:
        verb, name = rest
        _VERBS[verb](options, name)
    except (OSError, ValueError, KeyError, SampanError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, OSError) and error.filename:
            text = f"{error.filename}: {text}"
        _complain(options.get("log", ""), text)
        os._exit(1)
    os._exit(0)


def parse(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """(options, verb and name)."""
    options: dict[str, str] = {}
    rest: list[str] = []
    place = iter(words)
    for word in place:
        if word in _FLAGS:
            options[word[2:]] = "yes"
        elif word.startswith("--"):
            options[word[2:]] = next(place, "")
        else:
            rest.append(word)
    # `kill` has the signal behind the name
    if rest[:1] == ["kill"]:
        options["signal"] = rest.pop()
    return options, rest


def _create(options: dict[str, str], name: str) -> None:
    spec = _spec()
    home = _machine_of(spec)
    if home:
        pid = _create_container(options, name, spec, home)
    else:
        settings = Settings(
            kernel=options["kernel"],
            modules=options["modules"],
            memory=int(options["memory"]),
            accelerator=options["accelerator"],
            cache=options["cache"],
        )
        pid = machine.create(settings, spec)
    _write_pid(options["pid-file"], pid)


def _start(_options: dict[str, str], _name: str) -> None:
    if _machine_of(_spec()):
        standin.ask(op="start")
    else:
        machine.start()


def _exec(options: dict[str, str], name: str) -> None:
    home = _machine_of(_spec())
    with open(options["process"], "rb") as file:
        asked = loads(file.read())
    for word in ("apparmorProfile", "selinuxLabel"):
        asked.pop(word, None)
    has_terminal = bool(asked.get("terminal"))
    call = document("C", op="exec", id=name, process=asked, terminal=has_terminal, stdin=True)
    _write_pid(options["pid-file"], _stand_in(options, home, call, None, ""))


def _kill(options: dict[str, str], _name: str) -> None:
    number = int(options["signal"])
    if _machine_of(_spec()):
        standin.ask(op="kill", sig=number)
    else:
        machine.end(_pid("init.pid"))


def _delete(_options: dict[str, str], name: str) -> None:
    try:
        spec = _spec()
    except FileNotFoundError:
        return
    home = _machine_of(spec)
    if home:
        sharing.withdraw(home, _pid(f"{home}/init.pid"), name)
    else:
        machine.end(_pid("init.pid"))


_VERBS: dict[str, Callable[[dict[str, str], str], None]] = {
    "create": _create,
    "start": _start,
    "exec": _exec,
    "kill": _kill,
    "delete": _delete,
}


def _create_container(options: dict[str, str], name: str, spec: dict[str, Any], home: str) -> int:
    qemu = _pid(f"{home}/init.pid")
    if not machine.is_machine(qemu, home):
        raise OSError(3, "the pod's machine does not run")
    cgroups.manager(spec["linux"]["cgroupsPath"]).create({})
    config = sharing.share(home, qemu, name, spec)
    has_terminal = bool(spec["process"].get("terminal"))
    call = document("C", op="create", id=name, config=config, terminal=has_terminal, stdin=True)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.bind(standin.CONTROL)
    control.listen(4)
    return _stand_in(options, home, call, control, spec["linux"]["cgroupsPath"])


def _stand_in(
    options: dict[str, str], home: str, call: bytes, control: socket.socket | None, cgroup: str
) -> int:
    """Make the process in the machine, and the one on the node that stands for it; its pid."""
    console = options.get("console-socket", "")
    ours, theirs = os.pipe()
    pid, pidfd = process.clone3(0)
    if pid == 0:
        _become(home, call, control, console, theirs)
    os.close(theirs)
    with open(ours, encoding="utf-8") as file:
        said = file.read()
    if said:
        process.forget(pidfd)
        answer = loads(said)
        raise OSError(int(answer["errno"]), str(answer["error"]))
    if cgroup:
        cgroups.manager(cgroup).join(pid)
    return pid


def _become(
    home: str, call: bytes, control: socket.socket | None, console: str, told: int
) -> NoReturn:
    """In the child: its whole life."""
    code = 1
    try:
        os.setsid()
        if console:
            _open_terminal(console)
        port = take(home, QUESTIONS)
        say_and_hear(port, call)
        os.close(told)
        code = standin.StandIn(port, terminal=bool(console), control=control).run()
    except OSError as error:
        text = error.strerror or str(error)
        try:
            os.write(told, dumps({"error": text, "errno": error.errno or 5}).encode())
        except OSError:
            _complain("", text)
    finally:
        os._exit(code)


def _open_terminal(console: str) -> None:
    """A pty whose master goes to the shim; its other end is our stdio, and says only what the
    machine's terminal says."""
    import tty

    master, peer = terminal.open_pair(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    tty.setraw(peer)
    terminal.become_controlling(peer)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(console)
        fds.send(sock, b"/dev/ptmx", [master])
    os.close(master)
    for number in range(3):
        os.dup2(peer, number)


def _spec() -> dict[str, Any]:
    with open("config.json", "rb") as file:
        found: dict[str, Any] = loads(file.read())
    return found


def _machine_of(spec: dict[str, Any]) -> str:
    """The directory of the machine that a container is in, "" for a machine itself."""
    return str((spec.get("annotations") or {}).get(MACHINE, ""))


def _pid(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read(20))
    except FileNotFoundError:
        return 0


def _write_pid(path: str, pid: int) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(str(pid))


def _complain(log: str, text: str) -> None:
    line = dumps({"level": "error", "msg": text}) + "\n"
    if not log:
        sys.stderr.write(line)
        return
    with open(log, "a", encoding="utf-8") as file:
        file.write(line)


if __name__ == "__main__":
    main()
