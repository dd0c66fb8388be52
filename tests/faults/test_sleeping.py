"""A new engine and shims that sleep: nobody is woken for its sake, and nothing is missed for it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from enginelab import Lab, eventually, needs_root, shims_running
from sampan.engine.model import ExecConfig, Status, WaitCondition
from sampan.kernel import machine
from sampan.tasks.recovery import LOST

if TYPE_CHECKING:
    from sampan.engine.engine import Engine

pytestmark = [
    needs_root,
    pytest.mark.skipif(not machine.is_available(), reason="there are no keepers on this machine"),
]
NAMES = ("asked", "killed", "orphan", "stopped")


async def begin(lab: Lab) -> None:
    """Quiet containers, and an engine that leaves."""
    async with lab.engine() as engine:
        for name in NAMES:
            await engine.create(lab.config_of("sleep", "1000"), name=name)
            await engine.start(name)


def keeper_of(engine: Engine, name: str) -> int:
    status = Path(f"/proc/{engine.get(name).state.pid}/status").read_text()
    return int(status.partition("PPid:")[2].split()[0])


def test_a_new_engine_wakes_nobody_and_misses_nothing(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    shims = str(tmp_path / "state/shims")

    async def check(engine: Engine) -> None:
        assert {one.status for one in engine.list()} == {Status.RUNNING}
        # What a launch sent lies unread: only who is awake has the shim's directory open.
        assert shims_running(shims) == []
        ends = {name: engine.arm_wait(name, WaitCondition.NEXT_EXIT) for name in NAMES}
        os.kill(engine.get("killed").state.pid, signal.SIGKILL)
        assert ((await ends["killed"]).exit_code, (await ends["killed"]).error) == (137, "")
        os.kill(keeper_of(engine, "orphan"), signal.SIGKILL)
        assert (await ends["orphan"]).error == LOST
        assert shims_running(shims) == []
        asked = await engine.exec_create("asked", ExecConfig(command=("sh", "-c", "exit 3")))
        await engine.exec_start(asked)
        assert await engine.exec_wait(asked) == 3
        assert len(shims_running(shims)) == 2  # the keeper has taken its launch, and has a monitor
        await engine.stop("stopped", 0)
        assert (await ends["stopped"]).exit_code == 137
        for name in NAMES:
            await engine.remove(name, force=True)

    async def main() -> None:
        await begin(lab)
        async with asyncio.timeout(60), lab.engine() as engine:
            await check(engine)
        await eventually(lambda: shims_running(str(tmp_path)) == [])

    try:
        asyncio.run(main())
        lab.check_clean()
    finally:
        lab.close()
