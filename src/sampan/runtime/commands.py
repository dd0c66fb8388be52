"""What the command line of `sampan-oci` knows: runc's commands with their flags, as data.

A command is (flags, its arguments as `--help` shows them, its text, the least and the most
arguments). Kinds of flags: "bool", "text", "number", "list"; an alias is "=" and the flag it stands
for. A kind with a leading "~" is accepted and not shown, as in runc.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    Flags = dict[str, str]
    Command = tuple[Flags, str, str, tuple[int, int]]

_ID = "<container-id>"
_ONE = (1, 1)
_NONE = (0, 0)
_ANY = 1 << 30

GLOBAL: Flags = {
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
_HELP: Flags = {"help": "~bool", "h": "=help"}
_LAUNCH: Flags = {
    "b": "=bundle",
    "bundle": "text",
    "console-socket": "text",
    "no-new-keyring": "bool",
    "no-pivot": "bool",
    "pid-file": "text",
    "pidfd-socket": "text",
    "preserve-fds": "number",
}
_RUN: Flags = {
    **_LAUNCH,
    "d": "=detach",
    "detach": "bool",
    "keep": "bool",
    "no-subreaper": "bool",
}
_EXEC: Flags = {
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
    "no-subreaper": "~bool",
    "p": "=process",
    "pid-file": "text",
    "pidfd-socket": "text",
    "preserve-fds": "number",
    "process": "text",
    "process-label": "text",
    "t": "=tty",
    "tty": "bool",
    "u": "=user",
    "user": "text",
}
_UPDATE: Flags = {
    "blkio-weight": "number",
    "cpu-burst": "text",
    "cpu-idle": "text",
    "cpu-period": "text",
    "cpu-quota": "text",
    "cpu-rt-period": "text",
    "cpu-rt-runtime": "text",
    "cpu-share": "text",
    "cpuset-cpus": "text",
    "cpuset-mems": "text",
    "kernel-memory": "~text",
    "kernel-memory-tcp": "~text",
    "l3-cache-schema": "text",
    "mem-bw-schema": "text",
    "memory": "text",
    "memory-reservation": "text",
    "memory-swap": "text",
    "pids-limit": "text",
    "r": "=resources",
    "resources": "text",
}

_CRIU: Flags = {
    "auto-dedup": "bool",
    "empty-ns": "list",
    "ext-unix-sk": "bool",
    "file-locks": "bool",
    "image-path": "text",
    "lazy-pages": "bool",
    "manage-cgroups-mode": "text",
    "shell-job": "bool",
    "tcp-established": "bool",
    "work-path": "text",
}
_CHECKPOINT: Flags = {
    **_CRIU,
    "leave-running": "bool",
    "link-remap": "bool",
    "page-server": "text",
    "parent-path": "text",
    "pre-dump": "bool",
    "status-fd": "number",
    "tcp-skip-in-flight": "bool",
}
_RESTORE: Flags = {
    **_CRIU,
    "b": "=bundle",
    "bundle": "text",
    "console-socket": "text",
    "d": "=detach",
    "detach": "bool",
    "lsm-mount-context": "text",
    "lsm-profile": "text",
    "no-pivot": "bool",
    "no-subreaper": "bool",
    "pid-file": "text",
    "pidfd-socket": "text",
}

COMMANDS: dict[str, Command] = {
    "checkpoint": (_CHECKPOINT, _ID, "checkpoint a running container", _ONE),
    "create": (_LAUNCH, _ID, "create a container", _ONE),
    "delete": (
        {"f": "=force", "force": "bool"},
        _ID,
        "delete any resources held by the container",
        _ONE,
    ),
    "events": (
        {"interval": "text", "stats": "bool"},
        _ID,
        "print the container's events: statistics at an interval, and its running out of memory",
        _ONE,
    ),
    "exec": (
        _EXEC,
        f"{_ID} <command> [command options]  || -p process.json {_ID}",
        "execute new process inside the container",
        (1, _ANY),
    ),
    "features": ({}, "", "show the enabled features", _NONE),
    "kill": (
        {"a": "=all", "all": "~bool"},
        f"{_ID} [signal]",
        "send the specified signal (default: SIGTERM) to the container's init process",
        (1, 2),
    ),
    "list": (
        {"f": "=format", "format": "text", "q": "=quiet", "quiet": "bool"},
        "",
        "list containers started with the given root",
        _NONE,
    ),
    "pause": ({}, _ID, "suspend all processes inside the container", _ONE),
    "plan": (
        {"b": "=bundle", "bundle": "text", "f": "=format", "format": "text"},
        "",
        "print the operations that a bundle's configuration becomes",
        _NONE,
    ),
    "ps": (
        {"f": "=format", "format": "text"},
        f"{_ID} [ps options]",
        "display the processes inside the container",
        (1, _ANY),
    ),
    "restore": (_RESTORE, _ID, "restore a container from a previous checkpoint", _ONE),
    "resume": ({}, _ID, "resume all processes that have been paused", _ONE),
    "run": (_RUN, _ID, "create and run a container", _ONE),
    "spec": (
        {"b": "=bundle", "bundle": "text", "rootless": "bool"},
        "",
        "create a new specification file",
        _NONE,
    ),
    "start": ({}, _ID, "execute the user defined process in a created container", _ONE),
    "state": ({}, _ID, "output the state of a container", _ONE),
    "update": (_UPDATE, _ID, "update container resource constraints", _ONE),
}
# Whose own arguments may look like flags of ours: what follows the first one is theirs.
OPEN_ENDED = frozenset({"exec", "ps"})


def flags_of(command: str) -> Flags:
    """The flags of a command, `--help` among them."""
    return {**_HELP, **COMMANDS[command][0]}


def usage(program: str) -> str:
    """The text of `--help` of the runtime, called by the name `program`."""
    lines = [
        "NAME:",
        f"   {program} - Open Container Initiative runtime",
        "",
        "USAGE:",
        f"   {program} [global options] command [command options] [arguments...]",
        "",
        "COMMANDS:",
        *(f"   {name:<10} {command[2]}" for name, command in COMMANDS.items()),
        "",
        "GLOBAL OPTIONS:",
        *_flag_lines(GLOBAL),
    ]
    return "\n".join(lines)


def command_usage(program: str, command: str) -> str:
    """The text of `--help` of a command."""
    table, arguments, text, _ = COMMANDS[command]
    return "\n".join(
        [
            "NAME:",
            f"   {program} {command} - {text}",
            "",
            "USAGE:",
            f"   {program} {command} [command options] {arguments}".rstrip(),
            "",
            "OPTIONS:",
            *_flag_lines(table),
        ]
    )


def _flag_lines(table: Flags) -> list[str]:
    lines = []
    for name, kind in table.items():
        if kind[0] not in "=~":
            short = [f"-{other}" for other, target in table.items() if target == f"={name}"]
            value = "" if kind == "bool" else " value"
            lines.append("   " + ", ".join([f"--{name}{value}", *short]))
    return lines
