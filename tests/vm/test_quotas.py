"""`--storage-opt size=` on file systems that keep project quotas, by a whole engine."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from enginelab import Lab
from sampan.engine.model import HostConfig

pytestmark = pytest.mark.skipif(not os.environ.get("SAMPAN_VM"), reason="for the virtual machine")
MAKE = {
    "xfs": ["mkfs.xfs", "-q"],
    "ext4": ["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"],
}


@pytest.fixture(params=sorted(MAKE))
def disk(request: pytest.FixtureRequest, tmp_path: Path):
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([*MAKE[request.param], str(image)], check=True)
    subprocess.run(["mount", "-o", "loop,prjquota", image, place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_size_is_kept(disk: Path):
    lab = Lab(disk)
    # head of busybox does not say why it could not write, cat does.
    write = (
        "head -c 4194304 /dev/zero > /dev/shm/4m; cat /dev/shm/4m > /big; echo code $?; "
        "rm /big; echo again > /small"
    )

    async def test() -> None:
        async with lab.engine() as engine:
            sized = HostConfig(storage_opt={"size": "2m"})
            for _ in range(2):  # the second has another project, and no remains of the first
                code, output = await lab.run(engine, "sh", "-c", write, host=sized)
                assert code == 0, output
                assert "code 1" in output
                assert "No space left" in output or "quota exceeded" in output, output
            assert "code 0" in (await lab.run(engine, "sh", "-c", write))[1]
            larger = HostConfig(storage_opt={"size": "8m"})
            assert "code 0" in (await lab.run(engine, "sh", "-c", write, host=larger))[1]
            read_only = HostConfig(storage_opt={"size": "2m"}, read_only=True)
            assert (await lab.run(engine, "true", host=read_only))[0] == 0

    asyncio.run(test())
    lab.check_clean()
