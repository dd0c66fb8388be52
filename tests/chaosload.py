"""The load of the chaos test: an engine, and clients that write down what they were promised.

Run as a process of its own, to be killed at any moment: `chaosload.py SETTINGS`, where SETTINGS is
JSON with the paths of a lab. Every line of the journal is written before the next request, so what
it says is what a client has seen. On SIGTERM the clients finish what they began, and it leaves.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time

from sampan.engine.config import EngineConfig
from sampan.engine.engine import Engine
from sampan.engine.model import (
    Container,
    ContainerConfig,
    ExecConfig,
    HostConfig,
    RestartName,
    RestartPolicy,
)
from sampan.errors import SampanError

TEXT = "line of the log"


class Load:
    """Clients of one engine."""

    def __init__(self, engine: Engine, settings: dict[str, str]) -> None:
        self._engine = engine
        self._rootfs = settings["rootfs"]
        self._journal = os.open(settings["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._chance = random.Random(settings["seed"] + str(os.getpid()))
        self.is_ending = False

    def note(self, what: str, **facts: object) -> None:
        """A line of the journal."""
        line = json.dumps({"what": what, "at": time.time_ns(), **facts})
        os.write(self._journal, line.encode() + b"\n")

    async def client(self, number: int) -> None:
        """One life after the other."""
        round_ = 0
        while not self.is_ending:
            round_ += 1
            life = self._chance.choice(
                (self.plain, self.plain, self.stopped, self.execs, self.kept, self.restarted)
            )
            name = f"c{number}-{os.getpid()}-{round_}"
            try:
                await life(name)
            except SampanError as error:
                self.note("failed", name=name, life=life.__name__, error=f"{type(error)}: {error}")
                await asyncio.sleep(0)

    async def create(self, name: str, *command: str, host: HostConfig | None = None) -> str:
        made = await self._engine.create(
            ContainerConfig(rootfs=f"{self._rootfs}:O", command=command), host, name
        )
        self.note("created", id=made.id, name=name)
        return made.id

    async def start(self, ref: str, code: int | None) -> None:
        """`code` is the one that the container will end with by itself."""
        self.note("starting", id=ref, code=code)
        await self._engine.start(ref)
        self.note("started", id=ref)

    async def remove(self, ref: str, *, force: bool = False) -> None:
        await self._engine.remove(ref, force=force)
        self.note("removed", id=ref)

    async def plain(self, name: str) -> None:
        """Create, start, wait, read, remove."""
        code = self._chance.randrange(1, 100)
        ref = await self.create(name, "sh", "-c", f"echo {TEXT}; exit {code}")
        wait = self._engine.arm_wait(ref, "next-exit")
        try:
            await self.start(ref, code)
            got = await wait
        finally:
            wait.cancel()
        self.note("ended", id=ref, code=got.exit_code, error=got.error)
        text = b"".join([record.data async for record in self._engine.logs(ref)]).decode()
        self.note("logged", id=ref, text=text)
        await self.remove(ref)

    async def stopped(self, name: str) -> None:
        """Create, start, stop, start again, kill, remove."""
        script = "trap 'exit 33' TERM; echo ready; while :; do sleep 0.01; done"
        ref = await self.create(name, "sh", "-c", script)
        await self.start(ref, None)
        await self._engine.stop(ref, timeout=1)
        self.note("stopped", id=ref, code=self._engine.get(ref).state.exit_code)
        await self.start(ref, None)
        await self._engine.kill(ref)
        await self._engine.wait(ref)
        await self.remove(ref)

    async def execs(self, name: str) -> None:
        """Processes in a running container, their codes, then the end by force."""
        ref = await self.create(name, "sleep", "1000")
        await self.start(ref, None)
        for _ in range(3):
            code = self._chance.randrange(1, 100)
            exec_id = await self._engine.exec_create(
                ref, ExecConfig(command=("sh", "-c", f"exit {code}"))
            )
            await self._engine.exec_start(exec_id)
            got = await self._engine.exec_wait(exec_id)
            self.note("exec", id=ref, code=got, wanted=code)
        await self.remove(ref, force=True)

    async def kept(self, name: str) -> None:
        """Left alone: whoever comes later finds how it ended."""
        code = self._chance.randrange(1, 100)
        ref = await self.create(name, "sh", "-c", f"sleep 0.1; echo {TEXT}; exit {code}")
        await self.start(ref, code)

    async def restarted(self, name: str) -> None:
        """A policy that gives up after one more try."""
        policy = RestartPolicy(name=RestartName.ON_FAILURE, max_retries=1)
        ref = await self.create(name, "sh", "-c", "exit 5", host=HostConfig(restart=policy))
        await self.start(ref, 5)
        await self._engine.wait(ref)
        state = self._engine.get(ref).state
        self.note("given-up", id=ref, code=state.exit_code, tries=state.restart_count)
        await self.remove(ref)


async def sweep(load: Load, engine: Engine) -> None:
    """Remove what ended of the kept ones now and then, as a user would."""
    while not load.is_ending:
        await asyncio.sleep(0.2)
        ended = [one for one in engine.list(all=True) if _is_old(one)]
        for container in ended:
            try:
                state = engine.get(container.id).state
                load.note("swept", id=container.id, code=state.exit_code, error=state.error)
                await load.remove(container.id)
            except SampanError as error:
                load.note("failed", name=container.name, life="sweep", error=str(error))


def _is_old(container: Container) -> bool:
    state = container.state
    return container.status.can_remove and 0 < state.finished_at < time.time_ns() - 2 * 10**9


async def main(settings: dict[str, str]) -> None:
    """Work until SIGTERM."""
    config = EngineConfig(
        root=settings["root"], state=settings["state"], cgroup_parent=settings["parent"]
    )
    engine = await Engine.open(config)
    load = Load(engine, settings)
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, lambda: setattr(load, "is_ending", True)
    )
    load.note("open", pid=os.getpid())
    async with asyncio.TaskGroup() as group:
        for number in range(int(settings["clients"])):
            group.create_task(load.client(number))
        group.create_task(sweep(load, engine))
    await engine.aclose()
    load.note("closed", fds=len(os.listdir("/proc/self/fd")))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
