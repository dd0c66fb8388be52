"""How the build cache becomes smaller: what is told is what the disk has more."""

from __future__ import annotations

import asyncio
import os
from itertools import pairwise

import pytest

from buildlab import BuildLab, clean, once, root_of, with_builder
from enginelab import PATIENCE, Lab, eventually, needs_root
from sampan.builder.builder import Builder
from sampan.builder.failures import CommandFailed

MEGABYTE = 1_000_000
NOISE = "dd if=/dev/urandom of=/{} bs=1000 count=1000 2>/dev/null"
SLACK = 100_000


def on_disk(lab: BuildLab) -> int:
    """What the snapshots take, as du counts."""
    total = 0
    for folder, _, names in os.walk(lab.lab.path / "root/snapshots"):
        for name in [*names, "."]:
            total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


async def fill(lab: BuildLab, *names: str) -> None:
    """Results of a megabyte each that no image has."""
    for name in names:
        with pytest.raises(CommandFailed):
            await lab.build(f"FROM bb:1\nRUN {NOISE.format(name)}\nRUN false\n")


@with_builder
async def test_what_is_told_is_what_the_disk_has_more(lab: BuildLab) -> None:
    empty = on_disk(lab)
    await fill(lab, "one", "two", "three")
    usage = await lab.builder.usage()
    counted = sum(entry.size for entry in usage)
    assert [entry.shared for entry in usage] == [False] * 3
    assert abs(counted - (on_disk(lab) - empty)) < SLACK
    assert [a.used_ns < b.used_ns for a, b in pairwise(usage)] == [True, True]
    await fill(lab, "one")  # used again, so it is the youngest
    before = on_disk(lab)
    done = await lab.builder.prune(keep=2 * MEGABYTE + SLACK)
    assert len(done.ids) == 1
    assert "two" in usage[1].title
    assert done.ids == (usage[1].id,)
    await eventually(lambda: abs(before - on_disk(lab) - done.reclaimed) < SLACK)
    assert abs(done.reclaimed - MEGABYTE) < SLACK
    again = await lab.builder.prune(keep=2 * MEGABYTE + SLACK)
    assert (again.ids, again.reclaimed) == ((), 0)


@with_builder
async def test_layers_of_images_count_for_nothing(lab: BuildLab) -> None:
    await lab.build(f"FROM bb:1\nRUN {NOISE.format('image')}\n")
    await fill(lab, "loose")
    before = on_disk(lab)
    assert (await lab.builder.prune(keep=MEGABYTE + SLACK)).ids == ()
    done = await lab.builder.prune()
    assert len(done.ids) == 2
    assert abs(done.reclaimed - MEGABYTE) < SLACK
    await eventually(lambda: abs(before - on_disk(lab) - done.reclaimed) < SLACK)
    assert await lab.sh("wc -c < /image") == "1000000\n"


@with_builder
async def test_what_was_used_lately_stays(lab: BuildLab) -> None:
    await fill(lab, "old")
    moment = (await lab.builder.usage())[0].used_ns + 1
    await fill(lab, "new")
    assert len((await lab.builder.prune(before_ns=moment)).ids) == 1
    assert "new" in (await lab.builder.usage())[0].title


@needs_root
def test_a_cache_keeps_itself_within_its_bounds(tmp_path):
    lab = Lab(tmp_path)

    async def main() -> None:
        bounds = {"build_cache_max_size": MEGABYTE + SLACK, "build_cache_unused_for": 3600}
        async with asyncio.timeout(PATIENCE), lab.engine(**bounds) as engine:
            await engine.images.import_tar(once(root_of(lab)), "bb:1")
            builder = await Builder.open(engine)
            made = BuildLab(lab, engine, builder)
            await fill(made, "one", "two", "three")

            async def titles() -> list[str]:
                return [entry.title for entry in await builder.usage()]

            async with asyncio.timeout(PATIENCE):
                while len(await titles()) > 1:  # noqa: ASYNC110 - no event tells it
                    await asyncio.sleep(0.02)
            assert "three" in (await titles())[0]
            await clean(engine, builder)

    try:
        asyncio.run(main())
    finally:
        lab.close()
