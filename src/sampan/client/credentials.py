"""The credentials of `login`, and the header that carries them with a pull or a push.

They are kept as docker keeps them, in `config.json` of `$DOCKER_CONFIG` or `~/.docker`: `auths` by
registry, each with the base64 of `user:password` or an identity token, or with a program
`docker-credential-NAME` for one registry (`credHelpers`) or for all (`credsStore`).
"""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument, Unavailable
from sampan.jsontext import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

NOTHING = "e30="
INDEX = "https://index.docker.io/v1/"
_HELPER_SECONDS = 60
_TOKEN_USER = "<token>"  # noqa: S105 - what helpers say in place of a user
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def path() -> str:
    """The file of credentials."""
    directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    return os.path.join(directory, "config.json")


def load() -> dict[str, Any]:
    """The file's document; empty where there is none."""
    try:
        with open(path(), "rb") as file:
            document = decode(file.read())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def save(document: dict[str, Any]) -> None:
    """Replace the file, readable by its owner only."""
    target = path()
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    temporary = f"{target}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, encode(document, "\t").encode() + b"\n")
    finally:
        os.close(fd)
    os.replace(temporary, target)


def registry_of(image: str) -> str:
    """The key of an image's registry in the file."""
    first, slash, _ = image.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        return INDEX
    return INDEX if first in ("docker.io", "index.docker.io") else first


def header_for(image: str, auth: tuple[str, str] | None = None) -> str:
    """X-Registry-Auth for the image's registry: base64url of `auth`, user and password, or of what
    is kept for it.

    Raises:
        Unavailable: a credential helper failed.
    """
    registry = registry_of(image)
    if auth is not None:
        return _header({"username": auth[0], "password": auth[1], "serveraddress": registry})
    if not os.path.exists(path()):
        return NOTHING
    found = find(load(), registry)
    return _header({**found, "serveraddress": registry}) if found else NOTHING


def find(document: Mapping[str, Any], registry: str) -> dict[str, str]:
    """What is kept for a registry: username and password, or identitytoken; empty for nothing.

    Raises:
        Unavailable: a credential helper failed.
    """
    helper = helper_for(document, registry)
    if helper:
        found = _ask(helper, "get", registry.encode())
        return _of_helper(found) if found else {}
    auths = document.get("auths")
    for key in (registry, f"https://{registry}", f"https://{registry}/v1/"):
        entry = auths.get(key) if isinstance(auths, dict) else None
        if isinstance(entry, dict):
            return _of_entry(entry)
    return {}


def keep(server: str, user: str, password: str, token: str) -> str:
    """Keep credentials for a server; where they are then: a helper's name, or "".

    Raises:
        Unavailable: the helper failed.
    """
    document = load()
    helper = helper_for(document, server)
    if helper:
        name, secret = (_TOKEN_USER, token) if token else (user, password)
        body = {"ServerURL": server, "Username": name, "Secret": secret}
        _ask(helper, "store", encode(body).encode())
        document.setdefault("auths", {})[server] = {}
        save(document)
        return helper
    import binascii

    pair = f"{user}:{'' if token else password}"
    entry = {"auth": binascii.b2a_base64(pair.encode(), newline=False).decode()}
    if token:
        entry["identitytoken"] = token
    document.setdefault("auths", {})[server] = entry
    save(document)
    return ""


def forget(server: str) -> bool:
    """Forget what is kept for a server; whether there was anything.

    Raises:
        Unavailable: the helper failed.
    """
    document = load()
    helper = helper_for(document, server)
    known = server in (document.get("auths") or {})
    if helper:
        known = bool(find(document, server)) or known
        _ask(helper, "erase", server.encode())
    if server in (document.get("auths") or {}):
        del document["auths"][server]
        save(document)
    return known


def helper_for(document: Mapping[str, Any], registry: str) -> str:
    """The name of the helper that has a registry's credentials, "" for the file itself.

    Raises:
        InvalidArgument: it is no name of a program.
    """
    helpers = document.get("credHelpers")
    name = helpers.get(registry) if isinstance(helpers, dict) else None
    name = name or document.get("credsStore") or ""
    if not isinstance(name, str) or not _NAME.issuperset(name) or name.startswith("-"):
        raise InvalidArgument(f"{path()}: {name!r} is not the name of a credential helper")
    return name


def _ask(helper: str, verb: str, data: bytes) -> dict[str, Any] | None:
    """What a helper answers; None when it has nothing for that registry."""
    import subprocess

    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, verb], input=data, capture_output=True, timeout=_HELPER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "it did not answer in time"
        raise Unavailable(f"ask {program} for credentials: {reason}") from error
    if done.returncode:
        said = (done.stdout or done.stderr).decode("utf-8", "replace").strip()
        if "not found" in said:
            return None
        raise Unavailable(f"{program} {verb} failed: {said[:300]}")
    if verb != "get":
        return {}
    try:
        answer = decode(done.stdout)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Unavailable(f"{program} get answered with something else than JSON")
    return answer


def _of_helper(answer: dict[str, Any]) -> dict[str, str]:
    user, secret = str(answer.get("Username") or ""), str(answer.get("Secret") or "")
    if user == _TOKEN_USER:
        return {"identitytoken": secret}
    return {"username": user, "password": secret}


def _of_entry(entry: dict[str, Any]) -> dict[str, str]:
    import binascii

    found: dict[str, str] = {}
    try:
        pair = binascii.a2b_base64(str(entry.get("auth") or "")).decode()
    except ValueError:
        pair = ""
    user, colon, password = pair.partition(":")
    if colon:
        found = {"username": user, "password": password}
    for key in ("identitytoken", "registrytoken"):
        if entry.get(key):
            found[key] = str(entry[key])
    return found


def _header(body: dict[str, str]) -> str:
    import binascii

    raw = binascii.b2a_base64(encode(body).encode(), newline=False)
    return raw.decode().replace("+", "-").replace("/", "_")
