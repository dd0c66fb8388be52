"""The table of commands: name, and where the command is; and the flags that all of them have.

A command is imported when it is called and not before. Management commands (`container`, `image`,
`system`) are other names for the same table.
"""

from __future__ import annotations

import sys

from sampan.cli.session import Command

# command -> module below `commands`; the Command is the module's attribute of that name, upper case
COMMANDS = {
    "attach": "run",
    "build": "build",
    "commit": "commit",
    "completion": "completion",
    "cp": "cp",
    "create": "run",
    "daemon": "system",
    "df": "usage",
    "diff": "commit",
    "docker-context": "context",
    "doctor": "doctor",
    "egress": "publish",
    "events": "events",
    "exec": "exec",
    "explain": "explain",
    "export": "cp",
    "history": "images",
    "images": "images",
    "import": "transfer",
    "info": "system",
    "inspect": "inspect",
    "kill": "lifecycle",
    "load": "archives",
    "login": "login",
    "logout": "login",
    "logs": "logs",
    "manual": "manual",
    "pause": "lifecycle",
    "port": "commit",
    "ports": "publish",
    "ps": "ps",
    "publish": "publish",
    "pull": "transfer",
    "push": "transfer",
    "rename": "lifecycle",
    "restart": "lifecycle",
    "rm": "lifecycle",
    "rmi": "images",
    "run": "run",
    "save": "archives",
    "search": "search",
    "start": "run",
    "stats": "stats",
    "stop": "lifecycle",
    "tag": "images",
    "top": "top",
    "unpause": "lifecycle",
    "unpublish": "publish",
    "update": "update",
    "verify": "trust",
    "version": "system",
    "wait": "lifecycle",
}
_SAME = (
    "attach commit cp create diff exec export inspect kill logs pause port rename restart rm run "
    "start stats stop top unpause update wait"
)
GROUPS = {
    "container": {name: name for name in _SAME.split()}
    | {"ls": "ps", "list": "ps", "ps": "ps", "prune": "usage:PRUNE_CONTAINERS"}
    | {"inspect": "inspect:INSPECT_CONTAINER"},
    "image": {name: name for name in "history import load pull push save tag".split()}
    | {"build": "build", "ls": "images", "list": "images", "rm": "rmi", "remove": "rmi"}
    | {"inspect": "inspect:INSPECT_IMAGE", "prune": "usage:PRUNE_IMAGES"}
    | {
        "copy": "remote:COPY",
        "export": "archives:EXPORT",
        "referrers": "remote:REFERRERS",
        "tags": "remote:TAGS",
    },
    "builder": {"build": "build", "prune": "build:PRUNE"},
    "trust": {"show": "trust:SHOW", "verify": "verify"},
    "manifest": {"inspect": "remote:MANIFEST"},
    "network": {"check": "network:CHECK", "connect": "network:CONNECT", "create": "network:CREATE"}
    | {"disconnect": "network:DISCONNECT", "inspect": "network:INSPECT", "ls": "network:LS"}
    | {"list": "network:LS", "prune": "network:PRUNE", "rm": "network:RM", "remove": "network:RM"},
    "volume": {"create": "volume:CREATE", "inspect": "volume:INSPECT", "ls": "volume:LS"}
    | {"export": "volume:EXPORT", "import": "volume:IMPORT"}
    | {"list": "volume:LS", "prune": "volume:PRUNE", "rm": "volume:RM", "remove": "volume:RM"},
    "system": {
        "check": "upkeep:CHECK",
        "gc": "upkeep:GC",
        "df": "df",
        "events": "events",
        "info": "info",
        "prune": "usage:PRUNE_SYSTEM",
    },
}
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
        module, attribute = COMMANDS[where], where.upper().replace("-", "_")
    name = "sampan.cli.commands." + module
    __import__(name)
    command = getattr(sys.modules[name], attribute)
    assert isinstance(command, Command)
    return command
