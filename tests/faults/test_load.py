"""Many lives at once, with shims killed in between: every end is told, and nothing is left.

`SAMPAN_LIVES` makes it longer: the default is for the suite, 1000 for an evening.
"""

from __future__ import annotations

import asyncio
import os
import random

from enginelab import Lab, with_engine
from sampan.engine.engine import Engine
from sampan.engine.model import WaitCondition
from sampan.errors import SampanError
from sampan.tasks.recovery import LOST_CODE

LIVES = int(os.environ.get("SAMPAN_LIVES", "100"))
AT_ONCE = 8


def shim_of(pid: int) -> int:
    """The parent of a container's first process."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        parent = int(file.read().rpartition(")")[2].split()[1])
    with open(f"/proc/{parent}/comm", encoding="ascii") as file:
        if file.read() != "sampan-shim\n":
            raise ProcessLookupError(parent)
    return parent


async def live(lab: Lab, engine: Engine, number: int, chance: random.Random) -> None:
    """One life: its name is free again at once, its code is never lost."""
    name = f"life-{number % AT_ONCE}"
    made = await engine.create(lab.config_of("sh", "-c", "sleep 0.02; exit 7"), name=name)
    ended = engine.arm_wait(made.id, WaitCondition.NEXT_EXIT)
    killed = False
    try:
        await engine.start(made.id)
        pid = engine.get(made.id).state.pid
        if pid and chance.random() < 0.3:
            try:
                os.kill(shim_of(pid), 9)
                killed = True
            except (FileNotFoundError, ProcessLookupError):
                pass  # it was quicker
        code = (await ended).exit_code
        assert code == 7 or (killed and code == LOST_CODE), code
    except SampanError:
        assert killed
    finally:
        ended.cancel()
        await engine.remove(made.id, force=True)


@with_engine
async def test_many_lives_with_kills(lab: Lab, engine: Engine) -> None:
    chance = random.Random(LIVES)
    numbers = iter(range(LIVES))

    async def worker(slot: int) -> None:
        for _ in numbers:
            await live(lab, engine, slot, chance)

    async with asyncio.TaskGroup() as group:
        for slot in range(AT_ONCE):
            group.create_task(worker(slot))
    assert engine.list(all=True) == []
    destroyed = 0
    async for event in engine.events(since=1, until=2**62, filters={"event": ["destroy"]}):
        destroyed += event.action == "destroy"
        if destroyed == LIVES:
            break
