"""The credentials of `login`, and the header that carries them with a pull or a push.

They are kept as docker keeps them, in `config.json` of `$DOCKER_CONFIG` or `~/.docker`: `auths` by
registry, each with the base64 of `user:password`. Credential helpers are the daemon's affair.
"""

from __future__ import annotations

import os

from sampan.jsontext import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NOTHING = "e30="
INDEX = "https://index.docker.io/v1/"


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


def header_for(image: str) -> str:
    """X-Registry-Auth: base64url of the credentials for the image's registry."""
    if not os.path.exists(path()):
        return NOTHING
    registry = registry_of(image)
    entry = (load().get("auths") or {}).get(registry)
    if not isinstance(entry, dict) or not entry.get("auth"):
        return NOTHING
    import binascii

    try:
        user, _, password = binascii.a2b_base64(entry["auth"]).decode().partition(":")
    except ValueError:
        return NOTHING
    text = encode({"username": user, "password": password, "serveraddress": registry})
    raw = binascii.b2a_base64(text.encode(), newline=False)
    return raw.decode().replace("+", "-").replace("/", "_")
