"""`build` of the library: what callers may say, the steps of it, and what comes back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from sampan.client import buildquery, calls, contexts, results
from sampan.client.failures import error_of
from sampan.client.flows import Each, Flow
from sampan.client.sources import pieces_of
from sampan.errors import InvalidArgument, Unavailable
from sampan.jsontext import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Self

    Path = str | os.PathLike[str]
    Context = Path | Iterable[bytes] | None

_REMOTE = ("http://", "https://", "git://", "ssh://", "git@")


class BuildOptions(TypedDict, total=False):
    """What `build` may be told beside its context; what is left out has Docker's default."""

    dockerfile: Path | bytes
    """A path, or the text itself."""
    tags: str | Sequence[str]
    target: str
    build_args: Mapping[str, str]
    labels: Mapping[str, str]
    no_cache: bool
    no_cache_filter: Sequence[str]
    pull: bool
    platform: str
    squash: bool
    network: str
    add_hosts: Mapping[str, str]
    allow: Sequence[str]
    """`network.host` and `security.insecure`, which RUN may ask for then."""
    secrets: Mapping[str, bytes]
    ssh: Mapping[str, Path]
    """Sockets of agents by id."""
    contexts: Mapping[str, Path]
    """More contexts by name: directories, `docker-image://NAME`, URLs."""
    cache_from: Sequence[str]
    """Images that have a cache beside them, here or at their registries."""
    inline_cache: bool
    """Put the cache beside the image that is built."""
    memory: int
    """Bytes that each command of RUN may have."""
    progress: Callable[[BuildEvent], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildEvent:
    """Something that happened in step `step` of `total`.

    `kind` is started, pulling, cached, running, output, warning or done; `text` the instruction,
    or what a command printed.
    """

    kind: str
    step: int
    total: int
    stage: str
    text: str
    is_error: bool

    @classmethod
    def parse(cls, note: dict[str, Any]) -> Self:
        """From a line of the stream."""
        return cls(
            kind=note["kind"],
            step=note.get("step", 0),
            total=note.get("total", 0),
            stage=note.get("stage", ""),
            text=note.get("text", ""),
            is_error=note.get("stderr", False),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What a build made: the image, and how much of it was cached."""

    image: results.Image
    digest: str
    warnings: tuple[str, ...]
    steps: int
    cached: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildWarning:
    """Something that is allowed in a Dockerfile and probably wrong."""

    rule: str
    text: str
    line: int


class _Request:
    """What is sent: the pieces of a context, and what the query says of it."""

    def __init__(self, context: Context, dockerfile: Path | bytes) -> None:
        self.remote = ""
        self.directory: contexts.Directory | None = None
        self.dockerfile = dockerfile if isinstance(dockerfile, str) else ""
        self.pieces: Iterable[bytes] | None = None
        text = context if isinstance(context, str) else ""
        if text.startswith(_REMOTE):
            self.remote = text
        elif context is None:
            if not isinstance(dockerfile, bytes):
                raise InvalidArgument("build: without a context, give the text of a Dockerfile")
            self.pieces = [contexts.only(dockerfile)]
        elif isinstance(context, (str, os.PathLike)) and not os.path.isfile(context):
            given = dockerfile if isinstance(dockerfile, bytes) else os.fspath(dockerfile)
            self.directory = contexts.Directory(os.fspath(context), given)
            self.dockerfile = self.directory.dockerfile
            self.pieces = self.directory.pieces()
        elif isinstance(dockerfile, bytes):
            raise InvalidArgument("build: an archive brings its own Dockerfile: name it instead")
        else:
            self.dockerfile, self.pieces = os.fspath(dockerfile), pieces_of(context)


def build(context: Context, options: BuildOptions) -> Flow[Build]:
    """Send what is needed, build, and come to the result.

    Raises:
        CommandFailed: a command of RUN did not succeed.
        InvalidArgument: the Dockerfile, the context or an option is wrong.
    """
    request = _Request(context, options.get("dockerfile", ""))
    query, lists = _query(options)
    token = yield from _secrets(options)
    lists["context"] = yield from _contexts(options)
    query |= {"dockerfile": request.dockerfile, "remote": request.remote, "notes": True}
    query["sampansecrets"] = token
    if request.directory is not None:
        query["sampansync"] = yield from _compared(request)
    call = buildquery.build(request.pieces, query, lists, buildquery.registry_config())
    listener = _Listener(options.get("progress"))
    yield Each(call, listener.take)
    done = listener.result
    if done is None:
        raise Unavailable("build: the daemon ended it without a word")
    image = results.Image.parse((yield calls.image_inspect(done["ID"])))
    return Build(
        image=image,
        digest=done["Digest"],
        warnings=tuple(done.get("Warnings") or ()),
        steps=done["Steps"],
        cached=done["Cached"],
    )


def _compared(request: _Request) -> Flow[str]:
    """Only what the daemon has not is sent."""
    directory = request.directory
    assert directory is not None
    answer = yield buildquery.compare_context(directory.key, directory.manifest())
    missing = answer["Missing"]
    if missing is not None:
        request.pieces = directory.pieces(frozenset(missing)) if missing else ()
    return str(answer["Id"])


def check(context: Context, options: BuildOptions) -> Flow[list[BuildWarning]]:
    """Lint a Dockerfile; nothing is built."""
    request = _Request(context, options.get("dockerfile", ""))
    query, lists = _query(options)
    query |= {"dockerfile": request.dockerfile, "remote": request.remote, "check": True}
    answer = yield buildquery.build(request.pieces, query, lists)
    return [
        BuildWarning(rule=one["Rule"], text=one["Text"], line=one["Line"])
        for one in answer["Warnings"]
    ]


class _Listener:
    """Takes the lines of the stream."""

    def __init__(self, progress: Callable[[BuildEvent], None] | None) -> None:
        self._progress = progress
        self.result: dict[str, Any] | None = None

    def take(self, line: dict[str, Any]) -> None:
        """Take one line.

        Raises:
            SampanError: it says that the build failed.
        """
        if line.get("error"):
            detail = line.get("errorDetail") or {}
            message = str(detail.get("message") or line["error"])
            if detail.get("code"):
                raise results.CommandFailed(message, int(detail["code"]))
            raise error_of(int(detail.get("status") or 500), message)
        if "result" in line:
            self.result = line["result"]
        elif self._progress is not None and "note" in line:
            self._progress(BuildEvent.parse(line["note"]))


def _query(options: BuildOptions) -> tuple[dict[str, Any], dict[str, Sequence[str]]]:
    tags = options.get("tags", ())
    arguments, labels = options.get("build_args"), options.get("labels")
    hosts = options.get("add_hosts") or {}
    query: dict[str, Any] = {
        "target": options.get("target", ""),
        "buildargs": encode(dict(arguments)) if arguments else "",
        "labels": encode(dict(labels)) if labels else "",
        "nocache": options.get("no_cache", False),
        "pull": options.get("pull", False),
        "platform": options.get("platform", ""),
        "squash": options.get("squash", False),
        "networkmode": options.get("network", ""),
        "memory": options.get("memory"),
        "cacheinline": options.get("inline_cache", False),
    }
    lists: dict[str, Sequence[str]] = {
        "t": [tags] if isinstance(tags, str) else list(tags),
        "allow": options.get("allow", ()),
        "cachefrom": options.get("cache_from", ()),
        "nocachefilter": options.get("no_cache_filter", ()),
        "extrahosts": [f"{name}:{address}" for name, address in hosts.items()],
    }
    return query, lists


def _secrets(options: BuildOptions) -> Flow[str]:
    secrets, agents = options.get("secrets") or {}, options.get("ssh") or {}
    if not secrets and not agents:
        return ""
    paths = {name: os.path.abspath(os.fspath(path)) for name, path in agents.items()}
    return str((yield buildquery.keep_secrets(secrets, paths))["Id"])


def _contexts(options: BuildOptions) -> Flow[list[str]]:
    found: list[str] = []
    for name, where in (options.get("contexts") or {}).items():
        text = os.fspath(where)
        if "://" not in text and not text.startswith("git@"):
            directory = contexts.Directory(text, b"")
            answer = yield buildquery.keep_context(directory.pieces())
            text = f"token:{answer['Id']}"
        found.append(f"{name}={text}")
    return found
