"""Pull, unpack, push, import and remove with a real store, against registries good and bad."""

from __future__ import annotations

import asyncio
import gzip
import json
import os

import pytest

from imagelab import AMD64, store
from registry_fixture import BASIC, PASSWORD, USER, FakeRegistry, faults, manifest, tar
from sampan.errors import (
    Conflict,
    DataLoss,
    DigestMismatch,
    FailedPrecondition,
    ImageNotFound,
    InvalidArgument,
    ResourceExhausted,
    SampanError,
    Unavailable,
)
from sampan.images.removal import ImageUser
from sampan.registry.credentials import Credentials
from sampan.spec import mediatypes
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor
from sampan.spec.platform import Platform
from sampan.store import leases

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked as root")

LAYERS = [
    tar({"etc/one": b"1" * 5000}),
    tar({"etc/two": os.urandom(400_000)}),
    tar({"etc/three": b"3", "usr/lib/x": b"x"}),
]


def run(tmp_path, work, *, options=None, **registry):
    """Run `work(fake registry, store)`."""

    async def both():
        async with FakeRegistry(**registry) as fake, store(tmp_path, **(options or {})) as one:
            await work(fake, one)

    asyncio.run(both())


@pytest.mark.parametrize("docker", [False, True])
def test_an_image_is_pulled_verified_and_unpacked(tmp_path, docker):
    async def work(fake, one):
        pushed = fake.put_image(layers=LAYERS, docker=docker)
        image = await one.pull(pushed.reference)
        assert image.id == pushed.config.digest
        assert image.names == (pushed.reference,)
        assert image.digests == (f"{fake.name}/test/image@{pushed.descriptor.digest}",)
        assert image.config.config.cmd == ("sh",)
        assert one.files(image) == {"etc/three": b"3", "usr/lib/x": b"x"}
        assert len(one.keys()) == 3
        assert one.leftovers() == []
        assert one.ingests() == []
        short = pushed.layers[0].digest.short
        steps = one.statuses(short)
        assert steps[0] == "Pulling fs layer"
        assert steps[-4:] == [
            "Verifying Checksum",
            "Download complete",
            "Extracting",
            "Pull complete",
        ]
        assert one.statuses()[-2:] == [
            f"Digest: {pushed.descriptor.digest}",
            f"Status: Downloaded newer image for {pushed.reference}",
        ]

    run(tmp_path, work)


def test_a_second_pull_downloads_nothing(tmp_path):
    async def work(fake, one):
        pushed = fake.put_image(layers=LAYERS)
        first = await one.pull(pushed.reference)
        fake.requests.clear()
        one.steps.clear()
        assert await one.pull(pushed.reference) == first
        assert fake.paths("GET") == []
        assert one.statuses(pushed.layers[0].digest.short) == ["Already exists"]
        assert one.statuses()[-1] == f"Status: Image is up to date for {pushed.reference}"

    run(tmp_path, work)


def test_images_share_layers(tmp_path):
    async def work(fake, one):
        await one.pull(fake.put_image("a/one", layers=LAYERS[:1]).reference)
        await one.pull(fake.put_image("b/two", layers=LAYERS[:2]).reference)
        layers = [path for path in fake.paths() if "/blobs/" in path]
        assert len(layers) == len(set(layers)) == 4
        assert len(one.keys()) == 2

    run(tmp_path, work)


def test_pulls_at_the_same_time_download_once(tmp_path):
    async def work(fake, one):
        pushed = fake.put_image(layers=LAYERS)
        images = await asyncio.gather(*[one.pull(pushed.reference) for _ in range(4)])
        assert len({image.id for image in images}) == 1
        blobs = [path for path in fake.paths() if "/blobs/" in path]
        assert len(blobs) == len(set(blobs))
        assert one.leftovers() == []

    run(tmp_path, work)


@pytest.mark.parametrize("docker", [False, True])
def test_an_index_leads_to_the_image_of_the_platform(tmp_path, docker):
    async def work(fake, one):
        arm = fake.put_image(tag="arm", platform=("linux", "arm64"), docker=docker)
        amd = fake.put_image(tag="amd", layers=LAYERS, docker=docker)
        attestation = {"os": "unknown", "architecture": "unknown"}
        other = fake.put_blob(b"{}", mediatypes.OCI_MANIFEST)
        fake.put_index(
            [
                (other, attestation),
                (arm.descriptor, {"os": "linux", "architecture": "arm64", "variant": "v8"}),
                (amd.descriptor, {"os": "linux", "architecture": "amd64"}),
            ],
            docker=docker,
        )
        image = await one.pull(f"{fake.name}/test/image")
        assert image.id == amd.config.digest
        other_image = await one.pull(f"{fake.name}/test/image", platform=Platform("linux", "arm64"))
        assert other_image.id == arm.config.digest
        assert (await one.service.get(f"{fake.name}/test/image")).id == amd.config.digest

    run(tmp_path, work)


def test_a_platform_that_is_not_there_is_told(tmp_path):
    async def work(fake, one):
        arm = fake.put_image(tag="arm", platform=("linux", "arm64"))
        fake.put_index([(arm.descriptor, {"os": "linux", "architecture": "arm64"})])
        with pytest.raises(ImageNotFound, match="no matching manifest for linux/amd64"):
            await one.pull(f"{fake.name}/test/image")
        with pytest.raises(ImageNotFound, match="does not match the specified platform"):
            await one.pull(arm.reference, platform=AMD64)

    run(tmp_path, work)


def test_an_index_that_holds_itself_ends(tmp_path):
    async def work(fake, one):
        deepest = fake.put_image().descriptor
        for level in range(6):
            deepest = fake.put_index([(deepest, None)], tag=f"level{level}")
        with pytest.raises(InvalidArgument, match="nested more than 4 deep"):
            await one.pull(f"{fake.name}/test/image:level5")

    run(tmp_path, work)


def test_an_index_of_very_many_indexes_ends(tmp_path):
    async def work(fake, one):
        leaf = fake.put_blob(b"{}", mediatypes.OCI_MANIFEST)
        foreign = {"os": "plan9", "architecture": "mips"}
        many = [
            fake.put_index([(leaf, {**foreign, "variant": f"v{n}"})], tag=f"i{n}")
            for n in range(50)
        ]
        fake.put_index([(entry, None) for entry in many])
        with pytest.raises(InvalidArgument, match="more than 16 indexes"):
            await one.pull(f"{fake.name}/test/image")

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (lambda content: faults.replaced(b"x" * len(content)), DigestMismatch),
        (lambda content: faults.replaced(content[:-10]), FailedPrecondition),
        (lambda content: faults.replaced(content + b"more"), FailedPrecondition),
        (lambda _: faults.endless(), FailedPrecondition),
        (lambda _: faults.cut(0.3), Unavailable),
        (lambda _: faults.status(404), SampanError),
        (lambda _: faults.status(500), Unavailable),
        (lambda _: faults.wrong_range("bytes 0-{last}/{size}"), Unavailable),
    ],
)
def test_a_bad_layer_leaves_nothing_behind_and_a_good_one_heals(tmp_path, fault, error):
    async def work(fake, one):
        pushed = fake.put_image(layers=LAYERS)
        bad = pushed.layers[1].digest
        fake.faults[bad] = fault(fake.blobs[bad])
        with pytest.raises(error):
            await one.pull(pushed.reference)
        assert await one.service.list() == []
        assert one.leftovers() == []
        assert bad not in one.blobs()
        if error is not Unavailable:
            assert one.ingests() == []
        fake.faults.clear()
        image = await one.pull(pushed.reference)
        assert one.files(image) == {"etc/three": b"3", "usr/lib/x": b"x"}

    run(tmp_path, work)


def test_what_arrived_is_resumed_after_a_restart(tmp_path):
    async def work(fake, one):
        pushed = fake.put_image(layers=LAYERS)
        layer = pushed.layers[1]
        fake.faults[layer.digest] = faults.cut(0.5)
        with pytest.raises(Unavailable):
            await one.pull(pushed.reference)
        fake.faults.clear()
        fake.requests.clear()
        await one.aclose()
        async with store(tmp_path) as again:
            await again.pull(pushed.reference)
        [request] = [r for r in fake.requests if r.path.endswith(layer.digest)]
        start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        assert start >= layer.size // 2

    run(tmp_path, work)


def test_a_registry_that_dies_half_way_is_resumed_within_the_pull(tmp_path):
    async def work(fake, one):
        pushed = fake.put_image(layers=LAYERS)
        for layer in pushed.layers:
            fake.faults[layer.digest] = faults.once(faults.cut(0.5))
        await one.pull(pushed.reference)
        assert len([r for r in fake.requests if "Range" in r.headers]) == 3

    run(tmp_path, work)


def test_a_layer_that_is_not_what_the_config_says_is_refused(tmp_path):
    async def work(fake, one):
        wrong = [Digest.of(b"other"), *map(Digest.of, LAYERS[1:])]
        pushed = fake.put_image(layers=LAYERS, diff_ids=wrong)
        with pytest.raises(DigestMismatch):
            await one.pull(pushed.reference)
        assert one.leftovers() == []
        assert one.keys() == set()

    run(tmp_path, work)


def test_config_and_manifest_must_agree_on_the_number_of_layers(tmp_path):
    async def work(fake, one):
        pushed = fake.put_image(layers=LAYERS, diff_ids=[Digest.of(LAYERS[0])])
        with pytest.raises(InvalidArgument, match="3 layers"):
            await one.pull(pushed.reference)

    run(tmp_path, work)


def test_a_hostile_layer_is_refused_and_undone(tmp_path):
    async def work(fake, one):
        hostile = [LAYERS[0], tar({"../../../escape": b"x"})]
        pushed = fake.put_image(layers=hostile)
        with pytest.raises(SampanError, match=r"unpack layer [0-9a-f]{12}: .*bad name"):
            await one.pull(pushed.reference)
        assert one.leftovers() == []
        assert not list(tmp_path.rglob("escape"))

    run(tmp_path, work)


def test_unknown_layer_types_are_refused_before_a_download(tmp_path):
    async def work(fake, one):
        pushed = fake.put_image()
        strange = Descriptor("application/x-strange", pushed.layers[0].digest, 10)
        content = manifest(mediatypes.OCI_MANIFEST, pushed.config, [strange])
        fake.put_manifest("test/image", "latest", content, mediatypes.OCI_MANIFEST)
        with pytest.raises(InvalidArgument, match="application/x-strange"):
            await one.pull(pushed.reference)
        assert not [path for path in fake.paths() if path.endswith(pushed.layers[0].digest)]

    run(tmp_path, work)


def test_a_cancelled_pull_is_undone(tmp_path):
    async def work(fake, one):
        pushed = fake.put_image(layers=LAYERS)
        reached, opened = asyncio.Event(), asyncio.Event()
        fake.faults[pushed.layers[1].digest] = faults.gate(reached, opened)
        pull = asyncio.create_task(one.pull(pushed.reference))
        await reached.wait()
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        opened.set()
        assert one.leftovers() == []
        assert one.ingests() == []
        assert await one.service.list() == []
        await one.collector.run()
        assert one.blobs() == set()
        assert one.keys() == set()

    run(tmp_path, work)


def test_a_layer_is_unpacked_while_another_still_downloads(tmp_path):
    async def work(fake, one):
        pushed = fake.put_image(layers=LAYERS)
        reached, opened = asyncio.Event(), asyncio.Event()
        unpacked = asyncio.Event()
        fake.faults[pushed.layers[1].digest] = faults.gate(reached, opened)
        first = pushed.layers[0].digest.short

        def report(step):
            if (step.id, step.status) == (first, "Pull complete"):
                unpacked.set()

        pull = asyncio.create_task(one.service.pull(pushed.reference, progress=report))
        await asyncio.wait_for(unpacked.wait(), 20)
        assert reached.is_set()
        opened.set()
        await pull

    run(tmp_path, work)


def test_a_moved_tag_leaves_the_old_image_by_its_digest(tmp_path):
    async def work(fake, one):
        old = fake.put_image(layers=LAYERS[:1])
        await one.pull(old.reference)
        new = fake.put_image(layers=LAYERS[:2], created="2025-01-01T00:00:00Z")
        await one.pull(new.reference)
        found = await one.service.list()
        assert [(image.id, image.names) for image in found] == [
            (new.config.digest, (new.reference,)),
            (old.config.digest, ()),
        ]
        dangling = await one.service.list({"dangling": ["true"]})
        assert [image.id for image in dangling] == [old.config.digest]
        pruned = await one.service.prune()
        assert pruned.removed[-1].deleted == old.config.digest
        assert old.descriptor.digest not in one.blobs()
        assert len(one.keys()) == 2

    run(tmp_path, work)


def test_an_image_is_found_by_name_digest_and_id(tmp_path):
    async def work(fake, one):
        pushed = fake.put_image()
        image = await one.pull(pushed.reference)
        for ref in (
            pushed.reference,
            pushed.reference.removesuffix(":latest"),
            f"{fake.name}/test/image@{pushed.descriptor.digest}",
            image.id,
            image.id.hex,
            image.id.short,
        ):
            assert (await one.service.get(ref)).id == image.id
        for ref in ("nosuch", f"{fake.name}/test/image:other", "0" * 64, "../..", ""):
            with pytest.raises(ImageNotFound, match="No such image"):
                await one.service.get(ref)

    run(tmp_path, work)


def test_tag_and_remove(tmp_path):
    async def work(fake, one):
        pushed = fake.put_image()
        image = await one.pull(pushed.reference)
        await one.service.tag(pushed.reference, "short:1")
        assert (await one.service.get("short:1")).names == (pushed.reference, "short:1")
        with pytest.raises(Conflict, match="must be forced"):
            await one.service.remove(image.id)
        [removed] = await one.service.remove("short:1")
        assert removed.untagged == "short:1"
        gone = await one.service.remove(image.id.short)
        assert [step.deleted for step in gone] == ["", image.id]
        assert one.blobs() == set()
        assert one.keys() == set()
        with pytest.raises(ImageNotFound):
            await one.service.remove(pushed.reference)

    run(tmp_path, work)


def test_an_image_in_use_stays(tmp_path):
    users = []

    async def work(fake, one):
        image = await one.pull(fake.put_image().reference)
        users.append(ImageUser(container="c" * 64, image=image.id, running=False))
        with pytest.raises(Conflict, match="container cccccccccccc is using"):
            await one.service.remove(image.names[0])
        assert (await one.service.prune({"dangling": ["false"]})).removed == ()
        users[0] = ImageUser(container="c" * 64, image=image.id, running=True)
        with pytest.raises(Conflict, match="cannot be forced"):
            await one.service.remove(image.names[0], force=True)
        users[0] = ImageUser(container="c" * 64, image=image.id, running=False)
        assert (await one.service.remove(image.names[0], force=True))[-1].deleted == image.id

    run(tmp_path, work, options={"users": lambda: users})


def test_history_has_the_newest_step_first(tmp_path):
    async def work(fake, one):
        pushed = fake.put_image(layers=LAYERS[:2])
        steps = await one.service.history((await one.pull(pushed.reference)).id)
        assert [step.created_by for step in steps] == ["CMD sh", "layer 1", "layer 0"]
        assert steps[0].id == pushed.config.digest
        assert steps[0].tags == (pushed.reference,)
        assert [step.size > 0 for step in steps] == [False, True, True]

    run(tmp_path, work)


def test_filters(tmp_path):
    async def work(fake, one):
        pushed = fake.put_image()
        image = await one.pull(pushed.reference)
        for filters, count in (
            ({"label": ["kind=test"]}, 1),
            ({"label": ["kind"]}, 1),
            ({"label": ["kind=other"]}, 0),
            ({"reference": ["*/test/image"]}, 1),
            ({"reference": ["busybox"]}, 0),
            ({"dangling": ["false"]}, 1),
            ({"before": [image.id]}, 0),
        ):
            assert len(await one.service.list(filters)) == count, filters
        with pytest.raises(InvalidArgument, match="invalid filter 'colour'"):
            await one.service.list({"colour": ["red"]})

    run(tmp_path, work)


@pytest.mark.parametrize("auth", ["", "basic", "bearer"])
def test_what_was_pulled_can_be_pushed_and_pulled_again(tmp_path, auth):
    async def work(fake, one):
        alice = Credentials(USER, PASSWORD)
        pushed = fake.put_image(layers=LAYERS)
        image = await one.pull(pushed.reference, auth=alice)
        name = f"{fake.name}/other/name:2"
        await one.service.tag(image.id, name)
        fake.blobs.clear()
        digest = await one.service.push(name, auth=alice, progress=one.steps.append)
        assert digest == pushed.descriptor.digest
        assert set(fake.blobs) == {pushed.config.digest, *(d.digest for d in pushed.layers)}
        assert one.statuses()[-1].startswith(f"2: digest: {digest} size: ")
        assert one.statuses(pushed.layers[0].digest.short)[-1] == "Pushed"
        await one.service.push(name, auth=alice, progress=one.steps.append)
        assert one.statuses(pushed.layers[0].digest.short)[-1] == "Layer already exists"
        if auth:
            assert BASIC in fake.authorizations()

    run(tmp_path, work, auth=auth)


async def pieces(content, size=1000):
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_tar_becomes_an_image(tmp_path, compress):
    async def work(_, one):
        content = compress(tar({"bin/x": b"x"}))
        changes = ['CMD ["/bin/x"]', "ENV A=1", "LABEL a=b"]
        image = await one.service.import_tar(pieces(content), "mine:1", changes=changes)
        assert image.names == ("mine:1",)
        assert image.config.config.cmd == ("/bin/x",)
        assert image.config.config.env == ("A=1",)
        assert image.config.rootfs_diff_ids == (Digest.of(tar({"bin/x": b"x"})),)
        assert one.files(image) == {"bin/x": b"x"}
        assert one.leftovers() == []
        unnamed = await one.service.import_tar(pieces(tar({"y": b"y"})))
        assert unnamed.names == ()
        assert len(await one.service.list()) == 2

    run(tmp_path, work)


@pytest.mark.parametrize("content", [b"", b"this is no tar" * 100, b"BZh91AY", b"\xfd7zXZ\0"])
def test_what_is_no_tar_is_refused_and_leaves_nothing(tmp_path, content):
    async def work(_, one):
        with pytest.raises((InvalidArgument, DataLoss)):
            await one.service.import_tar(pieces(content), "mine")
        assert await one.service.list() == []
        assert one.leftovers() == []
        assert one.ingests() == []

    run(tmp_path, work)


def test_lost_snapshots_are_made_again_from_the_blobs(tmp_path):
    async def work(fake, one):
        image = await one.pull(fake.put_image(layers=LAYERS).reference)
        await one.snapshots.remove(image.chain_id)
        fake.requests.clear()
        again = await one.service.unpack(image.names[0])
        assert one.files(again) == {"etc/three": b"3", "usr/lib/x": b"x"}
        assert fake.requests == []

    run(tmp_path, work)


def test_a_damaged_image_hides_no_other_and_can_be_removed(tmp_path):
    async def work(fake, one):
        good = await one.pull(fake.put_image("test/good").reference)
        bad = fake.put_image("test/bad", created="2020-01-01T00:00:00Z")
        await one.pull(bad.reference)
        await one.content.delete(bad.config.digest)
        one.service._lookup.documents.forget(bad.descriptor.digest)
        assert [image.id for image in await one.service.list()] == [good.id]
        assert (await one.service.get(good.id)).id == good.id
        with pytest.raises(DataLoss, match="its config is gone"):
            await one.service.get(bad.reference)
        assert [step.untagged for step in await one.service.remove(bad.reference)] == [
            bad.reference
        ]
        assert [image.id for image in await one.service.list()] == [good.id]

    run(tmp_path, work)


def test_a_full_disk_is_told_and_healed(tmp_path):
    """A tmpfs of 3 MiB: the blob fits, what it unpacks to does not."""
    disk = tmp_path / "disk"
    disk.mkdir()
    big = [tar({"zeros": bytes(16 << 20)})]

    async def work():
        async with FakeRegistry() as fake:
            pushed = fake.put_image(layers=big)
            async with store(disk) as one:
                with pytest.raises(ResourceExhausted, match="unpack layer"):
                    await one.pull(pushed.reference)
                assert one.leftovers() == []
                assert await one.service.list() == []
                small = await one.pull(fake.put_image("test/small").reference)
                assert one.files(small) == {"etc/hello": b"hello\n"}

    on_tmpfs(disk, "3m", work)


def test_a_disk_that_fills_while_downloading_is_told(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    big = [tar({f"random{n}": os.urandom(1 << 20)}) for n in range(4)]

    async def work():
        async with FakeRegistry() as fake:
            pushed = fake.put_image(layers=big)
            async with store(disk) as one:
                with pytest.raises(ResourceExhausted):
                    await one.pull(pushed.reference)
                assert one.leftovers() == []
                assert one.ingests() == []
                await one.collector.run()
                assert one.blobs() == set()

    on_tmpfs(disk, "3m", work)


def on_tmpfs(path, size, work):
    """Run `work()` in a child with a private mount namespace and a tmpfs of `size` on `path`."""
    import ctypes
    import traceback

    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.unshare(0x00020000) == 0
            assert libc.mount(b"none", b"/", None, 0x44000, None) == 0
            options = f"size={size}".encode()
            assert libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, options) == 0
            asyncio.run(work())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_lease_of_a_dead_engine_does_not_block_the_next_pull(tmp_path):
    async def work(fake, one):
        pushed = fake.put_image()
        await one.db.write(leases.create)
        await one.pull(pushed.reference)
        assert json.loads(one.content.read(pushed.config.digest, 10_000))["os"] == "linux"

    run(tmp_path, work)
