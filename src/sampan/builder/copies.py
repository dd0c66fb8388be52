"""COPY, ADD and WORKDIR: what they take, what it is keyed by, and the copy itself."""

from __future__ import annotations

import posixpath
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from sampan.builder import fetch
from sampan.builder.configure import absolute
from sampan.builder.files.service import Context, CopyJob, Part
from sampan.builder.language import instructions as ast
from sampan.builder.language.failure import DockerfileError
from sampan.builder.scope import expand
from sampan.errors import DigestMismatch, InvalidArgument
from sampan.spec.digest import Digest

if TYPE_CHECKING:
    from sampan.builder.model import State
    from sampan.builder.stage import StageWork
    from sampan.snapshots.base import Mount

_OPENER: Final = re.compile(r"<<-?[\"']?[^<]+", re.ASCII)
_NOBODY: Final = ("", "0", "root", "0:0", "root:root")


class _Plan:
    """One COPY, worked out: words, target, and files that came with the Dockerfile or the web."""

    def __init__(self, words: list[str], target: str, *, into: bool) -> None:
        self.words = words
        self.target = target
        self.into = into
        self.inline: list[tuple[str, bytes, int]] = []
        self.modified: int | None = None


class Copies:
    """The copying instructions of one stage."""

    def __init__(self, stage: StageWork) -> None:
        self._stage = stage

    async def make_directory(self, target: str, user: str, mount: Mount) -> None:
        """The directory of a WORKDIR; it belongs to the user of the moment, as with BuildKit."""
        owner = "" if user in _NOBODY else user
        job = CopyJob(target=target, chown=owner)
        await self._stage.build.files.copy(job, mount, [])

    async def copy(self, state: State, one: ast.Copy) -> State:
        """A COPY or ADD."""
        plan = await self._plan(state, one)
        source, source_key = await self._source(one, state)
        with ExitStack() as undo:
            sources: list[Context | Mount] = []
            parts: list[Part] = []
            key: list[Any] = [source_key]
            if plan.words:
                part = self._part(one, plan, len(sources))
                if source is None:
                    raise self._missing(one, plan.words[0])
                if isinstance(source, Context):
                    key.append(await self._stage.build.files.key(source, part))
                else:
                    key.append(part.wish())
                sources.append(source)
                parts.append(part)
            if plan.inline:
                inline = self._stage.build.files.inline(plan.inline)
                undo.callback(inline.close)
                part = _inline_part(one, plan, len(sources))
                key.append(await self._stage.build.files.key(inline, part))
                key.append([str(Digest.of(content)) for _, content, _ in plan.inline])
                sources.append(inline)
                parts.append(part)
            job = self._job(one, state, plan, parts)
            return await self._carried_out(state, one, job, key, sources)

    async def _carried_out(
        self,
        state: State,
        one: ast.Copy,
        job: CopyJob,
        key: list[Any],
        sources: list[Context | Mount],
    ) -> State:
        async def work(_: str, mount: Mount) -> None:
            await self._stage.build.files.copy(job, mount, sources)

        unpack = [part.unpack for part in job.parts]
        manner = [job.target, [part.is_directory for part in job.parts], job.chown, job.chmod]
        parts = ["copy", *manner, job.keep, unpack, key]
        return await self._stage.files_step(
            state, parts, f"{one.origin.name} {one.origin.rest}", work
        )

    def _job(self, one: ast.Copy, state: State, plan: _Plan, parts: list[Part]) -> CopyJob:
        words = self._stage.words(state)
        times = plan.modified
        if times is None and plan.inline and not plan.words:
            times = self._stage.build.epoch(state)
        return CopyJob(
            target=plan.target,
            parts=parts,
            chown=expand(one, one.chown, words.word),
            chmod=expand(one, one.chmod, words.word),
            keep=bool(one.from_),
            times=None if times is None else times * 10**9,
        )

    def _part(self, one: ast.Copy, plan: _Plan, source: int) -> Part:
        return Part(
            source=source,
            words=plan.words,
            is_directory=plan.into,
            parents=one.parents,
            exclude=one.exclude,
            unpack=one.unpack if isinstance(one, ast.Add) else False,
        )

    async def _plan(self, state: State, one: ast.Copy) -> _Plan:
        words = self._stage.words(state)
        target, into = absolute(state.config, expand(one, one.target, words.word))
        plan = _Plan([], target, into=into)
        documents = list(one.heredocs)
        for text in one.sources:
            if documents and _OPENER.fullmatch(text):
                document = documents.pop(0)
                content = document.content
                if document.expand:
                    content = expand(one, content, words.document)
                plan.inline.append((document.name, content.encode(), 0o644))
                continue
            word = expand(one, text, words.word)
            if not word:
                raise DockerfileError(f"{one.origin.name}: a source is empty", one.origin.place)
            if isinstance(one, ast.Add) and fetch.is_remote(word):
                await self._fetched(one, word, plan)
            else:
                plan.words.append(word)
        if len(one.sources) > 1 and not into:
            name = one.origin.name
            raise DockerfileError(
                f"when using {name} with more than one source file, the destination must be a "
                "directory and end with a /",
                one.origin.place,
            )
        return plan

    async def _fetched(self, one: ast.Add, url: str, plan: _Plan) -> None:
        found = await fetch.fetch(url)
        if one.checksum:
            wanted = Digest.parse(one.checksum)
            if Digest.of(found.content) != wanted:
                raise DigestMismatch(
                    f"ADD {url[:200]}: its digest is {Digest.of(found.content)}, not {wanted}"
                )
        name = found.name or (posixpath.basename(plan.target) if not plan.into else "")
        if not name:
            raise DockerfileError(
                f"cannot determine the filename of {url[:200]}: name it in the destination",
                one.origin.place,
            )
        plan.inline.append((name, found.content, 0o600))
        plan.modified = found.modified

    async def _source(self, one: ast.Copy, state: State) -> tuple[Context | Mount | None, str]:
        """Where files come from, and what that counts as in the key."""
        name = expand(one, one.from_, self._stage.words(state).word)
        if (
            isinstance(one, ast.Add)
            and one.checksum
            and not any(fetch.is_remote(word) for word in one.sources)
        ):
            raise DockerfileError(
                "checksum can't be specified for sources that are no URL", one.origin.place
            )
        return await self._stage.build.source(name, self._stage)

    def _missing(self, one: ast.Copy, word: str) -> InvalidArgument:
        where = f" from {one.from_}" if one.from_ else ""
        return InvalidArgument(f"{one.origin.name} {word[:200]}{where}: there are no files")


def _inline_part(one: ast.Copy, plan: _Plan, source: int) -> Part:
    return Part(
        source=source,
        words=[f"/{name}" for name, _, _ in plan.inline],
        is_directory=plan.into,
        unpack=bool(isinstance(one, ast.Add) and one.unpack),
    )
