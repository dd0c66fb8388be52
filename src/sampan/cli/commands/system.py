"""`version`, `info` and `daemon`."""

from __future__ import annotations

import os
import sys

from sampan.cli.session import Command, Failed, Refused, Session
from sampan.client import calls
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values


def client_version() -> dict[str, Any]:
    """What the command line says of itself."""
    from sampan.version import DOCKER_API_VERSION, VERSION

    machine = os.uname().machine
    return {
        "Version": VERSION,
        "ApiVersion": DOCKER_API_VERSION,
        "DefaultAPIVersion": DOCKER_API_VERSION,
        "PythonVersion": sys.version.split(None, 1)[0],
        "Os": "linux",
        "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "Context": "default",
    }


def _format(session: Session, layout: str, data: dict[str, Any]) -> None:
    from sampan.cli.template import Template, go_json

    if layout == "json":
        session.out(go_json(data))
        return
    try:
        session.out(Template(layout).render(data))
    except ValueError as error:
        raise Failed(f"template parsing error: template: :1: {error}", 64) from None


def version(session: Session, flags: Values, _: list[str]) -> int:
    layout = flags.text("format")
    data: dict[str, Any] = {"Client": client_version()}
    if layout and "json" not in layout and ".Server" not in layout:
        _format(session, layout, data)  # what is asked for is known without a daemon
        return 0
    error = ""
    try:
        data["Server"] = session.call(calls.version())
    except (Failed, Refused, SampanError) as caught:
        error = str(caught)
        data["Server"] = None
    if layout:
        _format(session, layout, data)
    else:
        session.out(_version_text(data))
    if error:
        raise Failed(error)
    return 0


def _version_text(data: dict[str, Any]) -> str:
    client = data["Client"]
    lines = [
        "Client:",
        f" Version:           {client['Version']}",
        f" API version:       {client['ApiVersion']}",
        f" Python version:    {client['PythonVersion']}",
        f" OS/Arch:           {client['Os']}/{client['Arch']}",
        f" Context:           {client['Context']}",
    ]
    server = data["Server"]
    if server:
        lines += ["", "Server:"]
        for component in server.get("Components") or ():
            lines += _component(component)
    return "\n".join(lines)


def _component(component: dict[str, Any]) -> list[str]:
    details = component.get("Details") or {}
    lines = [f" {component['Name']}:", f"  Version:          {component['Version']}"]
    if "ApiVersion" in details:
        api, least = details["ApiVersion"], details.get("MinAPIVersion")
        lines.append(f"  API version:      {api} (minimum version {least})")
    for name, label in (
        ("GoVersion", "Go version"),
        ("PythonVersion", "Python version"),
        ("GitCommit", "Git commit" if "ApiVersion" in details else "GitCommit"),
        ("BuildTime", "Built"),
    ):
        if details.get(name) or name == "GitCommit" and name in details:  # noqa: RUF021
            lines.append(f"  {label + ':':<17} {details[name]}")
    if "Os" in details:
        lines.append(f"  OS/Arch:          {details['Os']}/{details.get('Arch')}")
    if "Experimental" in details:
        lines.append(f"  Experimental:     {details['Experimental']}")
    return lines


def info(session: Session, flags: Values, _: list[str]) -> int:
    layout = flags.text("format")
    data = session.call(calls.info())
    if layout:
        _format(session, layout, data)
        return 0
    from sampan.cli.info import text_of

    session.out(text_of(client_version(), data))
    return 0


_TLS = ("tcp", "tlscacert", "tlscert", "tlskey")


def daemon(session: Session, flags: Values, _: list[str]) -> int:
    """Become the daemon: this process is replaced, so that its memory has nothing of ours."""
    start = "import runpy; runpy.run_module('sampan.daemon', run_name='__main__', alter_sys=True)"
    argv = [sys.executable, "-c", start]
    if sys.flags.no_site:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        argv[1:2] = ["-I", "-S", "-c"]
        argv[-1] = f"import sys; sys.path[:] = {path!r}.split({os.pathsep!r}); {argv[-1]}"
    address = session.address
    given = {
        "root": flags.text("root") or address.root,
        "state": flags.text("state") or address.state,
        "config": flags.text("config") or address.config,
        "host": flags.text("host") or ("" if address.may_start else address.url),
    }
    for name in (*_TLS, "group", "log-level", "log-format", "idle-exit"):
        given[name] = flags.text(name)
    for name, value in given.items():
        if value:
            argv += [f"--{name}", value]
    for directory in flags.many("hooks-dir"):
        argv += ["--hooks-dir", directory]
    os.execve(sys.executable, argv, os.environ)


_FORMAT = """\
  -f, --format string   Format output using a custom template:
                        'json':             Print in JSON format
                        'TEMPLATE':         Print output using the given
                        Go template.
"""

VERSION = Command(version, "[OPTIONS]", "Show the Sampan version information", _FORMAT, most=0)
INFO = Command(
    info,
    "[OPTIONS]",
    "Display system-wide information",
    _FORMAT,
    most=0,
    names="system info, info",
)
DAEMON = Command(
    daemon,
    "[OPTIONS]",
    "Run the daemon in the foreground",
    """\
      --config string       Configuration file (default
                            "/etc/sampan/config.toml")
      --group string        Group that may use the socket besides its owner
      --hooks-dir list      Directory of OCI hooks; in place of those of the
                            configuration file
  -H, --host string         Where to listen (unix:///path)
      --idle-exit int       Leave when for so many seconds no container ran
                            and no request came
      --log-format string   "text" or "json" (default "text")
      --log-level string    "debug", "info", "warning", "error" (default
                            "info")
      --root string         Directory of images and containers (default
                            "/var/lib/sampan")
      --state string        Directory of sockets and records (default
                            "/run/sampan")
      --tcp string          Also listen for clients with certificates
                            (tcp://host:port); needs the three that follow
      --tlscacert string    Who signed the clients' certificates
      --tlscert string      Our certificate
      --tlskey string       Its key
""",
    most=0,
)
