"""Directories made ahead: complete or absent, never used twice, optional."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from sampan.snapshots import spares
from sampan.snapshots.overlay import OverlaySnapshotter
from sampan.snapshots.spares import KEEP, REFILL_AT, Spares, make_set


def test_none_before_begin(layout):
    with ThreadPoolExecutor(1) as pool:
        assert not Spares(layout, pool).take(layout.snapshot(1))
    assert os.listdir(layout.spares) == []


def test_sets_are_ready_and_filled_up_when_half_are_gone(layout):
    with ThreadPoolExecutor(1) as pool:
        ready = Spares(layout, pool)
        ready.begin()
        pool.submit(int).result()
        for n in range(KEEP - REFILL_AT):
            assert ready.take(layout.snapshot(n))
            assert sorted(os.listdir(layout.snapshot(n))) == ["fs", "work"]
        pool.submit(int).result()
        assert len(os.listdir(layout.spares)) == KEEP
    assert os.listdir(layout.trash) == []


def test_sets_of_an_earlier_process_are_used(layout):
    make_set(f"{layout.spares}/left")
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    ready = Spares(layout, pool)
    ready.begin()
    assert ready.take(layout.snapshot(1))
    assert not ready.take(layout.snapshot(2))
    assert os.listdir(layout.snapshots) == ["1"]


def test_target_that_is_there_keeps_the_set(layout):
    make_set(f"{layout.spares}/left")
    make_set(layout.snapshot(1))
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    ready = Spares(layout, pool)
    ready.begin()
    with pytest.raises(OSError, match="not empty"):
        ready.take(layout.snapshot(1))
    assert ready.take(layout.snapshot(2))


def test_full_disk_is_logged_and_tried_again(layout, monkeypatch, caplog):
    def refuse(path):
        raise OSError(28, "No space left on device", path)

    with ThreadPoolExecutor(1) as pool:
        ready = Spares(layout, pool)
        with monkeypatch.context() as patch:
            patch.setattr(spares, "make_set", refuse)
            ready.begin()
            pool.submit(int).result()
        assert "No space left" in caplog.text
        assert not ready.take(layout.snapshot(1))
        pool.submit(int).result()
        assert ready.take(layout.snapshot(1))


def test_snapshots_are_the_same_with_and_without(layout, db):
    async def main():
        snapshots = OverlaySnapshotter(layout, db)
        before = await snapshots.prepare("one", None)
        snapshots.reconcile()
        await asyncio.get_running_loop().run_in_executor(snapshots._pool, int)
        await asyncio.get_running_loop().run_in_executor(snapshots._pool, int)
        after = await snapshots.prepare("two", None)
        await snapshots.aclose()
        return before["source"], after["source"]

    for path in asyncio.run(main()):
        status = os.stat(path)
        assert (status.st_mode & 0o7777, os.listdir(path)) == (0o1755, [])
        assert sorted(os.listdir(os.path.dirname(path))) == ["fs", "work"]
