"""One writer at a time, group commit, failures that stay with their owner, translated errors."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from functools import partial

import pytest

from sampan.errors import (
    DataLoss,
    FailedPrecondition,
    Internal,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from sampan.store import database, events
from sampan.store.database import MAX_BATCH, Database, translate


def bodies(db) -> list[str]:
    return [row.body for row in db.read_now(events.read)]


def refuse(conn):
    events.append(conn, "refused")
    raise NotFound("refused")


def hold_writer(db):
    """Keep the writer thread busy until the returned event is set."""
    begun, go = threading.Event(), threading.Event()

    def wait(conn):
        begun.set()
        assert go.wait(30)

    return wait, begun, go


def test_write_returns_the_value_and_is_seen(db):
    async def main():
        assert await db.write(lambda conn: events.append(conn, "one")) == 1
        assert bodies(db) == ["one"]
        assert [row.body for row in await db.read(events.read)] == ["one"]

    asyncio.run(main())


@pytest.mark.parametrize("heavy", [False, True])
def test_failing_write_leaves_nothing_and_raises_its_own_error(db, heavy):
    async def main():
        with pytest.raises(NotFound, match="refused"):
            await db.write(refuse, heavy=heavy)
        await db.write(lambda conn: events.append(conn, "after"), heavy=heavy)

    asyncio.run(main())
    assert bodies(db) == ["after"]


def test_queued_writers_share_a_transaction_and_not_their_failures(db):
    """Between the first and the last of a batch nobody else's view shows a half of it."""

    async def main():
        wait, begun, go = hold_writer(db)
        first = asyncio.ensure_future(db.write(wait, heavy=True))
        await asyncio.to_thread(begun.wait)
        seen = []

        def add(n):
            def fn(conn):
                seen.append(len(bodies(db)))
                return events.append(conn, str(n))

            return fn

        jobs = [add(n) if n % 3 else refuse for n in range(20)]
        # Not heavy: with the connection taken, they have to queue.
        queued = [asyncio.ensure_future(db.write(job)) for job in jobs]
        await asyncio.sleep(0)
        go.set()
        await first
        results = await asyncio.gather(*queued, return_exceptions=True)
        assert seen == [0] * len(seen)  # one commit at the end: nothing was visible before
        for n, result in enumerate(results):
            assert isinstance(result, int) if n % 3 else isinstance(result, NotFound)

    asyncio.run(main())
    assert bodies(db) == [str(n) for n in range(20) if n % 3]


def test_more_writers_than_a_batch_holds_all_happen_in_order(db):
    async def main():
        wait, begun, go = hold_writer(db)
        first = asyncio.ensure_future(db.write(wait, heavy=True))
        await asyncio.to_thread(begun.wait)
        queued = [
            asyncio.ensure_future(db.write(lambda conn, n=n: events.append(conn, str(n))))
            for n in range(3 * MAX_BATCH)
        ]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, *queued)

    asyncio.run(main())
    assert bodies(db) == [str(n) for n in range(3 * MAX_BATCH)]


def test_cancelled_write_still_happens(db):
    async def main():
        wait, begun, go = hold_writer(db)
        first = asyncio.ensure_future(db.write(wait, heavy=True))
        await asyncio.to_thread(begun.wait)
        task = asyncio.ensure_future(db.write(lambda conn: events.append(conn, "done")))
        await asyncio.sleep(0)
        task.cancel()
        go.set()
        await first
        with pytest.raises(asyncio.CancelledError):
            await task
        await db.write(lambda conn: events.append(conn, "undone"), heavy=True)

    asyncio.run(main())
    assert bodies(db) == ["done", "undone"]


def test_writes_from_many_threads_are_all_there(db):
    def work(name):
        for n in range(50):
            db.write_now(partial(events.append, body=f"{name}.{n}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = bodies(db)
    assert sorted(found) == sorted(f"{name}.{n}" for name in "abcd" for n in range(50))
    for name in "abcd":  # each thread's own order is kept
        assert [b for b in found if b[0] == name] == [f"{name}.{n}" for n in range(50)]


def test_slow_disk_sends_the_next_writes_to_the_thread(db, monkeypatch):
    monkeypatch.setattr("sampan.store.database.SLOW_S", -1.0)
    where = []

    async def main():
        for _ in range(2):
            await db.write(lambda conn: where.append(threading.current_thread().name))

    asyncio.run(main())
    assert where == [threading.current_thread().name, "sampan-write"]


def test_readers_cannot_write(db):
    def add(conn):
        events.append(conn, "x")

    with pytest.raises(FailedPrecondition, match="readonly"):
        db.read_now(add)
    with pytest.raises(FailedPrecondition, match="readonly"):
        asyncio.run(db.read(add))
    assert bodies(db) == []


def test_read_is_one_view(db):
    async def main():
        def twice(conn):
            before = events.last_id(conn)
            db.write_now(lambda c: events.append(c, "between"))
            return before, events.last_id(conn)

        assert await db.read(twice) == (0, 0)
        assert db.read_now(events.last_id) == 1

    asyncio.run(main())


def test_closed_database_says_so(layout):
    db = Database.open(layout.database)

    async def main():
        await db.close()
        await db.close()
        with pytest.raises(Unavailable):
            await db.write(events.last_id)
        with pytest.raises(Unavailable):
            await db.read(events.last_id)
        with pytest.raises(Unavailable):
            db.read_now(events.last_id)

    asyncio.run(main())


def test_close_finishes_what_is_queued(layout):
    db = Database.open(layout.database)

    async def main():
        wait, begun, go = hold_writer(db)
        first = asyncio.ensure_future(db.write(wait, heavy=True))
        await asyncio.to_thread(begun.wait)
        queued = asyncio.ensure_future(db.write(lambda conn: events.append(conn, "queued")))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(db.close())
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, queued, closing)

    asyncio.run(main())
    again = Database.open(layout.database)
    assert bodies(again) == ["queued"]
    again.close_now()


def test_files_are_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        db = Database.open(str(tmp_path / "m.db"))
        db.write_now(lambda conn: events.append(conn, "x"))
    finally:
        os.umask(before)
    for name in ("m.db", "m.db-wal", "m.db-shm"):
        assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o600, name
    db.close_now()


def test_newer_schema_is_refused_and_left_alone(tmp_path):
    path = str(tmp_path / "m.db")
    Database.open(path).close_now()
    with sqlite3.connect(path) as conn:
        conn.execute("PRAGMA user_version=99")
    conn.close()
    with pytest.raises(FailedPrecondition, match="99"):
        Database.open(path)


def test_migrations_are_numbered_without_gaps():
    """A database is at one number: a file that came below it would be skipped."""
    names = sorted(os.listdir(database._MIGRATIONS))
    assert names == [f"{number:04}.sql" for number in range(1, len(names) + 1)]


def test_open_again_keeps_rows_and_migrates_once(tmp_path):
    path = str(tmp_path / "m.db")
    for n in range(3):
        db = Database.open(path)
        assert db.read_now(events.last_id) == n
        db.write_now(lambda conn: events.append(conn, "x"))
        db.close_now()


def test_file_that_is_no_database_is_data_loss(tmp_path):
    path = tmp_path / "m.db"
    path.write_bytes(b"x" * 4096)
    with pytest.raises(DataLoss):
        Database.open(str(path))
    assert path.read_bytes() == b"x" * 4096


def test_full_disk_is_said_and_survived(db):
    def grow(conn):
        for _ in range(64):
            events.append(conn, "x" * 65536)

    pages = db.read_now(lambda conn: conn.execute("PRAGMA page_count").fetchone()[0])
    db._writer.execute(f"PRAGMA max_page_count={pages + 20}")

    async def main():
        wait, begun, go = hold_writer(db)
        first = asyncio.ensure_future(db.write(wait, heavy=True))
        await asyncio.to_thread(begun.wait)
        both = [
            asyncio.ensure_future(db.write(job))
            for job in (grow, lambda conn: events.append(conn, "small"))
        ]
        await asyncio.sleep(0)
        go.set()
        await first
        results = await asyncio.gather(*both, return_exceptions=True)
        assert isinstance(results[0], ResourceExhausted)
        with pytest.raises(ResourceExhausted):
            await db.write(grow)
        await db.write(lambda conn: events.append(conn, "after"))
        return results[1]

    second = asyncio.run(main())
    # The neighbour either made it or was told; it never lost its row silently.
    assert bodies(db) == (["small", "after"] if isinstance(second, int) else ["after"])


def test_log_is_checkpointed_away_from_writers(layout, monkeypatch):
    monkeypatch.setattr("sampan.store.database.CHECKPOINT_EVERY", 10)
    db = Database.open(layout.database)
    size = os.stat(layout.database).st_size
    for _ in range(30):
        db.write_now(lambda conn: events.append(conn, "x" * 4000))
    db._readers.shutdown()  # its queue is done
    assert os.stat(layout.database).st_size > size
    db.close_now()


def test_log_of_writers_that_never_pause_is_emptied(layout, monkeypatch):
    monkeypatch.setattr("sampan.store.database.CHECKPOINT_EVERY", 10)
    monkeypatch.setattr("sampan.store.database.MAX_WAL_BYTES", 1)
    db = Database.open(layout.database)
    for _ in range(10):
        db.write_now(lambda conn: events.append(conn, "x" * 4000))
    assert db._shrink
    db.write_now(lambda conn: events.append(conn, "on the thread"))
    db.close_now()
    assert not db._shrink


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, ResourceExhausted),
        (sqlite3.SQLITE_CORRUPT, DataLoss),
        (sqlite3.SQLITE_BUSY, Unavailable),
        (sqlite3.SQLITE_READONLY, FailedPrecondition),
        (sqlite3.SQLITE_CONSTRAINT, Internal),
        (sqlite3.SQLITE_IOERR | 10 << 8, Unavailable),
    ],
)
def test_every_sqlite_error_has_a_class_of_ours(code, kind):
    error = sqlite3.OperationalError("said")
    error.sqlite_errorcode = code
    assert isinstance(translate(error, "write"), kind)
