"""One process per root, one task per key."""

from __future__ import annotations

import asyncio
import os
import stat

import pytest

from sampan.errors import Unavailable
from sampan.store.locks import KeyedLocks, RootLock


def test_second_comer_hears_who_holds_the_root(layout):
    with RootLock(layout.lock):
        assert stat.S_IMODE(os.stat(layout.lock).st_mode) == 0o600
        with pytest.raises(Unavailable, match=f"held by process {os.getpid()}"):
            RootLock(layout.lock).acquire()
    with RootLock(layout.lock):
        pass


def test_release_is_idempotent(layout):
    lock = RootLock(layout.lock)
    lock.acquire()
    lock.release()
    lock.release()


def test_children_do_not_inherit_the_right(layout):
    with RootLock(layout.lock) as lock:
        assert not os.get_inheritable(lock._fd)


def test_lock_file_is_never_a_link(layout, tmp_path):
    os.symlink(tmp_path / "elsewhere", layout.lock)
    with pytest.raises(OSError, match="symbolic links"):
        RootLock(layout.lock).acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_keyed_locks_order_one_key_and_not_two():
    async def main():
        locks, log, go = KeyedLocks(), [], asyncio.Event()

        async def work(key, name):
            async with locks.hold(key):
                log.append(name)
                await go.wait()
                log.append(name)

        async with asyncio.TaskGroup() as group:
            for key, name in (("a", "1"), ("a", "2"), ("b", "3")):
                group.create_task(work(key, name))
            for _ in range(10):  # more turns than anybody needs who does not wait
                await asyncio.sleep(0)
            assert log == ["1", "3"]
            assert len(locks) == 2
            go.set()
        assert log == ["1", "3", "1", "3", "2", "2"]
        assert len(locks) == 0

    asyncio.run(main())


def test_keyed_lock_of_a_cancelled_waiter_is_dropped():
    async def main():
        locks = KeyedLocks()

        async def wait():
            async with locks.hold("a"):
                pass

        async with locks.hold("a"):
            task = asyncio.ensure_future(wait())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert len(locks) == 0

    asyncio.run(main())
