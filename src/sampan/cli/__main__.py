"""The command line's entry: global flags, finding the command, and the one place errors end in.

Wrong flags end with 125, wrong arguments with 1, as docker's do; what a command itself ends with is
its own affair.
"""

from __future__ import annotations

import os
import sys

from sampan.cli.catalog import COMMANDS, GLOBAL_OPTIONS, GROUPS, load
from sampan.cli.flags import FlagError, HelpWanted, parse
from sampan.cli.session import Command, Failed, Refused, Session
from sampan.client.address import resolve
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_HIDDEN = ("df",)


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
        session = Session(address, path)
        try:
            return command.run(session, flags, arguments)
        finally:
            session.close()
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
