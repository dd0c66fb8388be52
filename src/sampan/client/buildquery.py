"""The query of a build, its secrets and its caches, out of the words that a caller uses.

Shared by the library and the command line; nothing here sends anything or needs more than text.
"""

from __future__ import annotations

import os

from sampan.client.calls import Call, quote
from sampan.errors import InvalidArgument
from sampan.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

MAX_SECRET = 500_000


def build(
    upload: Iterable[bytes] | None,
    query: Mapping[str, Any],
    lists: Mapping[str, Sequence[str]],
    registry_config: str = "",
) -> Call:
    """POST /build; `lists` are parameters that may be given many times."""
    call = Call("POST", "/build", dict(query), upload=upload)
    for name, values in lists.items():
        for value in values:
            call.target += ("&" if "?" in call.target else "?") + f"{name}={quote(value)}"
    call.headers["Content-Type"] = "application/x-tar"
    if registry_config:
        call.headers["X-Registry-Config"] = registry_config
    return call


def keep_secrets(secrets: Mapping[str, bytes], ssh: Mapping[str, str]) -> Call:
    """What the build may see, sent before it: comes to a token."""
    import binascii

    coded = {
        name: binascii.b2a_base64(value, newline=False).decode() for name, value in secrets.items()
    }
    return Call("POST", "/build/secrets", body={"Secrets": coded, "SSH": dict(ssh)})


def keep_context(pieces: Iterable[bytes]) -> Call:
    """A named context, sent before the build: comes to a token."""
    call = Call("POST", "/build/contexts", upload=pieces)
    call.headers["Content-Type"] = "application/x-tar"
    return call


def compare_context(key: str, manifest: bytes) -> Call:
    """Ask what of a directory is missing: comes to a token and numbers."""
    call = Call("POST", "/build/contexts/sync", {"key": key}, upload=(manifest,))
    call.headers["Content-Type"] = "application/octet-stream"
    return call


def sbom(image: str) -> Call:
    """What is installed in an image, as SPDX."""
    return Call("GET", "/images/" + quote(image, b"/:@") + "/sbom", subject="image")


def attach(image: str, artifact_type: str, content: bytes, auth: str) -> Call:
    """Push a document as a referrer of an image at its registry."""
    target = "/distribution/" + quote(image, b"/:@") + "/attach"
    headers = {"X-Registry-Auth": auth, "Content-Type": "application/octet-stream"}
    query = {"artifactType": artifact_type}
    return Call("POST", target, query, subject="image", upload=(content,), headers=headers)


def prune(filters: str | None, keep: str = "", *, everything: bool = False) -> Call:
    """Make the cache smaller."""
    query = {"all": everything, "filters": filters, "reserved-space": keep}
    return Call("POST", "/build/prune", query)


def mapping(values: Iterable[str], what: str) -> dict[str, str | None]:
    """`NAME=value`, or `NAME` alone for the caller's own variable (None when it has none)."""
    found: dict[str, str | None] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not name:
            raise InvalidArgument(f"invalid {what} {text!r}: it has no name")
        found[name] = value if equals else os.environ.get(name)
    return found


def labels(values: Iterable[str]) -> dict[str, str]:
    """`name=value`; without a value it is empty."""
    return {name: value for name, _, value in (text.partition("=") for text in values)}


def fields_of(text: str, what: str, known: Iterable[str]) -> dict[str, str]:
    """`a=b,c=d` as a mapping; a word without `=` is under "".

    Raises:
        InvalidArgument: a key is unknown or comes twice.
    """
    found: dict[str, str] = {}
    for field in text.split(","):
        name, equals, value = field.partition("=")
        if not equals:
            name, value = "", field
        if name in found or (name and name not in known):
            reason = "is given twice" if name in found else "is unknown"
            raise InvalidArgument(f"invalid {what} {text!r}: {name or value!r} {reason}")
        found[name] = value
    return found


def secret(text: str) -> tuple[str, bytes]:
    """`id=name[,src=path|,env=VARIABLE]`: the id and the value.

    Raises:
        InvalidArgument: it is malformed, or there is no such file or variable.
    """
    words = fields_of(text, "secret", ("id", "src", "source", "env", "type"))
    kind = words.get("type", "")
    if kind not in ("", "file", "env") or "" in words:
        raise InvalidArgument(f"invalid secret {text!r}: type must be file or env")
    name = words.get("id", "")
    path = words.get("src") or words.get("source") or ""
    variable = words.get("env", "")
    if kind == "env" and path and not variable:
        path, variable = "", path
    if not name:
        name = os.path.basename(path) or variable
    if not name:
        raise InvalidArgument(f"invalid secret {text!r}: it has no id")
    if not path and not variable:
        value = os.environ.get(name) if kind != "file" else None
        path = "" if value is not None else name
        variable = name if value is not None else ""
    if variable:
        found = os.environb.get(os.fsencode(variable))
        if found is None:
            raise InvalidArgument(f"secret {name}: the environment has no {variable}")
        return name, found
    return name, _file(name, path)


def _file(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_SECRET + 1)
    except OSError as error:
        raise InvalidArgument(f"secret {name}: open {path}: {error.strerror}") from error
    if len(content) > MAX_SECRET:
        raise InvalidArgument(f"secret {name}: {path} is larger than {MAX_SECRET} bytes")
    return content


def agent(text: str) -> tuple[str, list[str]]:
    """`default`, `id=socket` or `id=key[,key]`: the id, and the paths of an agent's socket or of
    the files of keys.

    Raises:
        InvalidArgument: there is no agent, or what is named is not there.
    """
    name, _, given = text.partition("=")
    name = name or "default"
    paths = [os.path.abspath(path) for path in given.split(",") if path]
    if not paths and (path := os.environ.get("SSH_AUTH_SOCK", "")):
        paths = [os.path.abspath(path)]
    if not paths:
        raise InvalidArgument(f"ssh {name}: SSH_AUTH_SOCK is not set, and no socket is given")
    for path in paths:
        if not os.path.exists(path):
            raise InvalidArgument(f"ssh {name}: {path}: no such file or directory")
    if len(paths) > 1 and any(is_socket(path) for path in paths):
        raise InvalidArgument(f"ssh {name}: give one socket of an agent, or files of keys")
    return name, paths


def is_socket(path: str) -> bool:
    """Whether there is a socket, an agent's as we hope."""
    import stat

    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def registry_config() -> str:
    """X-Registry-Config of everything that `login` kept; "" for nothing.

    Helpers are not asked here: which registries a Dockerfile needs is not known yet.
    """
    import binascii

    from sampan.client import credentials

    auths = credentials.load().get("auths")
    if not isinstance(auths, dict):
        return ""
    found = {name: credentials.find({"auths": auths}, name) for name in auths}
    kept = {name: entry for name, entry in found.items() if entry}
    if not kept:
        return ""
    raw = binascii.b2a_base64(encode(kept).encode(), newline=False)
    return raw.decode().replace("+", "-").replace("/", "_")
