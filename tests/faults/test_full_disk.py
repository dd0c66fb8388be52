"""A disk without a byte left: containers live and end as they should, and removing still works."""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from enginelab import PATIENCE, Lab, eventually, needs_root, shims_running
from sampan.engine.model import ExecConfig, WaitCondition
from sampan.errors import SampanError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sampan.engine.engine import Engine

pytestmark = needs_root


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab whose root is a file system of its own; the state is elsewhere, as /run is."""
    (tmp_path / "root").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "none", str(tmp_path / "root")]
    subprocess.run(mount, check=True)
    made = Lab(tmp_path)
    yield made
    try:
        made.check_clean()
        made.close()
    finally:
        subprocess.run(["umount", str(tmp_path / "root")], check=True)


def fill(path: Path) -> None:
    """Take every byte."""
    fd = os.open(path / "root/ballast", os.O_WRONLY | os.O_CREAT)
    try:
        for size in (1 << 20, 4096, 512, 1):
            try:
                while True:
                    os.write(fd, b"x" * size)
            except OSError:
                continue
    finally:
        os.close(fd)


async def create_many(lab: Lab, engine: Engine) -> None:
    """More than a full disk has room for, in pages that were allocated before."""
    for _ in range(200):
        await engine.create(lab.config_of("true"))


def test_containers_survive_a_full_disk(lab: Lab) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE), lab.engine() as engine:
            script = "while [ ! -e /dev/shm/go ]; do sleep 0.02; done; echo lost; exit 23"
            made = await engine.create(lab.config_of("sh", "-c", script))
            other = await engine.create(lab.config_of("sleep", "1000"))
            await engine.start(made.id)
            await engine.start(other.id)
            fill(lab.path)
            with pytest.raises(SampanError, match=r"full|space") as caught:
                await create_many(lab, engine)
            assert str(lab.path) in str(caught.value)
            # Nothing of the failed ones is there, and what runs can be used.
            ran = await engine.exec_create(other.id, ExecConfig(command=("sh", "-c", "exit 4")))
            await engine.exec_start(ran)
            assert await engine.exec_wait(ran) == 4
            ended = engine.arm_wait(other.id, WaitCondition.NEXT_EXIT)
            await engine.kill(other.id)
            assert (await ended).exit_code == 137
            ran = await engine.exec_create(made.id, ExecConfig(command=("touch", "/dev/shm/go")))
            ended = engine.arm_wait(made.id, WaitCondition.NEXT_EXIT)
            await engine.exec_start(ran)
            assert (await ended).exit_code == 23
            await engine.remove(other.id)
            for container in engine.list(all=True):
                await engine.remove(container.id, force=True)
            os.unlink(lab.path / "root/ballast")
            code, text = await lab.run(engine, "echo", "again")
            assert (code, text) == (0, "again\n")
        async with asyncio.timeout(20):
            await eventually(lambda: shims_running(str(lab.path)) == [])

    asyncio.run(main())
