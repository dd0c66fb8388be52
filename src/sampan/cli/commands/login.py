"""`login` and `logout`: credentials for a registry, kept where docker keeps them."""

from __future__ import annotations

import os

from sampan.cli.session import Command, Failed, Session, write
from sampan.client import calls
from sampan.client.credentials import INDEX, forget, keep, path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.flags import Values


def _password(flags: Values) -> str:
    if flags.on("password-stdin"):
        if flags.has("password"):
            raise Failed("--password and --password-stdin are mutually exclusive")
        data = b""
        while piece := os.read(0, 4096):
            data += piece
        return data.decode().rstrip("\r\n")
    if flags.has("password"):
        return flags.text("password")
    if not os.isatty(0):
        raise Failed("Error: Cannot perform an interactive login from a non TTY device")
    from sampan.cli.terminal import RawMode

    write(1, b"Password: ")
    typed = b""
    with RawMode(0):
        while (key := os.read(0, 1)) not in (b"\r", b"\n", b""):
            typed += key
    write(1, b"\n")
    return typed.decode()


def _server(servers: list[str]) -> str:
    """The key under which a registry is kept: its host, or docker's own for docker's."""
    if not servers:
        return INDEX
    host = servers[0].partition("://")[2] or servers[0]
    host = host.partition("/")[0]
    return INDEX if host in ("docker.io", "index.docker.io") else host


def login(session: Session, flags: Values, servers: list[str]) -> int:
    server = _server(servers)
    user = flags.text("username")
    if not user:
        raise Failed("Error: Cannot perform an interactive login without a username")
    password = _password(flags)
    answer = session.call(calls.login(user, password, server))
    helper = keep(server, user, password, answer.get("IdentityToken") or "")
    if not helper:
        session.error(f"WARNING! Your credentials are stored unencrypted in '{path()}'.")
    session.out(answer.get("Status") or "Login Succeeded")
    return 0


def logout(session: Session, _: Values, servers: list[str]) -> int:
    server = _server(servers)
    if not forget(server):
        session.out(f"Not logged in to {server}")
        return 0
    session.out(f"Removing login credentials for {server}")
    return 0


LOGIN = Command(
    login,
    "[OPTIONS] [SERVER]",
    "Authenticate to a registry",
    """\
  -p, --password string   Password or Personal Access Token (PAT)
      --password-stdin    Take the Password or Personal Access Token
                          (PAT) from stdin
  -u, --username string   Username
""",
    most=1,
)
LOGOUT = Command(logout, "[SERVER]", "Log out from a registry", most=1)
