"""kill -9 of pulls, loads, pushes, copies, removals and collections, at random moments.

A child process does one thing after another with one store until it is killed. A new process opens
the store: the check finds nothing wrong, what the child had said is true, and the next pull takes
up what was there. `SAMPAN_KILLS` says how often, `SAMPAN_KILLS_FROM` with which seed it begins; the
default is for every run of the tests. The whole loop, three times with FROM 0, 170 and 340:

    SAMPAN_KILLS=170 SAMPAN_KILLS_FROM=0 scripts/test --timeout 560 tests/faults/test_image_kill.py
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from imagelab import store
from registry_fixture import FakeRegistry, tar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked as root")
KILLS = int(os.environ.get("SAMPAN_KILLS", "8"))
FIRST = int(os.environ.get("SAMPAN_KILLS_FROM", "0"))
LONGEST = 0.25  # seconds that a child may live once it works
PATIENCE = 30
TESTS = os.path.dirname(os.path.dirname(__file__))

CHILD = """
import asyncio, os, random, sys
sys.path[:0] = [lab["tests"], lab["sources"]]
from imagelab import Store
from sampan.images.retention import Policy
from sampan.errors import SampanError

async def file():
    with open(lab["archive"], "rb") as archive:
        while piece := archive.read(50_000):
            yield piece

async def one_thing(one, chance):
    name = lab["names"][chance.randrange(len(lab["names"]))]
    match chance.randrange(8):
        case 0 | 1 | 2:
            await one.service.pull(name)
        case 3:
            await one.service.load(file())
        case 4:
            await one.service.push(name)
        case 5:
            await one.service.copy(name, lab["copy"])
        case 6:
            await one.service.remove(name, force=True)
        case _:
            await one.service.house.run(Policy(max_size=1))

async def main():
    one = Store(lab["root"])
    chance = random.Random(lab["seed"])
    os.write(1, b"!")
    while True:
        try:
            await one_thing(one, chance)
        except SampanError:
            continue  # removed before, or never pulled

asyncio.run(main())
"""


@contextmanager
def registry():
    """A registry with a few images, served by a thread that outlives the children."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    held = {}

    async def serve():
        async with FakeRegistry() as fake:
            shared = tar({"shared": os.urandom(400_000)})
            for number in range(3):
                own = tar({f"own{number}": os.urandom(300_000), "etc/x": b"%d" % number})
                fake.put_image("lib/a", str(number), layers=[shared, own])
            held.update(fake=fake, end=asyncio.Event())
            ready.set()
            await held["end"].wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield held["fake"]
    finally:
        loop.call_soon_threadsafe(held["end"].set)
        thread.join(PATIENCE)
        loop.close()


def live(lab, seconds):
    """Run a child until it works, and `seconds` longer."""
    code = f"lab = {lab!r}\n{CHILD}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout.read(1) == b"!"
        # The moment is what the test is about; an exit before it is a defect.
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN | select.POLLHUP)
        assert poll.poll(seconds * 1000) == []
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()


async def check(root, names):
    """Open the store, find nothing wrong, and live on."""
    async with store(root) as one:
        report = await one.service.check()
        assert report.problems == []
        image = await one.service.pull(names[0])
        assert len(one.files(image)) == 2
        assert (await one.service.check()).problems == []
        await one.service.house.run()
        active = [row.key for row in one.snapshots.walk() if row.kind != "committed"]
        assert active == []


def test_no_kill_leaves_anything_wrong(tmp_path):
    with registry() as fake:
        names = [f"{fake.name}/lib/a:{number}" for number in range(3)]
        archive = tmp_path / "a.tar"
        asyncio.run(save(tmp_path / "saved", names, archive))
        lab = {
            "tests": TESTS,
            "sources": os.path.join(os.path.dirname(TESTS), "src"),
            "root": str(tmp_path / "s"),
            "names": names,
            "copy": f"{fake.name}/copied:1",
            "archive": str(archive),
        }
        (tmp_path / "s").mkdir()
        for number in range(FIRST, FIRST + KILLS):
            chance = random.Random(number)  # the same order of things; the moments differ
            live({**lab, "seed": number}, chance.uniform(0, LONGEST))
            asyncio.run(check(tmp_path / "s", names))
            assert leases(tmp_path / "s") <= number - FIRST + 1


async def save(root, names, archive):
    async with store(root) as one:
        for name in names:
            await one.service.pull(name)
        with open(archive, "wb") as file:  # noqa: ASYNC230 - a test waits for its files
            async for piece in await one.service.save(names):
                file.write(piece)


def leases(root):
    """Those of killed children stay until their deadline."""
    import sqlite3

    with sqlite3.connect(root / "root/metadata.db") as conn:
        (count,) = conn.execute("SELECT count(*) FROM leases").fetchone()
    conn.close()
    return count
