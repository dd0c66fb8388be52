"""The builder's front: a Dockerfile and a context become an image.

One `Builder` belongs to one engine. `build` receives the context, reads the Dockerfile, carries it
out under one lease, and gives the image its names at the very end: a build that fails or is
cancelled leaves cached results and nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sampan.builder import git, leftovers, platforms, provenance, sbom
from sampan.builder.cache import Cache
from sampan.builder.commands import Commands
from sampan.builder.exchange import Exchange
from sampan.builder.exporting import Exporter
from sampan.builder.files.service import CopyJob, FileWork, Part, open_tree
from sampan.builder.files.sources import Sources, Synced
from sampan.builder.graph import Build
from sampan.builder.language import lint
from sampan.builder.language.ignore import Ignore, read_patterns
from sampan.builder.language.stages import plan
from sampan.builder.model import BuildResult
from sampan.builder.runmounts import RunMounts
from sampan.builder.secrets import Vault
from sampan.builder.upkeep import Upkeep
from sampan.errors import InvalidArgument, NotImplementedHere
from sampan.images.failures import one_error
from sampan.spec.reference import Reference

if TYPE_CHECKING:
    from typing import Self

    from sampan.builder.files.service import Context
    from sampan.builder.files.sources import Comparison
    from sampan.builder.language.stages import Program
    from sampan.builder.model import BuildOptions, CacheEntry, PrunedCache, Report, State
    from sampan.engine.engine import Engine
    from sampan.images.model import Image

Content = AsyncIterator[bytes] | str | Synced
"""Where a context comes from: an archive, a URL, or what is missing of a directory."""

IGNORE = ".dockerignore"
_PIECE = 1 << 20
_EXTRA = re.compile(r"\.dockerfile\.[0-9a-f]{10,40}")
"""A Dockerfile that a client put into the context, because it lies elsewhere."""


@dataclass(frozen=True, slots=True)
class _Work:
    """One request, read. `before` counts the steps that were carried out for other platforms,
    `label` says for which this is, where there are several."""

    program: Program
    context: Context
    options: BuildOptions
    tags: list[Reference]
    text: bytes
    before: int = 0
    label: str = ""


class Builder:
    """Builds with one engine, and keeps its cache."""

    @classmethod
    async def open(cls, engine: Engine) -> Self:
        """A builder for `engine`; what builds of an engine that was killed left is removed."""
        builder = cls(engine)
        for container in engine.list(all=True, owner=leftovers.OWNER):
            await engine.remove(container.id, force=True)
        config = engine.services.config
        if config.build_cache_unused_for or config.build_cache_max_size:
            house = builder._upkeep.keep_house(
                config.build_cache_unused_for, config.build_cache_max_size
            )
            engine.services.background.spawn(house, "keep the build cache within its bounds")
        return builder

    def __init__(self, engine: Engine) -> None:
        """For `open`."""
        self._engine = engine
        services = engine.services
        directory = leftovers.place(engine)
        os.makedirs(directory, 0o700, exist_ok=True)
        git.sweep(directory)
        self._files = FileWork(directory)
        self._sources = Sources(os.path.join(directory, "sources"), self._files)
        self._cache = Cache(services)
        self._upkeep = Upkeep(services, self._sources)
        self._exporter = Exporter(engine, self._cache, self._files)
        self._exchange = Exchange(engine, self._exporter)
        self._commands = Commands(engine)
        vault = Vault(services.layout.state)
        vault.sweep()
        self._mounts = RunMounts(services, self._files, vault)
        engine.at_close(self._close)

    async def _close(self) -> None:
        self._sources.close()
        await self._files.aclose()

    async def build(
        self,
        content: Content,
        options: BuildOptions,
        report: Report,
        *,
        dockerfile: bytes | None = None,
    ) -> BuildResult:
        """Build from the tar `content`, or from the URL of one or of a git repository; the
        Dockerfile is in it, or given.

        Raises:
            DockerfileError: the Dockerfile is wrong; the message says where.
            CommandFailed: a command did not succeed.
            InvalidArgument: a file is missing, a name is wrong.
        """
        tags = [_reference(tag) for tag in options.tags]
        with ExitStack() as undo:
            context = await self._received(content, options, undo)
            context.hidden = hidden(context, options)
            options = _with_epoch(options)
            program = plan(_dockerfile(context, options, dockerfile), _shown(options))
            async with self._engine.images.lease() as lease:
                with one_error("build"):
                    text = _dockerfile(context, options, dockerfile)
                    work = _Work(program, context, options, tags, text)
                    try:
                        return await self._carried_out(work, report, lease)
                    finally:
                        self._upkeep.stir()

    async def _received(self, content: Content, options: BuildOptions, undo: ExitStack) -> Context:
        """The context of a build, with the texts that say how."""
        names = [options.dockerfile, IGNORE, f"{options.dockerfile}{IGNORE}"]
        if isinstance(content, str):
            keep_git = options.args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR") in ("1", "true")
            context = await self._files.remote(content, names, keep_git=keep_git)
        elif isinstance(content, Synced):
            context = await self._sources.merge(content, names)
        else:
            context = await self._files.receive(content, names)
        undo.callback(context.close)
        return context

    async def receive(self, content: AsyncIterator[bytes]) -> Context:
        """Take a tar that a later build gets as one of its named contexts; the caller's to close.

        Raises:
            InvalidArgument: it is no sound tar.
        """
        return await self._files.receive(content, ())

    async def compare(self, key: str, manifest: AsyncIterator[bytes]) -> Comparison:
        """What of a directory is missing here; see `files.sync`. The caller closes it, or builds.

        Raises:
            InvalidArgument: the manifest is malformed.
        """
        return await self._sources.compare(key, manifest)

    async def document(self, where: str) -> bytes | None:
        """The text at a URL, None when an archive is there."""
        return await self._files.document(where)

    async def check(
        self,
        content: Content,
        options: BuildOptions,
        *,
        dockerfile: bytes | None = None,
    ) -> lint.Checked:
        """What is allowed in a Dockerfile and probably wrong. Builds nothing.

        Raises:
            DockerfileError: it is malformed.
        """
        with ExitStack() as undo:
            context = await self._received(content, options, undo)
            program = plan(_dockerfile(context, options, dockerfile), _shown(options))
            program.target(options.target)
            return lint.check(program, ignore_of(context, options), frozenset(options.args))

    async def _carried_out(self, work: _Work, report: Report, lease: str) -> BuildResult:
        """Carry out the Dockerfile for every platform, and name what came out."""
        found = platforms.parse(work.options.platform, self._engine.images.platform)
        if len(found) == 1:
            return await self._one(work, report, lease, work.tags)
        _check_several(work.options)
        done: list[BuildResult] = []
        for platform in found:
            options = replace(work.options, platform=str(platform))
            before = sum(result.total for result in done)
            one = replace(work, options=options, before=before, label=str(platform))
            done.append(await self._one(one, report, lease, []))
        images = tuple(result.image for result in done)
        own = self._engine.images.platform
        return replace(
            next((one for one in done if one.image.config.platform == own), done[0]),
            warnings=tuple(dict.fromkeys(text for one in done for text in one.warnings)),
            steps=sum(one.steps for one in done),
            cached=sum(one.cached for one in done),
            target=await self._engine.images.create_index(images, work.tags, lease=lease),
            images=images,
        )

    async def _one(
        self, work: _Work, report: Report, lease: str, tags: list[Reference]
    ) -> BuildResult:
        build = Build(
            engine=self._engine,
            files=self._files,
            cache=self._cache,
            commands=self._commands,
            run_mounts=self._mounts,
            program=work.program,
            options=work.options,
            context=work.context,
            report=report,
            lease=lease,
            place=(work.before, work.label),
        )
        await self._exchange.load(build)
        try:
            state = await build.run(work.program.target(work.options.target))
        finally:
            build.close()
        image, names = await self._exported(build, state, tags)
        unused = build.globals.unused()
        if unused:
            build.warn(f"[Warning] One or more build-args {_listed(unused)} were not consumed")
        return BuildResult(
            image=image,
            target=image.target,
            images=(image,),
            total=build.total - work.before,
            warnings=tuple(build.warnings),
            steps=sum(work.executed for work in build.works),
            cached=sum(work.cached for work in build.works),
            cache_names=tuple(names),
            provenance=_provenance(build, image, tags, work.text),
        )

    async def _exported(
        self, build: Build, state: State, tags: list[Reference]
    ) -> tuple[Image, list[str]]:
        """The image, and the names of images that were made for caches."""
        options = build.options
        notes = self._exchange.annotations(state) if options.cache_inline else None
        if notes and options.squash:
            raise InvalidArgument("build: a squashed image has no layers for an inline cache")
        image = await self._exporter.image(
            state, tags, build.lease, squash=options.squash, annotations=notes
        )
        names = await self._exchange.save(
            build, state, options.cache_to, every_stage=options.cache_every_stage
        )
        return image, names

    async def sbom(self, ref: str) -> bytes:
        """What is installed in an image, as SPDX.

        Raises:
            ImageNotFound: it is not here.
        """
        image = await self._engine.images.get(ref)
        snapshots = self._engine.services.snapshots
        if image.chain_id and not snapshots.has(image.chain_id):
            image = await self._engine.images.unpack(ref)
        texts: dict[str, bytes] = {}
        if image.chain_id:
            tree = snapshots.tree(image.chain_id)
            texts = await self._files.texts(tree, sbom.FILES, sbom.DIRECTORIES)
        created = image.created[:19] + "Z" if image.created else "1970-01-01T00:00:00Z"
        return sbom.document(ref, str(image.target.digest), created, texts)

    async def export_volume(self, name: str) -> AsyncIterator[bytes]:
        """A volume's files as a compressed tar, with owners, modes and times.

        Raises:
            VolumeNotFound: there is no such volume.
        """
        volume = self._engine.volumes.get(name)
        undo = ExitStack()
        try:
            undo.enter_context(self._engine.volumes.held(name, "an export"))
            out = self._files.scratch(undo)
            tree = open_tree({"type": "bind", "source": volume.path}, undo)
            await self._files.difference(out, [tree], None)
        except BaseException:
            undo.close()
            raise
        return _pieces(out, undo)

    async def import_volume(self, name: str, content: AsyncIterator[bytes]) -> None:
        """Put the files of a tar into a volume, which is made when it is not there.

        Raises:
            InvalidArgument: it is no sound tar, or the name is impossible.
        """
        context = await self._files.receive(content, ())
        with closing(context):
            volume = await self._engine.volumes.create(name)
            with self._engine.volumes.held(name, "an import"):
                parent, _, last = volume.path.rpartition("/")
                part = Part(source=0, words=["."], is_directory=True)
                job = CopyJob(target=f"/{last}", parts=[part], keep=True)
                await self._files.copy(job, {"type": "bind", "source": parent}, [context])

    async def usage(self) -> list[CacheEntry]:
        """What the cache holds; see `Upkeep.usage`."""
        return await self._upkeep.usage()

    async def prune(self, *, before_ns: int | None = None, keep: int = 0) -> PrunedCache:
        """Remove cached results; see `Upkeep.prune`."""
        return await self._upkeep.prune(before_ns=before_ns, keep=keep)


async def _pieces(fd: int, undo: ExitStack) -> AsyncIterator[bytes]:
    """A file from its beginning; `undo` is closed behind it."""
    with undo:
        at = 0
        while piece := os.pread(fd, _PIECE, at):
            at += len(piece)
            yield piece


def _provenance(build: Build, image: Image, tags: list[Reference], text: bytes) -> bytes:
    """How the image was made, when somebody asked."""
    if not build.options.provenance:
        return b""
    names = [tag.familiar() for tag in tags]
    return provenance.statement(build, image, names, text)


def _check_several(options: BuildOptions) -> None:
    """Refuse what has one meaning for one platform only."""
    if options.cache_to or options.provenance:
        what = "--cache-to other than inline" if options.cache_to else "provenance"
        raise NotImplementedHere(
            f"build for {options.platform[:80]}: {what} is for one platform at a time"
        )


def _reference(text: str) -> Reference:
    name = Reference.parse(text)
    if name.digest is not None:
        raise InvalidArgument(f"invalid tag {text[:160]!r}: refusing to create a digest reference")
    return name.with_default_tag()


def _with_epoch(options: BuildOptions) -> BuildOptions:
    """SOURCE_DATE_EPOCH given as an argument is the epoch."""
    text = options.args.get("SOURCE_DATE_EPOCH")
    if text is None or options.epoch is not None:
        return options
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise InvalidArgument(f"SOURCE_DATE_EPOCH must be seconds since 1970, not {text[:40]!r}")
    return replace(options, epoch=int(text))


def _dockerfile(context: Context, options: BuildOptions, given: bytes | None) -> bytes:
    if given is not None:
        return given
    found = context.texts.get(options.dockerfile)
    if found is None:
        raise InvalidArgument(f"Cannot locate specified Dockerfile: {options.dockerfile[:200]}")
    return found


def _listed(names: list[str]) -> str:
    return "[" + " ".join(names) + "]"


def hidden(context: Context, options: BuildOptions) -> tuple[str, ...]:
    """Which of the files that are always sent the ignore file keeps out of COPY."""
    ignore = ignore_of(context, options)
    names = [options.dockerfile, f"{options.dockerfile}{IGNORE}", IGNORE]
    foreign = names[:2] if _EXTRA.fullmatch(options.dockerfile) else ()
    return tuple(
        name for name in names if name in foreign or (ignore is not None and ignore.excludes(name))
    )


def ignore_of(context: Context, options: BuildOptions) -> Ignore | None:
    """The patterns that the context was sent by."""
    text = context.texts.get(f"{options.dockerfile}{IGNORE}") or context.texts.get(IGNORE)
    return None if text is None else Ignore(read_patterns(text))


def _shown(options: BuildOptions) -> str:
    """The Dockerfile's name for messages."""
    return "Dockerfile" if _EXTRA.fullmatch(options.dockerfile) else options.dockerfile
