"""COPY, ADD and WORKDIR: what they take, what it is keyed by, and the copy itself.

An instruction takes files from several places at once: the context or what `--from` names, its own
here-documents, and what ADD fetches. Each is one `_Take`; the copy does them in order. With
`--link` it reads nothing of its own stage, and may be done ahead (`builder.ahead`).
"""

from __future__ import annotations

import asyncio
import posixpath
import re
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sampan.builder import fetch, git
from sampan.builder.configure import absolute
from sampan.builder.files.service import Context, CopyJob, InlineFile, Part
from sampan.builder.language import instructions as ast
from sampan.builder.language.failure import DockerfileError
from sampan.builder.scope import expand
from sampan.errors import DigestMismatch, InvalidArgument, SampanError
from sampan.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from sampan.builder.cache import Filled
    from sampan.builder.language.words import Expander
    from sampan.builder.model import State
    from sampan.builder.stage import StageWork
    from sampan.snapshots.base import Mount

_OPENER: Final = re.compile(r"<<-?[\"']?[^<]+", re.ASCII)
_NOBODY: Final = ("", "0", "root", "0:0", "root:root")
_SECOND: Final = 10**9
_NUMBERS: Final = re.compile(r"(?:[0-9]+(?::[0-9]+)?)?", re.ASCII)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(slots=True)
class _Take:
    """Words for one place to take from; `key` is what the place counts for beside its files."""

    source: Context | Mount | None
    key: Any
    words: list[str]
    unpack: bool | None = False


@dataclass(frozen=True, slots=True)
class Order:
    """What an instruction comes to: the job, its files, and all that they count for in the key."""

    job: CopyJob
    sources: list[Context | Mount]
    parts: list[Any]


class Copies:
    """The copying instructions of one stage."""

    def __init__(self, stage: StageWork) -> None:
        self._stage = stage
        self._files = stage.build.files

    async def make_directory(self, target: str, user: str, mount: Mount) -> None:
        """The directory of a WORKDIR; it belongs to the user of the moment, as with BuildKit."""
        owner = "" if user in _NOBODY else user
        job = CopyJob(target=target, chown=owner)
        await self._files.copy(job, mount, [])

    async def copy(self, state: State, one: ast.Copy) -> State:
        """A COPY or ADD."""
        stage = self._stage
        title = f"{one.origin.name} {one.origin.rest}"
        async with self.ordered(state, one, stage.words(state)) as order:

            async def apart() -> Filled:
                return await stage.ahead.take(one, order) or await self.apart(order)

            made = apart if is_linked(one, order.job) else None
            return await stage.files_step(state, order.parts, title, self._work(order), made)

    async def apart(self, order: Order) -> Filled:
        """The files of an order in a snapshot above nothing."""
        build = self._stage.build
        return await build.cache.filled(None, build.lease, self._work(order))

    def _work(self, order: Order) -> Callable[[str, Mount], Awaitable[None]]:
        async def work(_: str, mount: Mount) -> None:
            await self._files.copy(order.job, mount, order.sources)

        return work

    @asynccontextmanager
    async def ordered(self, state: State, one: ast.Copy, words: Expander) -> AsyncIterator[Order]:
        """What a COPY or ADD comes to at this state, for the block.

        Raises:
            InvalidArgument: there are no such files.
            DockerfileError: a word is wrong.
        """
        target, into = absolute(state.config, expand(one, one.target, words.word))
        if len(one.sources) > 1 and not into:
            name = one.origin.name
            raise DockerfileError(
                f"when using {name} with more than one source file, the destination must be a "
                "directory and end with a /",
                one.origin.place,
            )
        with ExitStack() as undo:
            takes = await self._takes(state, one, words, (target, into), undo)
            sources: list[Context | Mount] = []
            parts: list[Part] = []
            key: list[Any] = []
            for take in takes:
                if take.source is None:
                    raise self._missing(one, take.words[0])
                part = self._part(one, take, len(sources), into=into)
                key.append([take.key, await self._key(take, part)])
                sources.append(take.source)
                parts.append(part)
            job = CopyJob(
                target=target,
                parts=parts,
                chown=expand(one, one.chown, words.word),
                chmod=expand(one, one.chmod, words.word),
                keep=bool(one.from_),
            )
            yield Order(job, sources, _counted(one, job, key))

    async def _key(self, take: _Take, part: Part) -> Any:
        """What the files count for."""
        if isinstance(take.source, Context):
            return await self._files.key(take.source, part)
        if take.source is not None and not take.key:
            return await self._files.tree_key(take.source, part)
        return part.wish()

    def _part(self, one: ast.Copy, take: _Take, source: int, *, into: bool) -> Part:
        return Part(
            source=source,
            words=take.words,
            is_directory=into,
            parents=one.parents,
            exclude=one.exclude,
            unpack=take.unpack,
        )

    async def _takes(
        self,
        state: State,
        one: ast.Copy,
        words: Expander,
        target: tuple[str, bool],
        undo: ExitStack,
    ) -> list[_Take]:
        """Everything that an instruction takes: what it names first, then documents and URLs."""
        plain: list[str] = []
        takes: list[_Take] = []
        documents = list(one.heredocs)
        for text in one.sources:
            if documents and _OPENER.fullmatch(text):
                document = documents.pop(0)
                content = document.content
                if document.expand:
                    content = expand(one, content, words.document)
                takes.append(self._document(state, document.name, content.encode(), undo))
                continue
            word = expand(one, text, words.word)
            if not word:
                raise DockerfileError(f"{one.origin.name}: a source is empty", one.origin.place)
            if isinstance(one, ast.Add) and git.is_repository(word):
                takes.append(await self._cloned(one, word))
            elif isinstance(one, ast.Add) and fetch.is_remote(word):
                takes.append(await self._fetched(one, word, target, undo))
            else:
                plain.append(word)
        if plain:
            self._check_flags(one)
            source, key = await self._source(one, words)
            unpack = one.unpack if isinstance(one, ast.Add) else False
            takes.insert(0, _Take(source, key, plain, unpack))
        return takes

    def _document(self, state: State, name: str, content: bytes, undo: ExitStack) -> _Take:
        time = self._stage.build.epoch(state) * _SECOND
        context = self._files.inline([InlineFile(name, content, 0o644, time)])
        undo.callback(context.close)
        return _Take(context, str(Digest.of(content)), [f"/{name}"])

    async def _fetched(
        self, one: ast.Add, url: str, target: tuple[str, bool], undo: ExitStack
    ) -> _Take:
        spooled = await asyncio.shield(self._fetching(url))
        found = spooled.fetched
        assert found is not None
        if one.checksum:
            wanted, has = Digest.parse(one.checksum), Digest.parse(f"sha256:{found.sha256}")
            if wanted.algorithm != "sha256":
                raise InvalidArgument(f"ADD --checksum={one.checksum[:80]}: only sha256 is checked")
            if has != wanted:
                raise DigestMismatch(f"ADD {url[:200]}: its digest is {has}, not {wanted}")
        path, into = target
        name = found.name or ("" if into else posixpath.basename(path))
        if not name or name in (".", ".."):
            raise DockerfileError(
                f"cannot determine the filename of {url[:200]}: name it in the destination",
                one.origin.place,
            )
        context = self._files.single(spooled, name, found.size, 0o600, found.modified * _SECOND)
        undo.callback(context.close)
        return _Take(context, found.sha256, [f"/{name}"], bool(one.unpack))

    async def _cloned(self, one: ast.Add, word: str) -> _Take:
        self._check_commit(one)
        return _Take(await asyncio.shield(self._cloning(one, word)), "git", ["."])

    def _cloning(self, one: ast.Add, word: str) -> asyncio.Task[Context]:
        repository, keep, commit = git.parse(word), one.keep_git_dir, one.checksum

        async def clone() -> Context:
            return await self._files.clone(repository, keep=keep, commit=commit)

        return self._stage.build.fetching(f"git {keep} {commit} {word}", clone)

    def _fetching(self, url: str) -> asyncio.Task[Context]:
        async def spool() -> Context:
            spooled = self._files.spool()
            try:
                spooled.fetched = await fetch.fetch(url, spooled.fd)
            except BaseException:
                spooled.close()
                raise
            return spooled

        return self._stage.build.fetching(f"url {url}", spool)

    def fetch_ahead(self, instructions: Iterable[ast.Instruction]) -> None:
        """Begin to fetch what instructions will want, where their words are plain: it depends on
        nothing that happens before."""
        for one in instructions:
            if not isinstance(one, ast.Add):
                continue
            for word in one.sources:
                if "$" in word or "\\" in word:
                    continue
                if git.is_repository(word):
                    with suppress(SampanError):  # which is told in its turn
                        self._check_commit(one)
                        self._cloning(one, word)
                elif fetch.is_remote(word):
                    self._fetching(word)

    def _check_commit(self, one: ast.Add) -> None:
        if one.checksum and _COMMIT.fullmatch(one.checksum) is None:
            raise DockerfileError(
                "the checksum of a git repository is the whole id of a commit", one.origin.place
            )

    def _check_flags(self, one: ast.Copy) -> None:
        if isinstance(one, ast.Add) and one.checksum:
            raise DockerfileError(
                "checksum can't be specified for sources that are no URL", one.origin.place
            )

    async def _source(self, one: ast.Copy, words: Expander) -> tuple[Context | Mount | None, str]:
        """Where files come from, and what that counts as in the key."""
        name = expand(one, one.from_, words.word)
        return await self._stage.build.source(name, self._stage)

    def _missing(self, one: ast.Copy, word: str) -> InvalidArgument:
        where = f" from {one.from_}" if one.from_ else ""
        return InvalidArgument(f"{one.origin.name} {word[:200]}{where}: there are no files")


def is_linked(one: ast.Copy, job: CopyJob) -> bool:
    """Whether the files may be made apart from what is below: the flag says so, and no user's name
    has to be looked up there."""
    return one.link and _NUMBERS.fullmatch(job.chown) is not None


def _counted(one: ast.Copy, job: CopyJob, key: list[Any]) -> list[Any]:
    """The parts of a step's key."""
    unpack = [part.unpack for part in job.parts]
    manner = [job.target, [part.is_directory for part in job.parts], job.chown, job.chmod]
    linked = ["link"] if is_linked(one, job) else []
    return ["copy", *manner, job.keep, unpack, key, *linked]
