"""Content: verified before it is visible, resumed where it stopped, gone when refused."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from pathlib import Path

import pytest

from sampan.errors import (
    Conflict,
    DigestMismatch,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    ResourceExhausted,
)
from sampan.spec.digest import Digest, Digester
from sampan.spec.image import Descriptor
from sampan.store import blobs, ingest, leases
from sampan.store.content import STALE_INGEST_S, ContentStore

DATA = os.urandom(3 * ingest.BLOCK + 12345)
DIGEST = Digest.of(DATA)
EXPECTED = Descriptor("application/octet-stream", DIGEST, len(DATA))


def run(layout, db, test):
    """Run `test(content)` with a content store, on a loop."""

    async def main():
        content = ContentStore(layout, db)
        try:
            return await test(content)
        finally:
            await content.aclose()

    return asyncio.run(main())


async def feed(writer, data=DATA, step=100_000):
    for at in range(0, len(data), step):
        await writer.write(data[at : at + step])


async def feed_and_commit(writer):
    await feed(writer)
    await writer.commit()


def spoil(path, data=b""):
    Path(path).write_bytes(data)


def ingests(layout) -> list[str]:
    return os.listdir(layout.ingests)


@pytest.mark.parametrize("step", [1000, 100_000, ingest.BLOCK, len(DATA)])
def test_content_comes_back_as_it_went_in(layout, db, step):
    async def test(content):
        assert not content.has(DIGEST)
        async with await content.writer("x", EXPECTED) as writer:
            await feed(writer, step=step)
            assert not content.has(DIGEST)
            assert await writer.commit() == DIGEST
        assert content.has(DIGEST)
        assert content.read(DIGEST, len(DATA)) == DATA
        assert [row.size for row in content.walk()] == [len(DATA)]
        fd = content.open(DIGEST)
        assert os.get_inheritable(fd) is False
        assert os.pread(fd, 10, 5) == DATA[5:15]
        os.close(fd)

    run(layout, db, test)
    assert ingests(layout) == []
    assert stat.S_IMODE(os.stat(layout.blob(DIGEST)).st_mode) == 0o600


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_the_digest_says_the_algorithm(layout, db, algorithm):
    digester = Digester(algorithm)
    digester.update(DATA)
    digest = digester.digest()

    async def test(content):
        async with await content.writer("x", Descriptor("t", digest, len(DATA))) as writer:
            await feed(writer)
            assert await writer.commit() == digest
        assert await content.put(b"small", digest=None) == Digest.of(b"small")
        assert content.read(digest, len(DATA)) == DATA

    run(layout, db, test)


@pytest.mark.parametrize("stopped", [0, 10, ingest.BLOCK, ingest.BLOCK + 7, len(DATA)])
def test_closed_ingest_is_taken_up(layout, db, stopped):
    async def test(content):
        async with await content.writer("x", EXPECTED) as writer:
            await feed(writer, DATA[:stopped])
        async with await content.writer("x", EXPECTED) as writer:
            assert writer.offset == stopped
            await feed(writer, DATA[stopped:])
            await writer.commit()
        assert content.read(DIGEST, len(DATA)) == DATA

    run(layout, db, test)


def test_truncate_begins_again(layout, db):
    async def test(content):
        async with await content.writer("x", EXPECTED) as writer:
            await feed(writer, b"wrong" * 300_000)
            await writer.truncate()
            assert writer.offset == 0
            await feed(writer)
            await writer.commit()

    run(layout, db, test)


def test_wrong_bytes_are_thrown_away(layout, db):
    async def test(content):
        async with await content.writer("x", EXPECTED) as writer:
            await feed(writer, b"\0" * len(DATA))
            with pytest.raises(DigestMismatch):
                await writer.commit()
        assert not content.has(DIGEST)
        async with await content.writer("x", EXPECTED) as writer:
            assert writer.offset == 0

    run(layout, db, test)
    assert not os.path.exists(layout.blob(DIGEST))


def test_fewer_bytes_are_thrown_away(layout, db):
    async def test(content):
        async with await content.writer("x", EXPECTED) as writer:
            await feed(writer, DATA[:-1])
            with pytest.raises(FailedPrecondition, match="announced"):
                await writer.commit()

    run(layout, db, test)
    assert ingests(layout) == []


def test_more_bytes_than_announced_are_refused_at_once(layout, db):
    async def test(content):
        async with await content.writer("x", EXPECTED) as writer:
            await feed(writer)
            with pytest.raises(FailedPrecondition, match="more than"):
                await writer.write(b"x")
            await writer.commit()  # what was promised is whole

    run(layout, db, test)


def test_left_over_longer_than_announced_is_begun_again(layout, db):
    async def test(content):
        async with await content.writer("x") as writer:
            await feed(writer, DATA + b"more")
        async with await content.writer("x", EXPECTED) as writer:
            assert writer.offset == 0

    run(layout, db, test)


def test_two_writers_of_one_key_are_refused(layout, db):
    async def test(content):
        async with await content.writer("x", EXPECTED):
            with pytest.raises(Conflict):
                await content.writer("x", EXPECTED)
            async with await content.writer("y", EXPECTED):
                pass
        async with await content.writer("x", EXPECTED):
            pass

    run(layout, db, test)


def test_two_ingests_of_one_blob_end_as_one(layout, db):
    async def test(content):
        first = await content.writer("x", EXPECTED)
        second = await content.writer("y", EXPECTED)
        await asyncio.gather(feed(first), feed(second))
        assert await asyncio.gather(first.commit(), second.commit()) == [DIGEST, DIGEST]
        assert content.read(DIGEST, len(DATA)) == DATA

    run(layout, db, test)
    assert ingests(layout) == []


def test_closed_writer_refuses(layout, db):
    async def test(content):
        writer = await content.writer("x", EXPECTED)
        await writer.abort()
        await writer.abort()
        await writer.close()
        for call in (writer.write(b"x"), writer.commit(), writer.truncate()):
            with pytest.raises(Conflict, match="closed"):
                await call

    run(layout, db, test)
    assert ingests(layout) == []


def test_cancelled_writer_keeps_whole_bytes_and_can_be_resumed(layout, db):
    async def test(content):
        async def forever():
            async with await content.writer("x", EXPECTED) as writer:
                await feed(writer, DATA[: 2 * ingest.BLOCK])
                fed.set()
                await asyncio.Event().wait()

        fed = asyncio.Event()
        task = asyncio.ensure_future(forever())
        await fed.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with await content.writer("x", EXPECTED) as writer:
            assert writer.offset == 2 * ingest.BLOCK
            await feed(writer, DATA[writer.offset :])
            await writer.commit()

    run(layout, db, test)


def test_full_disk_while_writing(layout, db, monkeypatch):
    """A write that fits in part is taken back, so that what stays can be resumed."""
    real, left = os.write, ingest.BLOCK + 1000

    def write(fd, data):
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        data = data[:left]
        left -= len(data)
        return real(fd, data)

    async def test(content):
        writer = await content.writer("x", EXPECTED)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            with pytest.raises(ResourceExhausted, match="ingest x"):
                await feed_and_commit(writer)
            with pytest.raises(Conflict, match="earlier write failed"):
                await writer.write(b"x")
            await writer.close()
        async with await content.writer("x", EXPECTED) as writer:
            assert 0 < writer.offset <= ingest.BLOCK + 1000
            await feed(writer, DATA[writer.offset :])
            await writer.commit()
        assert content.read(DIGEST, len(DATA)) == DATA

    run(layout, db, test)


def test_disk_without_room_is_said_before_the_download(layout, db):
    huge = Descriptor("t", DIGEST, 1 << 60)

    async def test(content):
        with pytest.raises(ResourceExhausted, match="has room for"):
            await content.writer("x", huge)

    run(layout, db, test)
    assert ingests(layout) == []


def test_put_verifies_links_and_is_repeatable(layout, db):
    async def test(content):
        child = Digest.of(b"child")
        with pytest.raises(DigestMismatch):
            await content.put(b"{}", digest=child)
        digest = await content.put(b"{}", links=[child])
        assert await content.put(b"{}", snapshots=["top"]) == digest
        assert db.read_now(lambda conn: blobs.links(conn, digest)) == (child,)
        assert db.read_now(lambda conn: blobs.links(conn, digest, "snapshot")) == ("top",)

    run(layout, db, test)
    assert ingests(layout) == []


def test_hold_looks_and_leases_in_one_step(layout, db):
    async def test(content):
        async with leases.lease(db) as lease:
            assert not await content.hold(DIGEST, lease)
            digest = await content.put(b"{}")
            assert await content.hold(digest, lease)
            held = db.read_now(lambda c: c.execute("SELECT key FROM lease_items").fetchall())
            assert held == [(digest,)]

    run(layout, db, test)


def test_read_refuses_what_is_absent_large_or_changed(layout, db):
    async def test(content):
        with pytest.raises(NotFound):
            content.read(DIGEST, 10)
        digest = await content.put(b"12345")
        assert content.read(digest, 5) == b"12345"
        with pytest.raises(OutOfRange):
            content.read(digest, 4)
        spoil(layout.blob(digest), b"54321")
        with pytest.raises(DigestMismatch):
            content.read(digest, 5)
        os.unlink(layout.blob(digest))
        os.symlink("/etc/passwd", layout.blob(digest))
        with pytest.raises(OSError, match="symbolic links"):
            content.open(digest)
        with pytest.raises((InvalidArgument, NotFound)):
            content.open("sha256:../../../etc/passwd")

    run(layout, db, test)


def test_delete_takes_row_and_file(layout, db):
    async def test(content):
        digest = await content.put(b"12345")
        await content.delete(digest)
        assert not content.has(digest)
        with pytest.raises(NotFound):
            await content.delete(digest)
        return digest

    digest = run(layout, db, test)
    assert not os.path.exists(layout.blob(digest))


def test_discard_spares_what_came_back(layout, db):
    async def test(content):
        digest = await content.put(b"12345")
        await content.discard([digest])
        assert content.read(digest, 5) == b"12345"

    run(layout, db, test)


def test_reconcile_sweeps_files_without_rows_and_rows_without_files(layout, db):
    async def test(content):
        kept, lost = await content.put(b"kept"), await content.put(b"lost")
        os.unlink(layout.blob(lost))
        stray = layout.blob(DIGEST)
        spoil(stray, b"not verified")
        spoil(f"{layout.blobs}/sha256/no-digest")
        fresh, stale = layout.ingest("aa"), layout.ingest("bb")
        spoil(fresh)
        spoil(stale)
        os.utime(stale, (0, time.time() - STALE_INGEST_S - 60))
        assert content.reconcile() == (lost,)
        assert [row.digest for row in content.walk()] == [kept]
        with pytest.raises(FileNotFoundError):
            os.stat(stray)
        assert ingests(layout) == ["aa"]
        assert content.reconcile() == ()

    run(layout, db, test)
