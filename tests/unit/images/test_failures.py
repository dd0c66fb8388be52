"""Errors of many tasks told as one, and steps that a cancel does not cut short."""

from __future__ import annotations

import asyncio
import errno

import pytest

from sampan.errors import Internal, InvalidArgument, ResourceExhausted
from sampan.images.failures import finish, one_error


def test_the_first_error_of_ours_is_told():
    group = BaseExceptionGroup("", [ValueError("x"), ExceptionGroup("", [InvalidArgument("y")])])
    with pytest.raises(InvalidArgument, match="y"), one_error("pull"):
        raise group


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_resource_exhausted(number):
    with pytest.raises(ResourceExhausted, match="pull x: no space left"), one_error("pull x"):
        raise ExceptionGroup("", [OSError(number, "?")])
    with pytest.raises(ResourceExhausted), one_error("pull x"):
        raise OSError(number, "?")


def test_another_failure_of_the_system_is_internal():
    with pytest.raises(Internal, match=r"pull x: .*read"), one_error("pull x"):
        raise OSError(errno.EIO, "read")


def test_a_step_that_is_finished_ends_before_the_cancel_goes_on():
    async def run():
        started, release, done = asyncio.Event(), asyncio.Event(), []

        async def step():
            started.set()
            await release.wait()
            done.append(True)

        task = asyncio.create_task(finish(step()))
        await started.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done == [True]

    asyncio.run(run())


def test_a_step_that_is_finished_gives_its_result_or_its_error():
    async def good():
        return 5

    async def bad():
        raise InvalidArgument("x")

    async def run():
        assert await finish(good()) == 5
        with pytest.raises(InvalidArgument):
            await finish(bad())

    asyncio.run(run())
