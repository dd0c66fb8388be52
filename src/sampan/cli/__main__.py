"""The command line's entry: global flags, the table of commands, and the one place errors end in.

A command is imported when it is called and not before. Management commands (`container`, `image`,
`system`) are other names for the same table. Wrong flags end with 125, wrong arguments with 1, as
docker's do; what a command itself ends with is its own affair.
"""

from __future__ import annotations

import os
import sys

from sampan.cli.flags import FlagError, HelpWanted, parse
from sampan.cli.session import Command, Failed, Refused, Session
from sampan.client.address import resolve
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# command -> module below `commands`; the Command is the module's attribute of that name, upper case
COMMANDS = {
    "attach": "run",
    "create": "run",
    "daemon": "system",
    "df": "usage",
    "events": "events",
    "exec": "exec",
    "history": "images",
    "images": "images",
    "import": "transfer",
    "info": "system",
    "inspect": "inspect",
    "kill": "lifecycle",
    "login": "login",
    "logout": "login",
    "logs": "logs",
    "pause": "lifecycle",
    "ps": "ps",
    "pull": "transfer",
    "push": "transfer",
    "rename": "lifecycle",
    "restart": "lifecycle",
    "rm": "lifecycle",
    "rmi": "images",
    "run": "run",
    "start": "run",
    "stats": "stats",
    "stop": "lifecycle",
    "tag": "images",
    "top": "top",
    "unpause": "lifecycle",
    "version": "system",
    "wait": "lifecycle",
}
_SAME = (
    "attach create exec inspect kill logs pause rename restart rm run start stats stop top "
    "unpause wait"
)
GROUPS = {
    "container": {name: name for name in _SAME.split()}
    | {"ls": "ps", "list": "ps", "ps": "ps", "prune": "usage:PRUNE_CONTAINERS"}
    | {"inspect": "inspect:INSPECT_CONTAINER"},
    "image": {name: name for name in "history import pull push tag".split()}
    | {"ls": "images", "list": "images", "rm": "rmi", "remove": "rmi"}
    | {"inspect": "inspect:INSPECT_IMAGE", "prune": "usage:PRUNE_IMAGES"},
    "system": {"df": "df", "events": "events", "info": "info", "prune": "usage:PRUNE_SYSTEM"},
}
_HIDDEN = ("df",)
GLOBAL_OPTIONS = """\
      --config string   Configuration file of a daemon started on demand
                        (default "/etc/sampan/config.toml")
  -H, --host list       Daemon socket to connect to (unix:///path)
      --root string     Directory of images and containers (default
                        "/var/lib/sampan")
      --state string    Directory of sockets and records (default
                        "/run/sampan")
  -v, --version         Print version information and quit
"""


def load(where: str) -> Command:
    """The command behind an entry of the tables: `module:NAME`, or a name of COMMANDS."""
    module, _, attribute = where.partition(":")
    if not attribute:
        module, attribute = COMMANDS[where], where.upper()
    name = "sampan.cli.commands." + module
    __import__(name)
    command = getattr(sys.modules[name], attribute)
    assert isinstance(command, Command)
    return command


def run(argv: list[str]) -> int:
    """Run one command; give back the exit code. Every error has been printed then."""
    path = "sampan"
    usage = "[OPTIONS] COMMAND [ARG...]"
    try:
        values, words = parse(GLOBAL_OPTIONS, argv, interspersed=False)
        if values.on("version"):
            from sampan.version import VERSION

            Session(resolve("unix:///"), path).out(f"Sampan version {VERSION}")
            return 0
        where, path, words = _find(words)
        command = load(where)
        usage = command.usage
        flags, arguments = parse(command.options, words, interspersed=command.interspersed)
        _check_count(command, path, arguments)
        address = resolve(
            (values.many("host") or [""])[-1],
            root=values.text("root"),
            state=values.text("state"),
            config=values.text("config"),
        )
        return command.run(Session(address, path), flags, arguments)
    except HelpWanted as wanted:
        from sampan.cli.help import show

        return show(str(wanted) or path)
    except FlagError as error:
        _complain(f"{error}\n\nUsage:  {path} {usage}\n\nRun '{path} --help' for more information")
        return 125


def _find(words: list[str]) -> tuple[str, str, list[str]]:
    if not words:
        raise HelpWanted
    name = words[0]
    if name in GROUPS:
        if len(words) < 2 or words[1] in ("--help", "-h"):
            raise HelpWanted(f"sampan {name}")
        where = GROUPS[name].get(words[1], "")
        if not where:
            raise Failed(
                f"sampan: unknown command: sampan {name} {words[1]}\n\n"
                f"Usage:  sampan {name}\n\nRun 'sampan {name} --help' for more information"
            )
        return where, f"sampan {name} {words[1]}", words[2:]
    if name == "help":
        raise HelpWanted(" ".join(["sampan", *words[1:]]))
    if name not in COMMANDS or name in _HIDDEN:
        raise Failed(
            f"sampan: unknown command: sampan {name}\n\nRun 'sampan --help' for more information"
        )
    return name, f"sampan {name}", words[1:]


def _check_count(command: Command, path: str, arguments: list[str]) -> None:
    least, most, count = command.least, command.most, len(arguments)
    if least <= count and (most is None or count <= most):
        return
    see = "Run"
    if most == 0:
        needs = "accepts no arguments"
    elif most == least:
        needs = f"requires {least} argument{'s' if least > 1 else ''}"
    elif count < least:
        needs, see = f"requires at least {least} argument{'s' if least > 1 else ''}", "See"
    else:
        needs, see = f"requires at most {most} argument{'s' if most != 1 else ''}", "See"
    raise Failed(
        f"sampan: '{path}' {needs}\n\nUsage:  {path} {command.usage}\n\n"
        f"{see} '{path} --help' for more information"
    )


def main(argv: list[str]) -> int:
    """Run the command line and give back its exit code."""
    try:
        return run(argv)
    except Failed as error:
        _complain(str(error))
        return error.code
    except (Refused, SampanError) as error:
        _complain(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141  # as if SIGPIPE had ended us: whoever read has gone, and nobody is told
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _complain(f"sampan: {error.strerror or error}{where}")
        return 1
    except ValueError as error:
        _complain(f"sampan: the daemon's answer cannot be read: {error}")
        return 1
    except Exception as error:  # the edge: a defect ends in one line too
        if os.environ.get("SAMPAN_DEBUG"):
            raise
        _complain(f"sampan: internal error: {type(error).__name__}: {error}")
        return 125


def _complain(text: str) -> None:
    if not text:
        return
    try:
        os.write(2, (text + "\n").encode("utf-8", "surrogateescape"))
    except OSError:
        pass  # nobody is left to tell


def start() -> NoReturn:
    """Entry of the launcher: ends the process without taking the interpreter apart, 2 ms less."""
    os._exit(main(sys.argv[1:]))


if __name__ == "__main__":
    start()
