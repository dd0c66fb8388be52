"""`docker-context`: tell docker's command line where this daemon is, in docker's own files."""

from __future__ import annotations

import os

from sampan.cli.session import Command, Failed, Session
from sampan.client import credentials
from sampan.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")


def docker_context(session: Session, flags: Values, words: list[str]) -> int:
    """Write the context, and make it the current one when asked."""
    name = words[0] if words else "sampan"
    if name == "default" or name[:1] in "._+-" or not set(name) <= _NAME:
        raise Failed(f"docker-context: {name!r} cannot be the name of a context")
    _write(name, _document(name, session.address.url))
    if flags.on("use"):
        document = credentials.load()
        document["currentContext"] = name
        credentials.save(document)
    session.out(name)
    return 0


def _document(name: str, host: str) -> dict[str, Any]:
    return {
        "Name": name,
        "Metadata": {"Description": "Sampan"},
        "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}},
    }


def _write(name: str, document: dict[str, Any]) -> None:
    """Replace the context's file; docker finds it by the digest of the name."""
    from hashlib import sha256

    digest = sha256(name.encode()).hexdigest()
    directory = os.path.join(os.path.dirname(credentials.path()), "contexts", "meta", digest)
    temporary = os.path.join(directory, f"meta.json.{os.getpid()}")
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(encode(document))
        os.replace(temporary, os.path.join(directory, "meta.json"))
    except OSError as error:
        raise Failed(f"docker-context: write {directory}: {error.strerror}") from error


DOCKER_CONTEXT = Command(
    docker_context,
    "[OPTIONS] [NAME]",
    "Write a context for docker's command line (default name: sampan)",
    """\
      --use    Make it docker's current context
""",
    most=1,
)
