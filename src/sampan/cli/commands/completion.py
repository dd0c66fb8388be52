"""`sampan completion SHELL`: a script that completes commands, flags and names.

The scripts are made from the tables of commands and flags, so they cannot fall behind. Names of
containers, images and volumes are asked from the daemon that runs; none is started for it.
"""

from __future__ import annotations

from sampan.cli.catalog import COMMANDS, GLOBAL_OPTIONS, GROUPS, load
from sampan.cli.flags import Values, declared
from sampan.cli.session import Command, Failed, Session

_IMAGES = frozenset("run create history push rmi save tag".split())
_NONE = frozenset("completion daemon df doctor events images import info load login logout "
                  "manual ps pull version".split())  # fmt: skip


def flags_of(where: str) -> list[str]:
    """The long and short flags of a command, as they are typed."""
    found = dict.fromkeys(declared(load(where).options).values())
    words = [f"--{flag.long}" for flag in found]
    return [*words, *(f"-{flag.short}" for flag in found if flag.short), "--help"]


def table() -> list[tuple[str, str, list[str]]]:
    """(command path, what its arguments are, flags) of every command."""
    entries = [(name, name, name) for name in sorted(COMMANDS)]
    for group, commands in sorted(GROUPS.items()):
        entries += [(f"{group} {name}", where, group) for name, where in sorted(commands.items())]
    return [(path, _kind(path, group), flags_of(where)) for path, where, group in entries]


def _kind(path: str, group: str) -> str:
    last = path.rpartition(" ")[2]
    if group in ("image", "volume"):
        return group if last not in ("ls", "list", "prune", "create") else "none"
    if last in _IMAGES:
        return "image"
    return "none" if last in _NONE or group in ("system", "trust", "manifest") else "container"


def _bash() -> str:
    cases = "\n".join(
        f'    "{path}") kind={kind}; flags="{" ".join(flags)}" ;;' for path, kind, flags in table()
    )
    return _BASH.format(
        commands=" ".join(sorted({*COMMANDS, *GROUPS})),
        groups="|".join(sorted(GROUPS)),
        members="\n".join(
            f'    {group}) words="{" ".join(sorted(names))}" ;;'
            for group, names in sorted(GROUPS.items())
        ),
        globals=" ".join(f"--{flag.long}" for flag in set(declared(GLOBAL_OPTIONS).values())),
        cases=cases,
    )


def _zsh() -> str:
    return "#compdef sampan\nautoload -U +X bashcompinit && bashcompinit\n" + _bash()


def _fish() -> str:
    lines = ["complete -c sampan -f"]
    names = " ".join(sorted({*COMMANDS, *GROUPS}))
    lines.append(f"complete -c sampan -n __fish_use_subcommand -a '{names}'")
    for group, commands in sorted(GROUPS.items()):
        words = " ".join(sorted(commands))
        test = f"__fish_seen_subcommand_from {group}"
        lines.append(f"complete -c sampan -n '{test}' -a '{words}'")
    for name in sorted(COMMANDS):
        test = f"__fish_seen_subcommand_from {name}"
        for flag in dict.fromkeys(declared(load(name).options).values()):
            short = f" -s {flag.short}" if flag.short else ""
            lines.append(f"complete -c sampan -n '{test}' -l {flag.long}{short}")
        kind = _kind(name, name)
        if kind in _LISTS:
            lines.append(f"complete -c sampan -n '{test}' -a '({_LISTS[kind]} 2>/dev/null)'")
    return "\n".join(lines) + "\n"


_LISTS = {
    "container": "sampan ps -a --format \"{{.Names}}\"",
    "image": "sampan images --format \"{{.Repository}}:{{.Tag}}\"",
    "volume": "sampan volume ls -q",
}  # fmt: skip
_BASH = """\
_sampan() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" path="" kind=none flags="" words="" each
  local -i at=1
  for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$each" in
      -*) continue ;;
      *) path="${{path:+$path }}$each" ;;
    esac
    case "$path" in {groups}) continue ;; esac
    break
  done
  case "$path" in
    "") words="{commands} {globals}" ;;
{members}
  esac
  if [ -z "$words" ]; then
    case "$path" in
{cases}
    esac
    if [[ "$word" == -* ]]; then
      words="$flags"
    else
      case "$kind" in
        container) words="$(sampan ps -a --format '{{{{.Names}}}}' 2>/dev/null)" ;;
        image) words="$(sampan images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' 2>/dev/null)" ;;
        volume) words="$(sampan volume ls -q 2>/dev/null)" ;;
      esac
    fi
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -F _sampan sampan
"""
_SHELLS = {"bash": _bash, "fish": _fish, "zsh": _zsh}


def show(session: Session, _: Values, words: list[str]) -> int:
    made = _SHELLS.get(words[0])
    if made is None:
        raise Failed(f"unknown shell {words[0]!r}: use one of {', '.join(_SHELLS)}")
    session.out(made().rstrip("\n"))
    return 0


COMPLETION = Command(
    show,
    "bash|fish|zsh",
    "Print a script that completes commands, flags and names",
    least=1,
    most=1,
)
