"""Help in docker's layout: of one command, of a management command, of all."""

from __future__ import annotations

from sampan.cli.catalog import COMMANDS, GLOBAL_OPTIONS, GROUPS, load
from sampan.cli.session import Failed, write

_COMMON = "run exec ps pull push images login logout version info".split()
_MANAGEMENT = {
    "builder": "Manage the cache of builds",
    "container": "Manage containers",
    "image": "Manage images",
    "manifest": "Look at image manifests",
    "network": "Manage networks",
    "system": "Manage Sampan",
    "trust": "Look at the trust in images",
    "volume": "Manage volumes",
}
_HIDDEN = ("list", "remove")


def show(path: str) -> int:
    """Print the help of `sampan`, of a management command, or of a command."""
    write(1, (text_of(path) + "\n").encode())
    return 0


def text_of(path: str) -> str:
    """The help of a command, by its whole path.

    Raises:
        Failed: there is no such command.
    """
    words = path.split()[1:]
    if not words:
        return _overview()
    if words[0] in GROUPS:
        if len(words) == 1:
            return _group(words[0])
        where = GROUPS[words[0]].get(words[1], "")
    else:
        where = words[0] if words[0] in COMMANDS else ""
    if not where:
        raise Failed(f"unknown help topic: {' '.join(words)}")
    return _command(path, where)


def _command(path: str, where: str) -> str:
    command = load(where)
    parts = [f"Usage:  {path} {command.usage}".rstrip(), command.summary]
    names = [name.strip() for name in command.names.split(",") if name.strip()]
    if len(names) > 1:
        parts.append("Aliases:\n  " + ", ".join(f"sampan {name}" for name in names))
    if command.options:
        parts.append("Options:\n" + command.options.rstrip("\n"))
    return "\n\n".join(parts)


def _summary(where: str) -> str:
    return load(where).summary.partition("\n")[0]


def _summaries(entries: dict[str, str]) -> str:
    lines = [
        f"  {name:<11} {_summary(where)}"
        for name, where in sorted(entries.items())
        if name not in _HIDDEN
    ]
    return "Commands:\n" + "\n".join(lines)


def _group(name: str) -> str:
    entries = {key: where for key, where in GROUPS[name].items() if key != "ps"}
    return "\n\n".join(
        (
            f"Usage:  sampan {name} COMMAND",
            _MANAGEMENT[name],
            _summaries(entries),
            f"Run 'sampan {name} COMMAND --help' for more information on a command.",
        )
    )


def _overview() -> str:
    common = [f"  {name:<11} {load(name).summary}" for name in _COMMON]
    groups = [f"  {name:<11} {summary}" for name, summary in sorted(_MANAGEMENT.items())]
    others = {name: name for name in COMMANDS if name not in _COMMON and name != "df"}
    return "\n\n".join(
        (
            "Usage:  sampan [OPTIONS] COMMAND",
            "A complete container platform",
            "Common Commands:\n" + "\n".join(common),
            "Management Commands:\n" + "\n".join(groups),
            _summaries(others),
            "Global Options:\n" + GLOBAL_OPTIONS.rstrip("\n"),
            "Run 'sampan COMMAND --help' for more information on a command.",
        )
    )
