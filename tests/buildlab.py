"""Builds for tests: a builder over an engine of its own, contexts as dictionaries, looks at images.

`@with_builder` turns `async def test(lab)` into a test with a base image `bb:1` of busybox; behind
it nothing may be left but what is asked for again: no container, no mount, no snapshot.
"""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from typing import TYPE_CHECKING

from enginelab import PATIENCE, Lab, eventually, needs_root, shims_running
from sampan.builder.builder import Builder
from sampan.builder.model import BuildOptions, NoteKind
from sampan.engine.model import ContainerConfig, HostConfig, WaitCondition

if TYPE_CHECKING:
    from pathlib import Path

TIME = 1_600_000_000


async def once(data):
    """Bytes as a stream."""
    yield data


def context(files, **attributes):
    """A tar: name -> text, bytes, None (a directory), ("link", target) or a TarInfo."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in files.items():
            entry, data = _entry(name, content)
            for key, value in attributes.items():
                setattr(entry, key, value)
            tar.addfile(entry, data)
    return target.getvalue()


def _entry(name, content):
    entry = tarfile.TarInfo(name)
    entry.mtime, entry.mode = TIME, 0o644
    if isinstance(content, tarfile.TarInfo):
        return content, None
    if content is None:
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        return entry, None
    if isinstance(content, tuple):
        kinds = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}
        entry.type, entry.linkname = kinds[content[0]], content[1]
        return entry, None
    data = content.encode() if isinstance(content, str) else content
    entry.size = len(data)
    return entry, io.BytesIO(data)


class BuildLab:
    """One builder, and what it said."""

    def __init__(self, lab, engine, builder):
        self.lab = lab
        self.engine = engine
        self.builder = builder
        self.notes = []

    async def build(self, dockerfile, files=None, **options):
        """Build; the result."""
        self.notes = []
        tar = context({"Dockerfile": dockerfile, **(files or {})})
        options.setdefault("tags", ("t:1",))
        options.setdefault("host", HostConfig())
        return await self.builder.build(once(tar), BuildOptions(**options), self.notes.append)

    @property
    def output(self):
        """What commands printed."""
        return "".join(note.text for note in self.notes if note.kind is NoteKind.OUTPUT)

    async def run(self, *command, image="t:1", user=""):
        """Run a command in an image: what it printed."""
        made = await self.engine.create(
            ContainerConfig(image=image, entrypoint=(), command=command, user=user)
        )
        try:
            ended = self.engine.arm_wait(made.id, WaitCondition.NEXT_EXIT)
            await self.engine.start(made.id)
            await ended
            return await self.lab.output(self.engine, made.id)
        finally:
            await self.engine.remove(made.id, force=True)

    async def sh(self, script, **more):
        """Run a shell script in the image."""
        return await self.run("/bin/sh", "-c", script, **more)


def with_builder(test):
    """A test of one builder, with the check for leaks behind it."""

    def run(tmp_path: Path) -> None:
        lab = Lab(tmp_path)

        async def main() -> None:
            async with asyncio.timeout(PATIENCE), lab.engine() as engine:
                await engine.images.import_tar(once(root_of(lab)), "bb:1")
                builder = await Builder.open(engine)
                try:
                    await test(BuildLab(lab, engine, builder))
                    assert engine.list(all=True, owner="builder") == []
                finally:
                    await clean(engine, builder)
                async with asyncio.timeout(20):
                    await eventually(lambda: os.listdir(tmp_path / "root/snapshots") == [])
            async with asyncio.timeout(20):
                await eventually(lambda: shims_running(str(tmp_path)) == [])

        try:
            asyncio.run(main())
            lab.check_clean()
            with open("/proc/self/mountinfo") as mounts:
                assert str(tmp_path) not in mounts.read()
        finally:
            lab.close()

    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    return needs_root(run)


def root_of(lab):
    """The tar of the base image."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name in ("proc", "sys", "dev", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        tar.add(lab.rootfs, ".")
    return target.getvalue()


async def clean(engine, builder):
    """Remove everything."""
    for container in [*engine.list(all=True), *engine.list(all=True, owner="builder")]:
        await engine.remove(container.id, force=True)
    await builder.prune()
    for image in await engine.images.list():
        await engine.images.remove(str(image.id), force=True)
