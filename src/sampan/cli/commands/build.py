"""`build`: a Dockerfile and a context become an image; `builder prune`: less cache.

The context is a directory, `-` for a tar or a Dockerfile on standard input, or a URL. Docker's
flags, and those of its buildx where they say more. Progress goes to standard error.
"""

from __future__ import annotations

import os
import time

from sampan.cli.buildprogress import KINDS, follow
from sampan.cli.session import Command, Failed, Refused, Session
from sampan.client import buildquery, calls, contexts
from sampan.errors import SampanError
from sampan.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from sampan.cli.buildcache import Caches
    from sampan.cli.buildoutput import Output
    from sampan.cli.buildprogress import Silent
    from sampan.cli.flags import Values

_PIECE = 1 << 20
_REMOTE = ("http://", "https://", "git://", "ssh://", "git@")
_REFUSED = {
    "security-opt": "the security profile of a build's commands is the daemon's",
    "isolation": "there is only one isolation on Linux",
}


class _Source:
    """Where a build comes from: what is sent, and what the request says of it."""

    def __init__(self, where: str, dockerfile: str) -> None:
        self.remote = ""
        self.dockerfile = dockerfile
        self.lines: list[str] = []
        self.pieces: Iterable[bytes] | None = None
        self.directory: contexts.Directory | None = None
        if where == "-":
            self._of_input(dockerfile)
        elif where.startswith(_REMOTE) or where.partition("#")[0].endswith(".git"):
            self.remote = where
        else:
            self._of_directory(where, dockerfile)

    def _of_input(self, dockerfile: str) -> None:
        if dockerfile == "-":
            raise Failed("invalid argument: can't use stdin for both build context and dockerfile")
        head = _read_some(0, 512)
        if contexts.is_archive(head):
            self.pieces = _input(head)
            return
        text = head + b"".join(_input(b""))
        if not text.strip():
            raise Failed("the Dockerfile (standard input) cannot be empty")
        if dockerfile:
            raise Failed("a Dockerfile on standard input and --file exclude each other")
        self.lines = text.decode("utf-8", "replace").split("\n")
        self.pieces = [contexts.only(text)]

    def _of_directory(self, where: str, dockerfile: str) -> None:
        given: str | bytes = dockerfile
        if dockerfile == "-":
            given = b"".join(_input(b""))
            if not given.strip():
                raise Failed("the Dockerfile (standard input) cannot be empty")
        elif dockerfile and not os.path.isfile(dockerfile):
            inside = os.path.join(where, dockerfile)
            given = inside if os.path.isfile(inside) else dockerfile
        self.directory = contexts.Directory(where, given)
        self.dockerfile = self.directory.dockerfile
        self.pieces = self.directory.pieces()
        text = given if isinstance(given, bytes) else _text(given or f"{where}/Dockerfile")
        self.lines = text.decode("utf-8", "replace").split("\n")

    def compare(self, session: Session) -> str:
        """Have only what the daemon has not be sent; the token of the comparison."""
        directory = self.directory
        if directory is None:
            return ""
        call = buildquery.compare_context(directory.key, directory.manifest())
        answer = session.call(call)
        missing = answer["Missing"]
        if missing is not None:
            self.pieces = directory.pieces(frozenset(missing)) if missing else ()
        return str(answer["Id"])

    def sent(self, shown: Silent) -> Iterator[bytes]:
        """What is sent, and told when it is."""
        began, size = time.monotonic(), 0
        for piece in self.pieces or ():
            size += len(piece)
            yield piece
        if self.lines:
            text = "\n".join(self.lines)
            shown.loaded("build definition from Dockerfile", len(text), 0.0)
        shown.loaded("build context", size, time.monotonic() - began)


def _text(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _read_some(fd: int, size: int) -> bytes:
    head = b""
    while len(head) < size and (piece := os.read(fd, size - len(head))):
        head += piece
    return head


def _input(head: bytes) -> Iterator[bytes]:
    if head:
        yield head
    while piece := os.read(0, _PIECE):
        yield piece


def build(session: Session, flags: Values, words: list[str]) -> int:
    for name, reason in _REFUSED.items():
        if flags.has(name):
            raise Failed(f"--{name} is not supported: {reason}")
    outputs = _outputs(flags)
    source = _Source(words[0], flags.text("file"))
    if flags.on("check") or flags.text("call") in ("check", "lint"):
        return _check(session, flags, source)
    kinds = _attestations(flags, outputs)
    if flags.many("ssh"):
        from sampan.cli.agents import running

        with running(flags.many("ssh")) as agents:
            result = _built(session, flags, source, outputs, agents=agents, kinds=kinds)
    else:
        result = _built(session, flags, source, outputs, agents={}, kinds=kinds)
    _finish(session, flags, outputs, result)
    if kinds:
        from sampan.cli.attestations import attach

        attach(session, kinds, result)
    if flags.on("quiet"):
        session.out(result["ID"])
    return 0


def _built(
    session: Session,
    flags: Values,
    source: _Source,
    outputs: list[Output],
    *,
    agents: dict[str, str],
    kinds: frozenset[str],
) -> dict[str, Any]:
    """Have it built, and show that; what came out."""
    shown = progress_of(flags)(source.lines, source.dockerfile or "Dockerfile")
    keeps = all(output.keeps_image for output in outputs)
    names = [*flags.many("tag"), *(name for output in outputs for name in output.names)]
    query, lists = _query(session, flags, names if keeps else [])
    query |= {"dockerfile": source.dockerfile, "notes": True, "remote": source.remote}
    query["provenance"] = "provenance" in kinds
    query["sampansecrets"] = _secrets(session, flags, agents)
    caches = _caches(flags)
    if caches is not None:
        more, names_of = caches.prepare(session)
        query |= more
        lists |= names_of
    query["sampansync"] = source.compare(session)
    call = buildquery.build(source.sent(shown), query, lists, buildquery.registry_config())
    try:
        result = follow(session.client.open(call).lines(), shown)
    finally:
        shown.close()
    if caches is not None:
        caches.finish(session, list(result.get("CacheNames") or ()))
    return result


def progress_of(flags: Values) -> type[Silent]:
    """How progress is shown. Raises Failed."""
    name = "quiet" if flags.on("quiet") else flags.text("progress") or "auto"
    if name not in KINDS:
        raise Failed(f"invalid progress {name!r}: use one of {', '.join(KINDS)}")
    if name == "tty" or (name == "auto" and os.isatty(2)):
        from sampan.cli.buildterminal import Terminal

        return Terminal
    return KINDS[name]


def _outputs(flags: Values) -> list[Output]:
    if not flags.many("output") and not flags.on("push"):
        return []
    from sampan.cli.buildoutput import Output

    found = [Output(text) for text in flags.many("output")]
    if flags.on("push"):
        found.append(Output("type=registry"))
    return found


def _attestations(flags: Values, outputs: list[Output]) -> frozenset[str]:
    if not any(flags.has(name) for name in ("sbom", "provenance", "attest")):
        return frozenset()
    from sampan.cli.attestations import wanted

    return wanted(flags, pushes=any(output.push for output in outputs))


def _caches(flags: Values) -> Caches | None:
    if not flags.many("cache-from") and not flags.many("cache-to"):
        return None
    from sampan.cli.buildcache import Caches

    return Caches(flags.many("cache-from"), flags.many("cache-to"))


def _query(
    session: Session, flags: Values, names: list[str]
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The query's single and repeated parameters."""
    arguments = buildquery.mapping(flags.many("build-arg"), "build argument")
    given = {name: value for name, value in arguments.items() if value is not None}
    query: dict[str, Any] = {
        "target": flags.text("target"),
        "buildargs": encode(given) if given else "",
        "labels": encode(buildquery.labels(flags.many("label"))) if flags.many("label") else "",
        "nocache": flags.on("no-cache"),
        "pull": flags.on("pull"),
        "platform": flags.text("platform"),
        "squash": flags.on("squash"),
        "networkmode": flags.text("network"),
        "cgroupparent": flags.text("cgroup-parent"),
        "cpusetcpus": flags.text("cpuset-cpus"),
        "cpusetmems": flags.text("cpuset-mems"),
        "cpuperiod": flags.number("cpu-period"),
        "cpuquota": flags.number("cpu-quota"),
        "cpushares": flags.number("cpu-shares"),
        "memory": flags.number("memory"),
        "memswap": flags.number("memory-swap"),
        "shmsize": flags.number("shm-size"),
    }
    if flags.many("ulimit"):
        from sampan.cli.mounts import parse_ulimit

        query["ulimits"] = encode([parse_ulimit(text) for text in flags.many("ulimit")])
    lists = {
        "t": names,
        "allow": flags.many("allow"),
        "extrahosts": flags.many("add-host"),
        "nocachefilter": flags.many("no-cache-filter"),
        "context": [_context(session, text) for text in flags.many("build-context")],
    }
    return query, lists


def _secrets(session: Session, flags: Values, agents: dict[str, str]) -> str:
    """The token of the secrets and agents, when there are any."""
    secrets = dict(buildquery.secret(text) for text in flags.many("secret"))
    if not secrets and not agents:
        return ""
    return str(session.call(buildquery.keep_secrets(secrets, agents))["Id"])


def _context(session: Session, text: str) -> str:
    """A named context as the request says it; a directory is sent first."""
    name, _, where = text.partition("=")
    if not name or not where:
        raise Failed(f"invalid build context {text!r}: expected NAME=WHERE")
    if "://" in where or where.startswith("git@"):
        return text
    if not os.path.isdir(where):
        raise Failed(f"build context {name}: {where} is no directory")
    directory = contexts.Directory(where, b"")
    answer = session.call(buildquery.keep_context(directory.pieces()))
    return f"{name}=token:{answer['Id']}"


def _finish(session: Session, flags: Values, outputs: list[Output], result: dict[str, Any]) -> None:
    """Outputs and files about the image."""
    image, names = result["ID"], list(result.get("Names") or ())
    platforms: dict[str, str] = result.get("Platforms") or {}
    try:
        for output in outputs:
            if len(platforms) > 1:
                output.carry_out_each(session, platforms, names)
            else:
                output.carry_out(session, image, names)
    finally:
        if outputs and not all(output.keeps_image for output in outputs):
            for one in {image, *platforms.values()}:
                _drop(session, one)
    if any(output.push for output in outputs):
        _push(session, names)
    if flags.text("iidfile"):
        _write(flags.text("iidfile"), image)
    if flags.text("metadata-file"):
        _write(flags.text("metadata-file"), encode(_metadata(result), "  ") + "\n")


def _push(session: Session, names: list[str]) -> None:
    from sampan.cli.progress import show
    from sampan.client.credentials import header_for

    if not names:
        raise Failed("push: the image has no name: give it one with --tag")
    for name in names:
        show(session.client.open(calls.push(name, header_for(name))).lines(), 2)


def _drop(session: Session, image: str) -> None:
    """Remove an image that was only wanted as files, unless it has a name."""
    try:
        if not session.call(calls.image_inspect(image)).get("RepoTags"):
            session.call(calls.image_remove(image))
    except (Refused, SampanError):
        return


def _metadata(result: dict[str, Any]) -> dict[str, Any]:
    described = {
        "mediaType": result["MediaType"],
        "digest": result["Digest"],
        "size": result["Size"],
    }
    found = {
        "containerimage.config.digest": result["ID"],
        "containerimage.descriptor": described,
        "containerimage.digest": result["Digest"],
    }
    names = result.get("Names") or []
    return {**found, "image.name": ",".join(names)} if names else found


def _write(path: str, text: str) -> None:
    unfinished = f"{path}.unfinished-{os.getpid()}"
    with open(unfinished, "x", encoding="utf-8") as file:
        file.write(text)
    os.replace(unfinished, path)


def _check(session: Session, flags: Values, source: _Source) -> int:
    """Lint: 1 when anything was found."""
    arguments = buildquery.mapping(flags.many("build-arg"), "build argument")
    query = {
        "check": True,
        "dockerfile": source.dockerfile,
        "remote": source.remote,
        "target": flags.text("target"),
        "buildargs": encode({name: value or "" for name, value in arguments.items()}),
    }
    found = session.call(buildquery.build(source.pieces, query, {}))["Warnings"]
    for one in found:
        session.out(f"WARNING: {one['Rule']}\n{one['Text']}")
        session.out(f"{one['File']}:{one['Line']}\n--------------------")
        number = one["Line"]
        for line in range(max(1, number - 2), min(len(source.lines), number + 2) + 1):
            mark = ">>>" if line == number else "   "
            session.out(f"{line:4} | {mark} {source.lines[line - 1]}")
        session.out("--------------------\n")
    count = len(found)
    if not count:
        session.out("Check complete, no warnings found.")
        return 0
    has = "warning has" if count == 1 else "warnings have"
    session.out(f"Check complete, {count} {has} been found!")
    return 1


def prune(session: Session, flags: Values, _: list[str]) -> int:
    from sampan.cli.commands.usage import confirmed, print_deleted
    from sampan.cli.tables import parse_filters
    from sampan.cli.units import decimal_size

    if not confirmed(flags, "WARNING! This will remove all build cache that is not in use."):
        return 0
    filters = calls.filters_text(parse_filters(flags.many("filter")))
    keep = flags.number("keep-storage")
    answer = session.call(buildquery.prune(filters, "" if keep is None else str(keep)))
    print_deleted(session, "Deleted build cache objects", answer.get("CachesDeleted") or [])
    session.out(f"Total reclaimed space: {decimal_size(answer.get('SpaceReclaimed') or 0)}")
    return 0


BUILD = Command(
    build,
    "[OPTIONS] PATH | URL | -",
    "Build an image from a Dockerfile",
    """\
      --add-host list             Add a custom host-to-IP mapping (host:ip)
      --allow list                Allow RUN what is refused otherwise:
                                  network.host, security.insecure
      --attest list               type=sbom or type=provenance, as below
      --build-arg list            Set build-time variables
      --build-context list        Additional build contexts (name=path, or
                                  docker-image://, a URL, a git repository)
      --cache-from list           Take results from there: an image's name, or
                                  type=registry,ref=NAME, type=local,src=DIR
      --cache-to list             Put results there: type=registry,ref=NAME,
                                  type=local,dest=DIR, type=inline; mode=max
      --call string               "check" is --check (default "build")
      --cgroup-parent string      Parent cgroup of the commands of RUN
      --check                     Find mistakes, and build nothing
      --cpu-period int            Limit the CPU CFS (Completely Fair
                                  Scheduler) period
      --cpu-quota int             Limit the CPU CFS (Completely Fair
                                  Scheduler) quota
  -c, --cpu-shares int            CPU shares (relative weight)
      --cpuset-cpus string        CPUs in which to allow execution (0-3, 0,1)
      --cpuset-mems string        MEMs in which to allow execution (0-3, 0,1)
  -f, --file string               Name of the Dockerfile (default
                                  "PATH/Dockerfile"), "-" for standard input
      --force-rm                  Nothing is ever left; for docker's sake
      --iidfile string            Write the image ID to a file
      --isolation string          Refused
      --label list                Set metadata for an image
      --load                      The image is always here; for docker's sake
  -m, --memory bytes              Memory limit of each command of RUN
      --memory-swap bytes         Memory and swap: "-1" for unlimited swap
      --metadata-file string      Write what was built to a file, as JSON
      --network string            Network of RUN: default, none, host, or a
                                  network's name
      --no-cache                  Do not use the cache
      --no-cache-filter list      Do not use the cache for these stages
  -o, --output list               Where the result goes: type=image, docker,
                                  oci, tar, local, registry; dest=PATH
      --platform string           Platform of the image
      --progress string           auto, plain, rawjson, quiet (default "auto")
      --provenance string         Push how it was made beside the image (true)
      --pull                      Pull the newest bases
      --push                      Push the image under its names
  -q, --quiet                     Print only the image ID
      --rm                        Nothing is ever left; for docker's sake
      --sbom string               Push what is installed beside the image (true)
      --secret list               Secret for RUN --mount=type=secret
                                  (id=NAME[,src=PATH|,env=VARIABLE])
      --security-opt list         Refused
      --shm-size bytes            Size of /dev/shm of the commands of RUN
      --squash                    Make one layer of all that is built
      --ssh list                  Agent for RUN --mount=type=ssh
                                  (default[=SOCKET], id=SOCKET)
  -t, --tag list                  Name of the image (name:tag)
      --target string             The stage to build
      --ulimit ulimit             Ulimit options
""",
    least=1,
    most=1,
    names="image build, build",
)
PRUNE = Command(
    prune,
    "[OPTIONS]",
    "Remove build cache",
    """\
  -a, --all                  Remove everything, which is done anyway
      --filter filter        Provide filter values (e.g. "until=24h")
  -f, --force                Do not prompt for confirmation
      --keep-storage bytes   Amount of disk space to keep for cache
""",
    most=0,
)
