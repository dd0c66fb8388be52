"""kill -9 of the store at each step of its work, and at random; then open it again.

The work is a life of an image and a container: ingest, commit, unpack, name, create, remove,
collect. A child process kills itself with SIGKILL at its n-th step, for every n: a step is a system
call that changes files (seen by audit hooks; fsync and write by wrappers) or an SQL statement of
the writer. After each stage the child writes what is now true to a pipe: that is an answer given.

A fresh process then opens the store and checks: no answer is lost, nothing is half there, rows and
files agree, the trash is empty; and it can live the same life to its end and leave nothing behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from sampan.snapshots.overlay import OverlaySnapshotter
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor
from sampan.store import containers, events, gc, images, leases
from sampan.store.containers import ContainerRow
from sampan.store.content import ContentStore
from sampan.store.database import Database
from sampan.store.ingest import BLOCK
from sampan.store.layout import Layout
from sampan.store.locks import RootLock

LAYER = bytes(range(256)) * (2 * BLOCK // 256) + b"end"
LAYER_DIGEST = Digest.of(LAYER)
CONFIG, MANIFEST = b"config", b"manifest"
TARGET = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(MANIFEST), 8)
BOX = ContainerRow("c" * 64, "box", "{}", "rw", Digest.of(CONFIG), 1)

# What a process may have done when it died; a stage is true before its successor is begun.
STAGES = ["opened", "half", "layer", "config", "manifest", "low", "top", "named"]
STAGES += ["created", "removed", "unnamed", "collected"]

STEPS = {
    "sql BEGIN",
    "sql INSERT",
    "sql UPDATE",
    "sql DELETE",
    "sql COMMIT",
    "write",
    "fsync",
    "os.rename ingest",
    "os.rename snapshots",
    "os.mkdir snapshots",
    "os.mkdir blobs",
    "os.chmod snapshots",
    "os.remove blobs",
    "os.remove trash",
    "os.rmdir trash",
}


class Store:
    def __init__(self, root):
        self.layout = Layout(f"{root}/root", f"{root}/state")
        self.layout.create()
        self.lock = RootLock(self.layout.lock)
        self.lock.acquire()
        self.db = Database.open(self.layout.database)
        self.content = ContentStore(self.layout, self.db)
        self.snapshots = OverlaySnapshotter(self.layout, self.db)

    async def aclose(self):
        """Close, after the deletions that an engine would go on with."""
        self.snapshots._own.shutdown(wait=True)
        await self.snapshots.aclose()
        await self.content.aclose()
        await self.db.close()
        self.lock.release()

    async def live(self, answer):
        """The whole life; `answer(stage)` after each stage. Works from any state."""
        answer("opened")
        lease = await self.db.write(leases.create)
        descriptor = Descriptor("layer", LAYER_DIGEST, len(LAYER))
        if not await self.content.hold(LAYER_DIGEST, lease):
            async with await self.content.writer("x", descriptor, lease=lease) as writer:
                await writer.write(LAYER[writer.offset : BLOCK])
            answer("half")
            async with await self.content.writer("x", descriptor, lease=lease) as writer:
                await writer.write(LAYER[writer.offset :])
                await writer.commit()
        answer("layer")
        await self.content.put(CONFIG, snapshots=["top"], lease=lease)
        answer("config")
        children = [Digest.of(CONFIG), LAYER_DIGEST]
        await self.content.put(MANIFEST, links=children, lease=lease)
        answer("manifest")
        await self.unpack("low", None, lease)
        answer("low")
        await self.unpack("top", "low", lease)
        answer("top")
        await self.db.write(lambda conn: images.put(conn, "busybox", TARGET))
        await self.db.write(lambda conn: leases.release(conn, lease))
        answer("named")
        await self.db.write(self.create)
        answer("created")
        self.snapshots.discard([await self.db.write(self.remove)])
        answer("removed")
        await self.db.write(lambda conn: images.delete(conn, "busybox"))
        answer("unnamed")
        await gc.Collector(self.db, self.content, self.snapshots.discard).run()
        answer("collected")

    async def unpack(self, name, parent, lease):
        if await self.snapshots.hold(name, lease):
            return
        key = f"make {name} {time.monotonic_ns()}"
        mount = await self.snapshots.prepare(key, None, lease=lease)
        os.mkdir(f"{mount['source']}/{name}")
        Path(f"{mount['source']}/{name}/file").write_text(name)  # noqa: ASYNC240
        await self.snapshots.commit(name, key, parent=parent, lease=lease)

    def create(self, conn):
        containers.delete(conn, BOX.id)
        self.snapshots.prepare_now(conn, "rw", "top")
        containers.insert(conn, BOX)
        events.append(conn, "create")

    def remove(self, conn):
        containers.delete(conn, BOX.id)
        events.append(conn, "destroy")
        return self.snapshots.remove_now(conn, "rw")

    def truths(self):
        """Which stages' outcome is there, told by rows alone."""
        names = {row.key for row in self.snapshots.walk()}
        found = {name for name in ("low", "top") if name in names}
        found |= {
            name
            for name, data in (("layer", LAYER), ("config", CONFIG), ("manifest", MANIFEST))
            if self.content.has(Digest.of(data))
        }
        found |= {"named" for _ in self.db.read_now(images.list)}
        found |= {"created" for _ in self.db.read_now(containers.list)}
        assert ("rw" in names) == ("created" in found)
        bodies = [event.body for event in self.db.read_now(events.read)]
        assert (bodies == ["create"]) == ("created" in found)
        return found


def expected(answered):
    """What must be there after the last answer, and what may be: the next stage may be done."""
    at = STAGES.index(answered)
    pulled = ["layer", "config", "manifest", "low", "top", "named", "created"]
    must = [stage for stage in pulled if STAGES.index(stage) <= at]
    may = [stage for stage in pulled if STAGES.index(stage) <= at + 1]
    for gone, stage in (("removed", "created"), ("unnamed", "named")):
        if at + 1 >= STAGES.index(gone) and stage in must:
            must.remove(stage)
        if at >= STAGES.index(gone):
            may.remove(stage)
    if answered == "unnamed":
        must = []
    if answered == "collected":
        must, may = [], []
    return set(must), set(may)


def check_files(store):
    """Rows and files agree, and content is what its digest says."""
    layout = store.layout
    rows = {row.digest: row.size for row in store.content.walk()}
    directory = f"{layout.blobs}/sha256"
    files = os.listdir(directory) if os.path.isdir(directory) else []
    assert {f"sha256:{name}" for name in files} == set(rows)
    for digest, size in rows.items():
        data = store.content.read(digest, len(LAYER))
        assert len(data) == size
        assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
    walked = store.snapshots.walk()
    assert {str(row.number) for row in walked} == set(os.listdir(layout.snapshots))
    for row in walked:
        if row.key in ("low", "top"):
            path = Path(f"{layout.snapshot(row.number)}/fs/{row.key}/file")
            assert path.read_text() == row.key


async def recover(root, answered):
    """In a fresh process: open, check what was answered, live on to the end, leave nothing."""
    store = Store(root)
    check = store.db.read_now(lambda conn: conn.execute("PRAGMA integrity_check").fetchall())
    assert check == [("ok",)]
    assert store.db.read_now(lambda c: c.execute("PRAGMA foreign_key_check").fetchall()) == []
    assert store.content.reconcile() == ()
    left = store.snapshots.reconcile()
    assert (left.lost, left.damaged) == ((), ())
    must, may = expected(answered)
    found = store.truths()
    assert must <= found <= may, (answered, found)
    check_files(store)

    # An engine's recovery: what was created is removed or kept by its record; leases end in time.
    if "created" in found:
        store.snapshots.discard([await store.db.write(store.remove)])
    await store.live(lambda _: None)
    await store.db.write(lambda conn: leases.expire(conn, 1 << 62))
    await gc.Collector(store.db, store.content, store.snapshots.discard).run()
    check_files(store)
    assert store.truths() == set()
    await store.aclose()
    for path in (store.layout.trash, store.layout.snapshots, f"{store.layout.blobs}/sha256"):
        assert os.listdir(path) == [], path
    # A put that died half-way leaves an ingest that nobody resumes; it goes after a day.
    assert len(os.listdir(store.layout.ingests)) <= 1


class Steps:
    """Counts steps, and dies at one of them."""

    def __init__(self, die_at, pipe, root):
        self.left, self.pipe, self.root = die_at, pipe, root
        self.write, self.fsync = os.write, os.fsync

    def step(self, name):
        self.left -= 1
        if self.left == 0:
            self.write(self.pipe, f"step {name}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def answer(self, stage):
        self.write(self.pipe, f"stage {stage}\n".encode())

    def audit(self, event, args):
        if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod"):
            path = str(args[0])
            # Removal works with names in directory descriptors: those are in the trash.
            room = path.removeprefix(f"{self.root}/root/").split("/")[0] if "/" in path else "trash"
            self.step(f"{event} {room}")

    def install(self, store):
        sys.addaudithook(self.audit)
        os.write = lambda fd, data: (self.step("write"), self.write(fd, data))[1]
        os.fsync = lambda fd: (self.step("fsync"), self.fsync(fd))[1]
        store.db._writer.set_trace_callback(lambda sql: self.step("sql " + sql.split()[0].upper()))


def die_while_living(root, die_at, pipe, ready):
    async def main():
        store = Store(root)
        steps = Steps(die_at, pipe, root)
        steps.install(store)
        if ready:  # as an engine does: with directories made ahead, in the background
            store.snapshots.reconcile()
        await store.live(steps.answer)
        await store.aclose()
        steps.answer("end")

    asyncio.run(main())


def in_child(fn, *args):
    """Run `fn` in a forked process; return its wait status."""
    pid = os.fork()
    if pid:
        return pid
    try:
        fn(*args)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def read_all(fd):
    with os.fdopen(fd) as file:
        return [line.split(" ", 1) for line in file.read().splitlines()]


def one_round(root, die_at, *, ready=False, kill_after=None):
    """One life with a death, one recovery; returns the step it died at, None when it lived."""
    os.mkdir(root)
    reader, writer = os.pipe()
    pid = in_child(die_while_living, root, die_at, writer, ready)
    os.close(writer)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    lines = read_all(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), lines
    stages = [what for kind, what in lines if kind == "stage"]
    answered = [stage for stage in stages if stage in STAGES]
    pid = in_child(lambda: asyncio.run(recover(root, answered[-1] if answered else "opened")))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"recovery failed after {lines}"
    died_at = [what for kind, what in lines if kind == "step"]
    return died_at[0] if died_at else ("end" if "end" in stages else "random")


def sweep(top, stride, ready):
    """Die at each (or every few) steps in turn, until a life ends before its step comes."""
    seen, n = set(), 1
    while (name := one_round(f"{top}/{n}", n, ready=ready)) != "end":
        seen.add(name)
        n += stride
    sys.stdout.write("\n".join(sorted(seen)))


def at_random(top, rounds):
    rng = random.Random(time.monotonic_ns())
    for n in range(rounds):
        one_round(f"{top}/{n}", 0, ready=n % 2 == 0, kill_after=rng.uniform(0.0, 0.08))


if __name__ == "__main__":
    if sys.argv[1] == "sweep":
        sweep(sys.argv[2], int(sys.argv[3]), ready=sys.argv[4] == "ready")
    else:
        at_random(sys.argv[2], int(sys.argv[3]))


def run_script(*args):
    """A process of its own: it forks, and pytest's has threads."""
    command = [sys.executable, "-X", "faulthandler", __file__, *map(str, args)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def test_death_at_each_step_loses_nothing_and_leaves_nothing(tmp_path):
    seen = run_script("sweep", tmp_path, 1, "bare").splitlines()
    assert set(seen) >= STEPS


def test_death_while_directories_are_made_ahead(tmp_path):
    seen = run_script("sweep", tmp_path, 4, "ready").splitlines()
    assert "os.mkdir trash" in seen  # sets are built there


def test_death_at_random_loses_nothing_and_leaves_nothing(tmp_path):
    run_script("random", tmp_path, 15)
