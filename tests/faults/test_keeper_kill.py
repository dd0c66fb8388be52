"""kill -9 of a keeper in front of each of its system calls, from its waking to its end.

The keeper is traced, and killed when it is about to make call number N; then N+1, until it comes to
its end. Whatever the moment: the engine hears of the container's end, with the container's own code
or as lost; with its own where the record is there; and nothing is left.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import threading
from pathlib import Path

import pytest

from enginelab import Lab, eventually, needs_root
from sampan.engine.engine import Engine
from sampan.engine.model import ExecConfig, HostConfig, WaitCondition
from sampan.errors import SampanError
from sampan.kernel import machine
from sampan.shim.exits import KEPT_EXIT
from sampan.tasks.recovery import LOST, LOST_CODE

pytestmark = [
    needs_root,
    pytest.mark.skipif(not machine.is_available(), reason="there are no keepers on this machine"),
]

SEIZE, INTERRUPT, SYSCALL, GET_INFO = 0x4206, 0x4207, 24, 0x420E
ENTRY = 1  # PTRACE_SYSCALL_INFO_ENTRY
ALL_THREADS = 0x40000000
STEPS = 200
CODE = 7
_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def trace(request: int, pid: int, address: int = 0, data: object = 0) -> None:
    if _ptrace(request, pid, address, data) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), f"ptrace {request:x}")


class Walk(threading.Thread):
    """Lets a process go from call to call and kills it in front of number `last`."""

    def __init__(self, pid: int, last: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.last, self.calls = pid, last, 0
        self.has_begun = threading.Event()
        self.was_killed = False

    def run(self) -> None:
        trace(SEIZE, self.pid, 0, 1)  # PTRACE_O_TRACESYSGOOD
        trace(INTERRUPT, self.pid)
        info = ctypes.create_string_buffer(128)
        while True:
            _, status = os.waitpid(self.pid, ALL_THREADS)
            if not os.WIFSTOPPED(status):
                return
            if os.WSTOPSIG(status) == signal.SIGTRAP | 0x80:
                trace(GET_INFO, self.pid, len(info), info)
                self.calls += info.raw[0] == ENTRY
                if self.calls == self.last:
                    self.was_killed = True
                    os.kill(self.pid, signal.SIGKILL)
                    continue
            trace(SYSCALL, self.pid)
            self.has_begun.set()


async def ask(engine: Engine, ref: str) -> None:
    """What wakes a keeper: an exec. It may come too late."""
    try:
        await engine.exec_start(await engine.exec_create(ref, ExecConfig(command=("true",))))
    except SampanError:
        return


async def one_life(lab: Lab, engine: Engine, last: int, *, watched: bool) -> bool:
    """Whether the keeper was killed, in front of call number `last`."""
    folder = lab.path / "told" / str(last)
    await asyncio.to_thread(folder.mkdir, parents=True)
    script = f"while [ ! -e /told/go ]; do sleep 0.01; done; exit {CODE}"
    host = HostConfig(binds=(f"{folder}:/told",))
    made = await engine.create(lab.config_of("sh", "-c", script), host)
    await engine.start(made.id)
    records = Path(lab.config.state, "shims", made.id)
    keeper = json.loads(await asyncio.to_thread((records / "state.json").read_text))["shim_pid"]
    ended = engine.arm_wait(made.id, WaitCondition.NEXT_EXIT)
    walk = Walk(keeper, last)
    walk.start()
    await asyncio.to_thread(walk.has_begun.wait, 10)
    if watched:
        asking = asyncio.ensure_future(ask(engine, made.id))
        await asyncio.wait([asking, asyncio.ensure_future(ended)], return_when="FIRST_COMPLETED")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await asyncio.to_thread((folder / "go").touch)
    async with asyncio.timeout(30):
        result = await ended
    await asyncio.to_thread(walk.join, 10)
    said = engine.get(made.id).state
    assert result.exit_code == said.exit_code
    may_be_lost = walk.was_killed and not (records / KEPT_EXIT).exists()
    heard = (said.exit_code, said.error)
    assert heard == (CODE, "") or (may_be_lost and heard == (LOST_CODE, LOST)), (last, heard)
    await engine.remove(made.id)
    await eventually(lambda: lab.shims() == [] and lab.cgroups() == [])
    return walk.was_killed


@pytest.mark.timeout(240)
@pytest.mark.parametrize("watched", [False, True])
def test_a_keeper_may_die_at_any_moment(tmp_path: Path, watched: bool) -> None:
    lab = Lab(tmp_path)

    async def test() -> int:
        async with lab.engine() as engine:
            for last in range(1, STEPS):
                if not await one_life(lab, engine, last, watched=watched):
                    return last - 1
        return STEPS

    try:
        assert 10 < asyncio.run(test()) < STEPS
        lab.check_clean()
    finally:
        lab.close()
