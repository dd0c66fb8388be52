"""`--cache-from` and `--cache-to`: caches in registries, in directories, and beside the image.

type=registry,ref=NAME[,mode=max]   images that are pushed and pulled; a mere NAME is the same
type=local,src=DIR / dest=DIR       an OCI layout with the same images
type=inline                         beside the image that is built (only to)
"""

from __future__ import annotations

import os

from sampan.cli.session import Failed, Session
from sampan.client import buildquery, calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_LOCAL = "localhost/sampan-cache"
_FROM = ("type", "ref", "src")
_TO = ("type", "ref", "dest", "mode")


class Caches:
    """What both flags ask for."""

    def __init__(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        self._sources = [_words(text, "cache-from", _FROM) for text in sources]
        self._targets = [_words(text, "cache-to", _TO) for text in targets]
        for words, path in ((self._sources, "src"), (self._targets, "dest")):
            for one in words:
                _check(one, path)
        modes = {one.get("mode", "min") for one in self._targets if one["type"] != "inline"}
        if len(modes) > 1 or not modes <= {"min", "max"}:
            raise Failed("cache-to: mode is min or max, the same for all")
        self._mode = modes.pop() if modes else "min"
        self._loaded: list[str] = []
        self._names = {
            id(one): f"{_LOCAL}:{os.getpid()}-{number}"
            for number, one in enumerate(self._targets)
            if one["type"] == "local"
        }

    def prepare(self, session: Session) -> tuple[dict[str, Any], dict[str, list[str]]]:
        """Load what lies in directories; what the query says of caches."""
        names = []
        for one in self._sources:
            if one["type"] == "local":
                names += self._load(session, one["src"])
            else:
                names.append(one["ref"])
        targets = [
            self._names.get(id(one)) or one["ref"]
            for one in self._targets
            if one["type"] != "inline"
        ]
        inline = any(one["type"] == "inline" for one in self._targets)
        query = {"cachemode": self._mode, "cacheinline": inline}
        return query, {"cachefrom": names, "cacheto": targets}

    def _load(self, session: Session, directory: str) -> list[str]:
        if not os.path.isfile(os.path.join(directory, "index.json")):
            return []  # a first build has no cache yet
        from sampan.cli.layouts import pack

        names = []
        call = calls.load(pack(directory), quiet=True)
        for line in session.client.open(call).lines():
            if line.get("error"):
                raise Failed(f"cache-from {directory}: {line['error']}")
            word, _, name = line.get("stream", "").strip().partition(": ")
            if word == "Loaded image":
                names.append(name)
        self._loaded += names
        return [name for name in names if "-stage-" not in name]

    def finish(self, session: Session, made: list[str]) -> None:
        """Push or write the images that the build made for caches, and forget them here."""
        for one in self._targets:
            name = self._names.get(id(one)) or one.get("ref", "")
            found = [each for each in made if _belongs(each, name)]
            if one["type"] == "registry":
                _push(session, found)
            elif one["type"] == "local":
                from sampan.cli.layouts import unpack

                call = calls.save(found, kind="oci-archive")
                unpack(session.client.open(call).pieces(), one["dest"])
        self._forget(session, made)

    def _forget(self, session: Session, made: list[str]) -> None:
        from sampan.cli.session import Refused

        for name in (*made, *self._loaded):
            try:
                session.call(calls.image_remove(name, force=True))
            except Refused:
                continue


def _words(text: str, flag: str, known: tuple[str, ...]) -> dict[str, str]:
    if "=" not in text:
        return {"type": "registry", "ref": text}
    words = buildquery.fields_of(text, flag, known)
    if "" in words or "type" not in words:
        raise Failed(f"invalid {flag} {text!r}: expected type=registry, local or inline")
    return words


def _check(words: dict[str, str], path: str) -> None:
    kind = words["type"]
    needs = {"registry": "ref", "local": path}.get(kind)
    if kind == "inline" and path == "dest":
        return
    if needs is None:
        raise Failed(f"cache type {kind!r} is not supported: use registry, local or inline")
    if not words.get(needs):
        raise Failed(f"cache type {kind}: {needs} is needed")


def _belongs(made: str, name: str) -> bool:
    """Whether a name that was made is that of a target, or of one of its stages."""
    whole = ":".join(calls.split_tag(name))
    return made == whole or made.startswith(f"{whole}-stage-")


def _push(session: Session, names: list[str]) -> None:
    from sampan.cli.progress import show
    from sampan.client.credentials import header_for

    for name in names:
        show(session.client.open(calls.push(name, header_for(name))).lines(), 2, quiet=True)
