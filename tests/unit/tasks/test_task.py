from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from sampan.errors import DeadlineExceeded, InvalidArgument, Unavailable
from sampan.kernel import fds
from sampan.tasks.task import Task, TaskFailure, open_socket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class FakeShim:
    """The other end of a task, driven by the test."""

    def __init__(self) -> None:
        ours, self.sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(10)
        self.events: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self.task = Task(ours, self.events.append, self.gone.set)

    def close(self) -> None:
        self.task.close()
        self.sock.close()

    def hear(self) -> tuple[dict[str, Any], list[int]]:
        data, passed = fds.receive(self.sock, 1 << 20)
        return json.loads(data), passed

    def say(self, **message: Any) -> None:
        self.sock.send(json.dumps(message).encode())


def drive(main: Callable[[FakeShim], Awaitable[None]]) -> None:
    async def run() -> None:
        shim = FakeShim()
        try:
            await main(shim)
        finally:
            shim.close()

    asyncio.run(run())


def test_a_call_is_answered_by_its_number_and_events_keep_their_order():
    async def main(shim: FakeShim) -> None:
        first = asyncio.ensure_future(shim.task.call("one", x=1))
        second = asyncio.ensure_future(shim.task.call("two"))
        await asyncio.sleep(0)
        one, _ = shim.hear()
        two, _ = shim.hear()
        assert (one["op"], one["x"], two["op"]) == ("one", 1, "two")
        shim.say(event="a")
        shim.say(re=two["re"], ok=True, value=2)
        shim.say(event="b")
        shim.say(re=one["re"], ok=True, value=1)
        assert (await first)["value"] == 1
        assert (await second)["value"] == 2
        assert shim.events == [{"event": "a"}, {"event": "b"}]

    drive(main)


def test_an_error_has_its_number_and_operation():
    async def main(shim: FakeShim) -> None:
        call = asyncio.ensure_future(shim.task.call("exec"))
        await asyncio.sleep(0)
        shim.say(re=shim.hear()[0]["re"], error="no", errno=2, operation="mount")
        with pytest.raises(TaskFailure, match="no") as failure:
            await call
        assert (failure.value.errno, failure.value.operation) == (2, "mount")

    drive(main)


def test_descriptors_travel_and_stay_the_callers():
    async def main(shim: FakeShim) -> None:
        reader, writer = os.pipe()
        call = asyncio.ensure_future(shim.task.call("attach", (writer,)))
        await asyncio.sleep(0)
        message, [passed] = shim.hear()
        os.write(passed, b"x")
        os.close(passed)
        assert os.read(reader, 1) == b"x"
        shim.say(re=message["re"], ok=True)
        await call
        os.close(writer)
        os.close(reader)

    drive(main)


def test_the_end_of_the_shim_fails_calls_then_is_told_once():
    async def main(shim: FakeShim) -> None:
        call = asyncio.ensure_future(shim.task.call("state"))
        await asyncio.sleep(0)
        shim.say(event="exit")
        shim.sock.close()
        with pytest.raises(Unavailable):
            await call
        await asyncio.wait_for(shim.gone.wait(), 10)
        assert shim.events == [{"event": "exit"}]
        assert not shim.task.is_open
        with pytest.raises(Unavailable):
            await shim.task.call("state")

    drive(main)


def test_no_answer_has_an_end():
    async def main(shim: FakeShim) -> None:
        with pytest.raises(DeadlineExceeded):
            await shim.task.call("state", patience=0.01)
        shim.say(re=1, ok=True)  # too late: nobody minds
        await asyncio.sleep(0)

    drive(main)


def test_requests_that_do_not_fit_wait_in_order_with_their_descriptors():
    async def main(shim: FakeShim) -> None:
        null = os.open("/dev/null", os.O_RDONLY)
        calls = [
            asyncio.ensure_future(shim.task.call("exec", (null,), n=n, pad="x" * 60_000))
            for n in range(40)
        ]
        await asyncio.sleep(0)
        os.close(null)  # what is queued has its own
        for n in range(40):
            message, [passed] = await asyncio.to_thread(shim.hear)
            os.close(passed)
            assert message["n"] == n
            shim.say(re=message["re"], ok=True)
        await asyncio.gather(*calls)

    drive(main)


@pytest.mark.skipif(os.geteuid() != 0, reason="the buffer's ceiling is root's to pass")
def test_a_large_request_fits_and_a_huge_one_is_refused():
    async def main(shim: FakeShim) -> None:
        call = asyncio.ensure_future(shim.task.call("exec", pad="x" * 900_000))
        await asyncio.sleep(0)
        message, _ = shim.hear()
        assert len(message["pad"]) == 900_000
        shim.say(re=message["re"], ok=True)
        await call
        with pytest.raises(InvalidArgument):
            await shim.task.call("exec", pad="x" * 1_100_000)

    drive(main)


def test_connect_below_a_long_path(tmp_path):
    directory = tmp_path / ("x" * 120)
    directory.mkdir()
    with pytest.raises(OSError):
        open_socket(str(directory))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fd = os.open(directory, os.O_PATH)
    listener.bind(f"/proc/self/fd/{fd}/shim.sock")
    listener.listen()
    open_socket(str(directory)).close()
    os.close(fd)
    listener.close()
