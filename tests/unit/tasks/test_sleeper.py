"""A task that connects when there is something to ask, or when its shim has gone."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from sampan.errors import Unavailable
from sampan.tasks.sleeper import Sleeper

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class FakeShim:
    """A process, and who listens in its directory."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(["sleep", "1000"])
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(f"{path}/shim.sock")
        self.listener.listen(8)
        self.listener.settimeout(10)
        self.heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.gone = asyncio.Event()
        pidfd = os.pidfd_open(self.process.pid)
        self.task = Sleeper(str(path), pidfd, self.heard.put_nowait, self.gone.set)

    def accept(self) -> socket.socket:
        sock, _ = self.listener.accept()
        sock.settimeout(10)
        return sock

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def drive(path: Path, main: Callable[[FakeShim], Awaitable[None]]) -> None:
    async def run() -> None:
        shim = FakeShim(path)
        try:
            async with asyncio.timeout(20):
                await main(shim)
        finally:
            shim.task.close()
            shim.listener.close()
            shim.end()

    asyncio.run(run())


def test_the_first_call_connects(tmp_path):
    async def main(shim: FakeShim) -> None:
        assert shim.task.is_open
        call = asyncio.ensure_future(shim.task.call("state"))
        await asyncio.sleep(0)
        with shim.accept() as sock:
            sock.send(json.dumps({"event": "hello"}).encode())
            asked = json.loads(sock.recv(1000))
            sock.send(json.dumps({"re": asked["re"], "value": 1}).encode())
            assert (await call)["value"] == 1
            assert shim.heard.get_nowait() == {"event": "hello"}
        await shim.gone.wait()
        assert not shim.task.is_open

    drive(tmp_path, main)


def test_who_listens_in_place_of_the_shim_is_heard(tmp_path):
    async def main(shim: FakeShim) -> None:
        shim.end()
        loop = asyncio.get_running_loop()
        with await loop.run_in_executor(None, shim.accept) as sock:
            sock.send(json.dumps({"event": "exit"}).encode())
            assert await shim.heard.get() == {"event": "exit"}
            assert not shim.gone.is_set()
        await shim.gone.wait()

    drive(tmp_path, main)


@pytest.mark.parametrize("is_asked", [False, True])
def test_a_shim_that_has_gone_is_told(tmp_path, is_asked):
    async def main(shim: FakeShim) -> None:
        shim.listener.close()
        if is_asked:
            with pytest.raises(Unavailable):
                await shim.task.call("state")
        else:
            shim.end()
        await shim.gone.wait()
        assert not shim.task.is_open

    drive(tmp_path, main)
