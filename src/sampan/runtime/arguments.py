"""The command line of `sampan-oci`, with runc's words.

Parsed by hand: a start of this program is counted in milliseconds. As in runc, flags come before
the first argument of a command, `--name value` and `--name=value` mean the same, and one dash does
as well as two.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Kinds of flags: "bool", "text", "number", "list". An alias is given as ("=", the flag it stands
# for).
GLOBAL = {
    "debug": "bool",
    "help": "bool",
    "h": "=help",
    "log": "text",
    "log-format": "text",
    "root": "text",
    "rootless": "text",
    "systemd-cgroup": "bool",
    "v": "=version",
    "version": "bool",
}
_LAUNCH = {
    "b": "=bundle",
    "bundle": "text",
    "console-socket": "text",
    "no-new-keyring": "bool",
    "no-pivot": "bool",
    "pid-file": "text",
    "preserve-fds": "number",
}
COMMANDS: dict[str, tuple[dict[str, str], str, str]] = {
    "create": (_LAUNCH, "<container-id>", "create a container"),
    "delete": (
        {"f": "=force", "force": "bool"},
        "<container-id>",
        "delete any resources held by the container",
    ),
    "exec": (
        {
            "additional-gids": "list",
            "apparmor": "text",
            "c": "=cap",
            "cap": "list",
            "cgroup": "list",
            "console-socket": "text",
            "cwd": "text",
            "d": "=detach",
            "detach": "bool",
            "e": "=env",
            "env": "list",
            "g": "=additional-gids",
            "ignore-paused": "bool",
            "no-new-privs": "bool",
            "p": "=process",
            "pid-file": "text",
            "preserve-fds": "number",
            "process": "text",
            "process-label": "text",
            "t": "=tty",
            "tty": "bool",
            "u": "=user",
            "user": "text",
        },
        "<container-id> <command> [command options]  || -p process.json <container-id>",
        "execute new process inside the container",
    ),
    "features": ({}, "", "show the enabled features"),
    "kill": (
        {"a": "=all", "all": "bool"},
        "<container-id> [signal]",
        "send the specified signal (default: SIGTERM) to the container's init process",
    ),
    "list": (
        {"f": "=format", "format": "text", "q": "=quiet", "quiet": "bool"},
        "",
        "list containers started with the given root",
    ),
    "plan": (
        {"b": "=bundle", "bundle": "text", "f": "=format", "format": "text"},
        "",
        "print the operations that a bundle's configuration becomes",
    ),
    "run": (
        {
            **_LAUNCH,
            "d": "=detach",
            "detach": "bool",
            "keep": "bool",
            "no-subreaper": "bool",
        },
        "<container-id>",
        "create and run a container",
    ),
    "spec": (
        {"b": "=bundle", "bundle": "text", "rootless": "bool"},
        "",
        "create a new specification file",
    ),
    "start": ({}, "<container-id>", "execute the user defined process in a created container"),
    "state": ({}, "<container-id>", "output the state of a container"),
}


class UsageError(ValueError):
    """The command line is wrong; the message says how."""


class Parsed:
    """`flags` by their long name and the `rest` of the words."""

    __slots__ = ("flags", "rest")

    def __init__(self) -> None:
        self.flags: dict[str, Any] = {}
        self.rest: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        """A text flag."""
        value: str = self.flags.get(name, default)
        return value

    def on(self, name: str) -> bool:
        """A boolean flag."""
        return bool(self.flags.get(name))

    def number(self, name: str) -> int:
        """A number flag, 0 by default."""
        return int(self.flags.get(name, 0))

    def list(self, name: str) -> list[str]:
        """A flag that may be repeated."""
        return list(self.flags.get(name, []))


def parse(words: list[str], table: dict[str, str]) -> Parsed:
    """Flags of `words` by `table`, up to the first word that is none.

    Raises:
        UsageError: a flag is unknown, lacks its value, or is no number.
    """
    parsed = Parsed()
    position = 0
    while position < len(words):
        word = words[position]
        if word == "--" or not word.startswith("-") or word == "-":
            position += word == "--"
            break
        position += 1
        name, equals, value = word.lstrip("-").partition("=")
        kind = table.get(name)
        if kind is not None and kind.startswith("="):
            name, kind = kind[1:], table[kind[1:]]
        if kind is None:
            raise UsageError(f"flag provided but not defined: {word.partition('=')[0]}")
        if kind == "bool":
            parsed.flags[name] = not equals or value in ("true", "1", "t")
            continue
        if not equals:
            if position == len(words):
                raise UsageError(f"flag needs an argument: {word}")
            value = words[position]
            position += 1
        _store(parsed.flags, name, kind, value)
    parsed.rest = words[position:]
    return parsed


def _store(flags: dict[str, Any], name: str, kind: str, value: str) -> None:
    if kind == "list":
        flags.setdefault(name, []).append(value)
    elif kind == "number":
        if not (value.isascii() and value.isdigit()):
            raise UsageError(f'invalid value "{value}" for flag -{name}: not a number')
        flags[name] = int(value)
    else:
        flags[name] = value


def usage() -> str:
    """The text of `sampan-oci --help`."""
    lines = [
        "NAME:",
        "   sampan-oci - Open Container Initiative runtime",
        "",
        "USAGE:",
        "   sampan-oci [global options] command [command options] [arguments...]",
        "",
        "COMMANDS:",
        *(f"   {name:<10} {text}" for name, (_, _, text) in COMMANDS.items()),
        "",
        "GLOBAL OPTIONS:",
        *_flag_lines(GLOBAL),
    ]
    return "\n".join(lines)


def command_usage(command: str) -> str:
    """The text of `sampan-oci COMMAND --help`."""
    table, arguments, text = COMMANDS[command]
    return "\n".join(
        [
            "NAME:",
            f"   sampan-oci {command} - {text}",
            "",
            "USAGE:",
            f"   sampan-oci {command} [command options] {arguments}".rstrip(),
            "",
            "OPTIONS:",
            *_flag_lines(table),
        ]
    )


def _flag_lines(table: dict[str, str]) -> list[str]:
    lines = []
    for name, kind in table.items():
        if not kind.startswith("="):
            short = [f"-{other}" for other, target in table.items() if target == f"={name}"]
            value = "" if kind == "bool" else " value"
            lines.append("   " + ", ".join([f"--{name}{value}", *short]))
    return lines
