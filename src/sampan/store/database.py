"""The metadata database: SQLite in WAL mode, one writer at a time.

A *write* is a function that gets a connection and runs inside a transaction; its value comes back
when that is committed. A commit is a write to the page cache (30 us), a hop to a thread and back
costs four times that. So a small write runs at once on the caller's thread while nobody else
writes; when one was slow (a disk that makes its writers wait), writes go to the writer thread for a
while. Those that queue up there share a transaction, each in its own savepoint: one that raises
undoes its own rows and not its neighbours'. Rows are in the order of the calls either way.

A *read* runs on a small pool, in one consistent view; `read_now` runs at once on the caller's
thread and is for tiny look-ups by an index. What was awaited is seen by every read after it.

Promise: `synchronous=NORMAL`, so a `kill -9` loses nothing that was answered, and a power failure
may lose the last rows but never the file (docs/decisions/0001-sqlite-wal-normal.md). Checkpoints
run on the read pool, away from the writers. Functions raise `sampan.errors`; a sqlite3 error that
they let through is translated here, because nobody above knows SQLite.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from sampan.errors import (
    DataLoss,
    FailedPrecondition,
    Internal,
    ResourceExhausted,
    SampanError,
    Unavailable,
)

T = TypeVar("T")
Connection = sqlite3.Connection

READERS = 2
MAX_BATCH = 64
CHECKPOINT_EVERY = 500  # transactions; about two megabytes of log
MAX_WAL_BYTES = 64 << 20  # then the writer itself empties the log
SLOW_S = 0.01  # an event loop may be held up this long, once in
BACK_OFF_S = 0.2

_MIGRATIONS = os.path.join(os.path.dirname(__file__), "migrations")

Reply = Callable[[Any, BaseException | None], None]
_Job = tuple[Callable[[Connection], Any], Reply]
_Answer = tuple[Reply, Any, BaseException | None]


class Database:
    """One open database. Made by `Database.open`; closed by `close` or `close_now`."""

    def __init__(self, path: str, writer: Connection) -> None:
        self.path = path
        self._writer = writer
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._near = _connect(path, query_only=True)
        self._near_lock = threading.Lock()
        self._local = threading.local()
        self._far: list[Connection] = []
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="sampan-read")
        self._commits = 0
        self._shrink = False
        self._closed = False
        self._gate = threading.Lock()  # no job gets behind the end of the queue
        self._turn = threading.Lock()  # held by whoever uses the writer's connection
        self._queued = 0  # jobs that were put and are not done
        self._inline_from = 0.0  # monotonic time before which the writer thread does it all
        self._thread = threading.Thread(target=self._run, name="sampan-write", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: str) -> Database:
        """Open or create the database at `path`, and bring its schema up to date. Blocks.

        Raises:
            FailedPrecondition: a newer Sampan wrote it.
            DataLoss: the file is damaged or is no database.
        """
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            writer = _connect(path)
            writer.execute("PRAGMA journal_mode=WAL")
            _migrate(writer, path)
            return cls(path, writer)
        except sqlite3.Error as error:
            raise translate(error, f"open {path}") from error

    async def write(self, fn: Callable[[Connection], T], *, heavy: bool = False) -> T:
        """Run `fn` in a transaction; return its value when that is committed.

        `heavy` is for a function of more than a fraction of a millisecond: it goes to the writer
        thread in any case. A write that is queued happens, even when its caller is cancelled
        meanwhile: what undoes it is then queued behind it.
        """
        if not heavy and self._take_turn():
            return self._inline(fn)
        return await self._queue(fn)

    def submit(self, fn: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Like `write`, done or queued before this returns: for a change whose truth is elsewhere,
        so that nobody need wait for the row. The caller looks at the future's error."""
        if not self._take_turn():
            return self._queue(fn)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(self._inline(fn))
        except SampanError as error:
            future.set_exception(error)
        return future

    def _queue(self, fn: Callable[[Connection], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def reply(value: T, error: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(_settle, future, value, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

        self._put(fn, reply)
        return future

    def write_now(self, fn: Callable[[Connection], T]) -> T:
        """Like `write`, blocking the caller: for start-up and for worker threads."""
        if self._take_turn():
            return self._inline(fn)
        future: Future[T] = Future()

        def reply(value: T, error: BaseException | None) -> None:
            _settle(future, value, error)

        self._put(fn, reply)
        return future.result()

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` on a reader thread, in one consistent view of the database."""
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, fn)

    def read_now(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` here and now. For look-ups of microseconds; each statement has its own view."""
        with self._near_lock:
            self._check_open()
            try:
                return fn(self._near)
            except sqlite3.Error as error:
                raise translate(error, f"read {self.path}") from error

    async def close(self) -> None:
        """Finish the queued writes and close. Idempotent."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """Like `close`, blocking the caller."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._thread.join()
        self._readers.shutdown()
        with self._turn, self._near_lock:
            for connection in (*self._far, self._near, self._writer):
                connection.close()

    # on the caller's thread

    def _take_turn(self) -> bool:
        """Take the connection when it is free, nobody is queued for it and the disk is quick."""
        with self._gate:
            self._check_open()
            if self._queued or self._shrink or time.monotonic() < self._inline_from:
                return False
            return self._turn.acquire(blocking=False)

    def _inline(self, fn: Callable[[Connection], T]) -> T:
        begun = time.monotonic()
        try:
            value = self._run_alone(fn)
        except sqlite3.Error as error:
            raise translate(error, f"write {self.path}") from error
        finally:
            self._maybe_checkpoint()
            ended = time.monotonic()
            if ended - begun > SLOW_S:
                self._inline_from = ended + BACK_OFF_S
            self._turn.release()
        return value

    # writer thread

    def _put(self, fn: Callable[[Connection], Any], reply: Reply) -> None:
        with self._gate:
            self._check_open()
            self._queued += 1
            self._jobs.put((fn, reply))

    def _run(self) -> None:
        stop = False
        while not stop:
            batch, stop = self._next_batch()
            if not batch:
                continue
            with self._turn:
                replies = self._transact(batch)
                self._maybe_checkpoint()
                if self._shrink:
                    self._shrink_log()
            with self._gate:
                self._queued -= len(batch)
            for reply, value, error in replies:
                reply(value, error)

    def _next_batch(self) -> tuple[list[_Job], bool]:
        """Wait for one job, take those behind it; whether the end of the queue was among them."""
        batch: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            batch.append(job)
            if len(batch) == MAX_BATCH:
                return batch, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _transact(self, batch: list[_Job]) -> list[_Answer]:
        try:
            if len(batch) > 1:
                return self._run_together(batch)
            return [(batch[0][1], self._run_alone(batch[0][0]), None)]
        except BaseException as error:
            self._roll_back()
            failure = self._failure(error)
            return [(reply, None, failure) for _, reply in batch]

    def _run_alone(self, fn: Callable[[Connection], T]) -> T:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            value = fn(self._writer)
            self._writer.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        return value

    def _run_together(self, batch: list[_Job]) -> list[_Answer]:
        done: list[_Answer] = []
        execute = self._writer.execute
        execute("BEGIN IMMEDIATE")
        for fn, reply in batch:
            execute("SAVEPOINT one")
            try:
                value = fn(self._writer)
            except BaseException as error:
                if not self._writer.in_transaction:
                    raise  # a full disk ends the transaction, and with it everybody's work
                execute("ROLLBACK TO one")
                done.append((reply, None, self._failure(error)))
            else:
                done.append((reply, value, None))
            execute("RELEASE one")
        execute("COMMIT")
        return done

    def _roll_back(self) -> None:
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except sqlite3.Error:
            return  # the next BEGIN fails and tells those who wait

    def _failure(self, error: BaseException) -> BaseException:
        if not isinstance(error, sqlite3.Error):
            return error
        failure = translate(error, f"write {self.path}")
        failure.__cause__ = error
        return failure

    def _maybe_checkpoint(self) -> None:
        self._commits += 1
        if self._commits % CHECKPOINT_EVERY:
            return
        try:
            # Writers that never pause keep a passive checkpoint from emptying the log.
            self._shrink = os.stat(self.path + "-wal").st_size > MAX_WAL_BYTES
            self._readers.submit(self._checkpoint)
        except (OSError, RuntimeError):
            return  # the log grows on; the next time tries again

    def _shrink_log(self) -> None:
        """Empty the log, on the writer thread: it waits for the disk."""
        self._shrink = False
        try:
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            return

    # reader threads

    def _reader(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _connect(self.path)
            self._far.append(connection)
        return connection

    def _read(self, fn: Callable[[Connection], T]) -> T:
        try:
            connection = self._reader()
            connection.execute("PRAGMA query_only=ON")
            connection.execute("BEGIN")
            try:
                return fn(connection)
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise translate(error, f"read {self.path}") from error

    def _checkpoint(self) -> None:
        """Copy the log into the file. PASSIVE: waits for nobody and holds nobody up."""
        connection = self._reader()
        connection.execute("PRAGMA query_only=OFF")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable(f"use {self.path}: the database is closed")


def translate(error: sqlite3.Error, what: str) -> SampanError:
    """The error of ours for what SQLite said while we did `what`."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DataLoss(f"{what}: {error}")
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM):
        return ResourceExhausted(f"{what}: {error}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR):
        return Unavailable(f"{what}: {error}")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return FailedPrecondition(f"{what}: {error}")
    return Internal(f"{what}: {error}")


def _settle(future: Any, value: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def _connect(path: str, *, query_only: bool = False) -> Connection:
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    for pragma in (
        "synchronous=NORMAL",
        "foreign_keys=ON",
        "temp_store=MEMORY",
        "wal_autocheckpoint=0",
        "journal_size_limit=4194304",
        f"query_only={'ON' if query_only else 'OFF'}",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _migrate(connection: Connection, path: str) -> None:
    """Apply the numbered files that the database has not seen, each in its own transaction."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    steps = sorted((int(name[:4]), name) for name in os.listdir(_MIGRATIONS) if name[4:] == ".sql")
    newest = steps[-1][0]
    if version > newest:
        raise FailedPrecondition(
            f"open {path}: its schema is {version}, this version of sampan knows {newest}"
        )
    for number, name in steps:
        if number <= version:
            continue
        with open(os.path.join(_MIGRATIONS, name), encoding="utf-8") as file:
            script = file.read()
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version={number};\nCOMMIT;"
            )
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
