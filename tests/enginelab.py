"""Engines for tests: a root of their own, a root file system of busybox, and a check for leaks.

`@with_engine` turns `async def test(lab, engine)` into a test; afterwards nothing may be left: no
cgroup, no shim, no process of ours, no directory of a snapshot or container.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sampan.engine.config import EngineConfig
from sampan.engine.engine import Engine
from sampan.engine.model import Container, ContainerConfig, HostConfig, LogQuery, WaitCondition
from sampan.kernel import cgroups

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

BUSYBOX = "/bin/busybox"
APPLETS = (
    "sh true false sleep cat echo ls id env hostname kill head yes ps mkdir touch stty grep".split()
)
PATIENCE = 60.0

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists(BUSYBOX), reason="needs root and busybox-static"
)


def make_rootfs(path: Path) -> str:
    """A root file system of one static binary."""
    (path / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, path / "bin/busybox")
    for name in APPLETS:
        (path / "bin" / name).symlink_to("busybox")
    (path / "bin/unexecutable").write_text("#!/bin/sh\n")
    (path / "etc").mkdir()
    (path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nbob:x:1001:1002::/home/bob:\n")
    (path / "etc/group").write_text("root:x:0:\nbob:x:1002:\nextra:x:1003:bob\n")
    return str(path)


class Lab:
    """One root and state directory, and the engines that are opened over them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rootfs = make_rootfs(path / "rootfs")
        self.parent = f"/sampan-test/e{os.getpid()}-{time.monotonic_ns()}"
        self.config = EngineConfig(
            root=str(path / "root"),
            state=str(path / "state"),
            cgroup_parent=self.parent,
            cdi_directories=(str(path / "cdi"),),
            hooks_directories=(str(path / "hooks"), str(path / "more-hooks")),
        )

    @asynccontextmanager
    async def engine(self, **changes: object) -> AsyncIterator[Engine]:
        """An engine over this root, closed at the end; containers may run on."""
        engine = await Engine.open(replace(self.config, **changes))
        try:
            yield engine
        finally:
            await engine.aclose()

    def config_of(self, *command: str, **more: object) -> ContainerConfig:
        """A container of this lab's root file system, with an overlay above it."""
        return ContainerConfig(rootfs=f"{self.rootfs}:O", command=command, **more)

    async def run(
        self, engine: Engine, *command: str, host: HostConfig | None = None, **more: object
    ) -> tuple[int, str]:
        """Create, start, wait, read the log, remove: exit code and output."""
        made = await engine.create(self.config_of(*command, **more), host)
        try:
            ended = engine.arm_wait(made.id, WaitCondition.NEXT_EXIT)
            await engine.start(made.id)
            result = await ended
            return result.exit_code, await self.output(engine, made.id)
        finally:
            await engine.remove(made.id, force=True)

    async def output(self, engine: Engine, ref: str, query: LogQuery | None = None) -> str:
        """What the log holds."""
        return b"".join([record.data async for record in engine.logs(ref, query)]).decode()

    def spawn(self, script: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Another process with this lab's paths: `lab` is a dict of them in the script."""
        values = {"root": self.config.root, "state": self.config.state, "parent": self.parent}
        head = f"lab = {values!r}\nrootfs = {self.rootfs!r}\n"
        return subprocess.Popen([sys.executable, "-c", head + script, *arguments])

    def shims(self) -> list[str]:
        """The ids of shims that have a directory."""
        return sorted(os.listdir(self.path / "state/shims"))

    def pids(self, container: Container) -> list[int]:
        """The processes in a container's cgroup."""
        cgroup = cgroups.manager(f"{self.parent}/{container.id}")
        return cgroup.pids() if cgroup.exists() else []

    def check_clean(self) -> None:
        """Nothing is left of any container."""
        assert self.shims() == []
        for folder in ("containers", "snapshots"):
            assert os.listdir(self.path / "root" / folder) == []
        assert self.cgroups() == []
        assert shims_running(str(self.path)) == []

    def cgroups(self) -> list[str]:
        """Cgroups of containers below this lab's parent."""
        found = []
        for tree in os.listdir("/sys/fs/cgroup"):
            path = f"/sys/fs/cgroup/{tree}{self.parent}"
            if os.path.isdir(path):
                found += [entry.path for entry in os.scandir(path) if entry.is_dir()]
        return found

    def close(self) -> None:
        """Remove the empty parents in every hierarchy."""
        for tree in os.listdir("/sys/fs/cgroup"):
            try:
                os.rmdir(f"/sys/fs/cgroup/{tree}{self.parent}")
            except OSError:
                continue


def shims_running(path: str) -> list[int]:
    """Processes that hold a descriptor below `path`: shims of a lab have their directory open."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        try:
            links = [os.readlink(f"/proc/{name}/fd/{fd}") for fd in os.listdir(f"/proc/{name}/fd")]
        except OSError:
            continue
        if any(link.startswith(path) for link in links):
            found.append(int(name))
    return found


async def eventually(condition: Callable[[], bool], patience: float = 30.0) -> None:
    """Wait for something that another process brings about; fails after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


def with_engine(
    test: Callable[[Lab, Engine], Awaitable[None]],
) -> Callable[[Path], None]:
    """A test of one engine, with the check for leaks behind it."""

    def run(tmp_path: Path) -> None:
        lab = Lab(tmp_path)

        async def main() -> None:
            async with asyncio.timeout(PATIENCE), lab.engine() as engine:
                try:
                    await test(lab, engine)
                finally:
                    for container in engine.list(all=True):
                        await engine.remove(container.id, force=True)
            async with asyncio.timeout(20):
                await eventually(lambda: shims_running(str(tmp_path)) == [])

        try:
            asyncio.run(main())
            lab.check_clean()
        finally:
            lab.close()

    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    return needs_root(run)
