"""The store looked after: check and repair, policies, filters, and what takes space."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from imagelab import store
from registry_fixture import FakeRegistry, tar
from sampan.errors import InvalidArgument
from sampan.images.checking import Finding
from sampan.images.removal import ImageUser
from sampan.images.retention import Policy, Situation, choose
from sampan.store import uses

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked as root")


def run(tmp_path, work, **options):
    async def main():
        async with FakeRegistry() as fake, store(tmp_path / "s", **options) as one:
            await work(fake, one)

    asyncio.run(main())


async def pulled(fake, one, name="lib/a", **options):
    layers = [tar({f"{name}/x": os.urandom(20_000)}), tar({f"{name}/y": b"y"})]
    pushed = fake.put_image(name, layers=layers, **options)
    await one.service.pull(pushed.reference)
    return pushed


def problems(report):
    return sorted((one.kind, one.mended) for one in report.problems)


# check


def test_a_sound_store_has_no_problems(tmp_path):
    async def work(fake, one):
        pushed = await pulled(fake, one)
        report = await one.service.check()
        assert report.problems == []
        assert (report.images, report.blobs, report.snapshots) == (1, 4, 2)
        assert report.size == sum(row.size for row in one.content.walk())
        assert (await one.service.check(repair=True)).problems == []
        assert (await one.service.get(pushed.reference)).id == pushed.config.digest

    run(tmp_path, work)


def test_damage_is_found_and_mended(tmp_path):
    async def work(fake, one):
        pushed = await pulled(fake, one)
        layer, other = (layer.digest for layer in pushed.layers)
        damage(one.layout.blob(layer))
        os.unlink(one.layout.blob(other))
        stray = one.layout.blob("sha256:" + "0" * 64)
        write(stray, b"stray")
        os.mkdir(f"{one.layout.snapshots}/9999")
        expected = [
            (Finding.BLOB_DAMAGED, False),
            (Finding.BLOB_MISSING, False),
            (Finding.BLOB_UNKNOWN, False),
            (Finding.SNAPSHOT_UNKNOWN, False),
        ]
        assert problems(await one.service.check()) == expected
        report = await one.service.check(repair=True)
        assert problems(report) == [(kind, True) for kind, _ in expected]
        assert (await one.service.check()).problems == []
        await one.service.pull(pushed.reference)
        assert one.content.has(layer)
        assert one.content.has(other)

    run(tmp_path, work)


def damage(path):
    with open(path, "r+b") as file:
        file.seek(5)
        file.write(b"\0\1\2\3")


def write(path, data):
    Path(path).write_bytes(data)


def test_a_lost_snapshot_is_made_again(tmp_path):
    async def work(fake, one):
        pushed = await pulled(fake, one)
        image = await one.service.get(pushed.reference)
        files = one.files(image)
        lowest = min(row.number for row in one.snapshots.walk())
        shutil.rmtree(one.layout.snapshot(lowest))
        report = await one.service.check(repair=True)
        assert (Finding.SNAPSHOT_MISSING, True) in problems(report)
        assert (Finding.LAYER_MISSING, True) in problems(report)
        assert (await one.service.check()).problems == []
        assert one.files(await one.service.get(pushed.reference)) == files

    run(tmp_path, work)


def test_an_image_without_its_documents_is_told(tmp_path):
    async def work(fake, one):
        pushed = await pulled(fake, one)
        os.unlink(one.layout.blob(pushed.config.digest))
        report = await one.service.check(repair=True)
        kinds = dict(problems(report))
        assert kinds[Finding.BLOB_MISSING] is True
        assert kinds[Finding.IMAGE_BROKEN] is False
        await one.service.pull(pushed.reference)
        assert (await one.service.check()).problems == []

    run(tmp_path, work)


# policies


def test_an_age_takes_what_was_not_used(tmp_path):
    async def work(fake, one):
        for name in ("lib/old", "lib/used", "lib/kept", "lib/new"):
            await pulled(fake, one, name)
        ids = {image.names[0]: image.id for image in await one.service.list()}
        long_ago = time.time_ns() - 100 * 10**9
        old = {ids[name]: long_ago for name in ids if "new" not in name}
        await one.db.write(lambda conn: uses.put(conn, old))
        used = next(image for name, image in ids.items() if "used" in name)
        one.service.house.use(used)
        done = await one.service.house.run(Policy(unused_for=50, keep=("*/kept",)))
        assert [step.untagged for step in done.removed if step.untagged] == [
            f"{fake.name}/lib/old:latest"
        ]
        assert len(await one.service.list()) == 3
        assert (await one.service.check()).problems == []

    run(tmp_path, work)


def test_what_a_container_has_stays(tmp_path):
    users = []

    async def work(fake, one):
        await pulled(fake, one)
        image = (await one.service.list())[0]
        users.append(ImageUser(container="c" * 64, image=image.id, running=False))
        await one.service.house.run(Policy(max_size=1))
        assert len(await one.service.list()) == 1
        users.clear()
        done = await one.service.house.run(Policy(max_size=1))
        assert done.removed[-1].deleted == image.id
        assert one.blobs() == set()

    run(tmp_path, work, users=lambda: users)


def test_a_full_disk_makes_room_before_a_pull(tmp_path):
    async def work(fake, one):
        await pulled(fake, one, "lib/first")
        await pulled(fake, one, "lib/second")
        names = [image.names[0] for image in await one.service.list()]
        assert names == [f"{fake.name}/lib/second:latest"]

    run(tmp_path, work, policy=Policy(min_free=1 << 60))


class Picture:
    """What `choose` looks at."""

    def __init__(self, image_id, size, *names):
        self.id, self.size, self.names = image_id, size, names


def test_the_longest_unused_goes_first_and_no_more_than_needed():
    images = [Picture("a", 100, "a:1"), Picture("b", 100, "b:1"), Picture("c", 100, "c:1")]
    used = {"a": 3, "b": 1, "c": 2}

    def chosen(policy, free=0):
        situation = Situation(300, free, used, now_ns=10 * 10**9)
        return [image.id for image in choose(images, policy, situation, frozenset())]

    assert chosen(Policy(max_size=250)) == ["b"]
    assert chosen(Policy(max_size=150)) == ["b", "c"]
    assert chosen(Policy(min_free=150), free=60) == ["b"]
    assert chosen(Policy(min_free=150), free=150) == []
    assert chosen(Policy(max_size=1, keep=("b", "c:*"))) == ["a"]
    assert chosen(Policy(unused_for=100)) == []
    assert chosen(Policy()) == []


# filters


def test_until_and_labels(tmp_path):
    async def work(fake, one):
        await pulled(fake, one, "lib/old", created="2020-01-01T00:00:00Z")
        await pulled(fake, one, "lib/new", created="2024-01-01T00:00:00Z")
        middle = str(1_650_000_000 * 10**9)
        found = await one.service.list({"until": [middle]})
        assert [image.names[0] for image in found] == [f"{fake.name}/lib/old:latest"]
        assert await one.service.list({"label!": ["kind=test"]}) == []
        assert len(await one.service.list({"label!": ["kind=other"]})) == 2
        with pytest.raises(InvalidArgument):
            await one.service.list({"until": ["soon"]})
        await one.service.prune({"dangling": ["false"], "until": [middle]})
        assert len(await one.service.list()) == 1

    run(tmp_path, work)


# space


def test_the_whole_is_what_du_says(tmp_path):
    async def work(fake, one):
        await pulled(fake, one)
        await one.snapshots.prepare("busy", (await one.service.list())[0].chain_id)
        taken = await one.service.store_usage()
        said = du(one.layout.root)
        assert abs(taken.total - said) <= 64 << 10  # the database writes meanwhile
        assert taken.blobs >= sum(row.size for row in one.content.walk())
        assert taken.total == sum(
            getattr(taken, name)
            for name in ("blobs", "layers", "writable", "logs", "volumes", "database", "other")
        )

    run(tmp_path, work)


def test_what_images_share(tmp_path):
    async def work(fake, one):
        common, own = tar({"common": os.urandom(50_000)}), tar({"own": os.urandom(20_000)})
        for name, layers in (("a", [common, own]), ("b", [common]), ("c", [own])):
            await one.service.pull(fake.put_image(f"lib/{name}", layers=layers).reference)
        images = {image.names[0].split("/")[-1]: image for image in await one.service.list()}
        shared = await one.service.shared_sizes(images.values())
        sizes = {name: shared[image.id] for name, image in images.items()}
        assert sizes["a:latest"] == sizes["b:latest"] == images["b:latest"].size
        assert sizes["c:latest"] == 0  # the same bytes above nothing are another layer

    run(tmp_path, work)


def du(path):
    done = subprocess.run(["du", "-s", "-B1", path], capture_output=True, check=True)
    return int(done.stdout.split()[0])
