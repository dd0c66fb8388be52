"""Images to archives and back, and what an archive cannot do to us."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zstandard

from enginelab import eventually
from imagelab import store
from layer_tars import END, directory, file, head, symlink
from sampan.errors import (
    Conflict,
    DigestMismatch,
    ImageNotFound,
    InvalidArgument,
    NotFound,
)
from sampan.images.saving import ArchiveFormat
from sampan.layers import limits
from sampan.spec.image import ImageConfig, RunConfig
from sampan.spec.platform import Platform
from treelab import describe, make_rich

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="snapshots need root")

CONFIG = ImageConfig(architecture="amd64", os="linux", config=RunConfig(cmd=("/bin/sh",)))


async def pieces(data: bytes, size: int = 70_000):
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def saved(one, *refs, **options) -> bytes:
    return b"".join([piece async for piece in await one.service.save(refs, **options)])


async def base(one, *names: str, mark: str = "") -> object:
    async with one.service.lease() as lease:
        word = await one.snapshots.prepare("base", None, lease=lease)
        fill(Path(word["source"]), mark)
        layer = await one.service.commit_layer("base", lease=lease)
        image = await one.service.create_image(CONFIG, [layer], names[0], lease=lease)
        await one.snapshots.remove("base")
    for name in names[1:]:
        await one.service.tag(names[0], name)
    return image


def fill(path: Path, mark: str) -> None:
    make_rich(path)
    (path / "mark").write_text(mark)


@asynccontextmanager
async def two(tmp_path):
    async with store(tmp_path / "a") as one, store(tmp_path / "b") as other:
        yield one, other


def top(one, image) -> str:
    number = next(row.number for row in one.snapshots.walk() if row.key == image.chain_id)
    return f"{one.layout.snapshot(number)}/fs"


def mark(one, image) -> bytes:
    return Path(top(one, image), "mark").read_bytes()


COMPRESSIONS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", ArchiveFormat)
def test_what_is_saved_is_loaded(tmp_path, kind, compression):
    async def main():
        async with two(tmp_path) as (one, other):
            image = await base(one, "a:1", "b.example/c:2")
            await one.service.tag("a:1", "a:2")
            data = await saved(one, "a:1", "b.example/c", kind=kind)
            assert data == await saved(one, "a:1", "b.example/c", kind=kind)
            loaded = await other.service.load(pieces(COMPRESSIONS[compression](data)))
            assert [(each.id, sorted(each.names)) for each in loaded] == [
                (image.id, ["a:1", "b.example/c:2"])
            ]
            again = await other.service.get("a:1")
            assert (again.id, again.target.digest) == (image.id, image.target.digest)
            assert describe(top(other, again)) == describe(top(one, image))
            assert other.leftovers() == []
            await eventually(lambda: os.listdir(other.layout.trash) == [])
            assert await saved(other, "a:1", "b.example/c", kind=kind) == data

    asyncio.run(main())


def test_an_id_is_saved_without_names_and_several_at_once(tmp_path):
    async def main():
        async with two(tmp_path) as (one, other):
            first = await base(one, "a:1")
            second = await base(one, "b:1", mark="b")
            loaded = await other.service.load(pieces(await saved(one, first.id, "b:1")))
            assert {each.id: each.names for each in loaded} == {first.id: (), second.id: ("b:1",)}
            assert (await other.service.get(first.id)).names == ()
            await other.collector.run()
            assert {image.id for image in await other.service.list()} == {first.id, second.id}

    asyncio.run(main())


def test_a_name_that_is_taken_moves_and_nothing_is_lost(tmp_path):
    async def main():
        async with two(tmp_path) as (one, other):
            image = await base(one, "a:1")
            mine = await base(other, "a:1", mark="mine")
            await other.service.load(pieces(await saved(one, "a:1")))
            assert (await other.service.get("a:1")).id == image.id
            assert (await other.service.get(mine.id)).names == ()

    asyncio.run(main())


def test_loading_twice_changes_nothing(tmp_path):
    async def main():
        async with two(tmp_path) as (one, other):
            await base(one, "a:1")
            data = await saved(one, "a:1")
            await other.service.load(pieces(data))
            before = other.blobs(), other.keys()
            await other.service.load(pieces(data))
            assert (other.blobs(), other.keys()) == before

    asyncio.run(main())


def entries(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}


def archive(files: dict[str, bytes]) -> bytes:
    return b"".join(file(name.encode(), data) for name, data in files.items()) + END


def layer(mark: bytes) -> bytes:
    return file(b"mark", mark) + END


def legacy(*layers: bytes, names=("old:1",), config=None, **more) -> dict[str, bytes]:
    """Docker's format before it was a layout too: an id for each layer."""
    diff_ids = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        **(config or {}),
    }
    text = json.dumps(document).encode()
    name = hashlib.sha256(text).hexdigest() + ".json"
    files = {f"{number}/layer.tar": data for number, data in enumerate(layers)}
    manifest = [{"Config": name, "RepoTags": list(names), "Layers": list(files), **more}]
    return {**files, name: text, "manifest.json": json.dumps(manifest).encode()}


def test_dockers_older_format(tmp_path):
    async def main():
        async with store(tmp_path) as one:
            zipped = gzip.compress(layer(b"zipped"))
            files = legacy(layer(b"one"), layer(b"two"))
            loaded = await one.service.load(pieces(archive(files)))
            assert loaded[0].names == ("old:1",)
            image = await one.service.get("old:1")
            assert f"{image.id.hex}.json" in files
            assert mark(one, image) == b"two"
            files = legacy(layer(b"one"), layer(b"zipped"), names=["z:1"])
            await one.service.load(pieces(archive({**files, "1/layer.tar": zipped})))
            image = await one.service.get("z:1")
            assert image.layers[1].media_type.endswith("gzip")
            assert mark(one, image) == b"zipped"

    asyncio.run(main())


def test_links_between_layers(tmp_path):
    async def main():
        async with store(tmp_path) as one:
            files = legacy(*[layer(b"one")] * 9)
            links = b""
            for number in range(1, 9):
                del files[f"{number}/layer.tar"]
                links += directory(b"%d" % number)
                links += symlink(b"%d/layer.tar" % number, b"../0/layer.tar")
            data = b"".join(file(name.encode(), text) for name, text in files.items())
            await one.service.load(pieces(links + data + END))
            assert len((await one.service.get("old:1")).layers) == 9

    asyncio.run(main())


def image_of(files: dict[str, bytes]) -> tuple[dict[str, object], str]:
    index = json.loads(files["index.json"])
    return index, f"blobs/{index['manifests'][0]['digest'].replace(':', '/')}"


WRONG = {
    "nothing": (lambda files: {}, "nothing in it"),
    "no manifest": (lambda files: {"readme": b"x"}, "neither manifest.json nor index.json"),
    "blob missing": (
        lambda files: {n: d for n, d in files.items() if len(d) != max(map(len, files.values()))},
        "is not in it",
    ),
    "index is a list": (lambda files: {**files, "index.json": b"[]"}, "object is expected"),
    "index of another version": (
        lambda files: {**files, "oci-layout": b'{"imageLayoutVersion":"2.0.0"}'},
        "version",
    ),
    "manifest.json is an object": (lambda files: {"manifest.json": b"{}"}, "list"),
    "bad name": (
        lambda files: legacy(layer(b"x"), names=["../../etc"]),
        "invalid reference",
    ),
    "name with a digest": (
        lambda files: legacy(layer(b"x"), names=["a@sha256:" + "0" * 64]),
        "digest instead of a tag",
    ),
    "path out of the archive": (
        lambda files: {
            "manifest.json": b'[{"Config":"../../etc/passwd","RepoTags":[],"Layers":[]}]'
        },
        "is not in it",
    ),
    "key twice": (
        lambda files: {"manifest.json": b'[{"Config":"a","Config":"b","Layers":[]}]'},
        "twice",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_archives(tmp_path, case):
    change, text = WRONG[case]

    async def main():
        async with two(tmp_path) as (one, other):
            await base(one, "a:1")
            files = entries(await saved(one, "a:1", kind=ArchiveFormat.OCI))
            with pytest.raises(InvalidArgument, match=text):
                await other.service.load(pieces(archive(change(files))))
            await check_untouched(other)

    asyncio.run(main())


async def check_untouched(one) -> None:
    await one.collector.run()
    assert one.blobs() == set()
    assert one.keys() == set()
    assert one.leftovers() == []
    assert one.ingests() == []
    await eventually(lambda: os.listdir(one.layout.trash) == [])
    assert await one.service.list() == []


RAW = {
    "no tar": (b"hello" * 300, "checksum|tar|magic|header"),
    "cut off": (file(b"a", bytes(5000))[:3000], "ends in the middle"),
    "out of it": (file(b"../x") + END, "bad name"),
    "device": (head(b"null", kind=b"3", major=1, minor=3) + END, "neither a file nor a link"),
    "fifo": (head(b"fifo", kind=b"6") + END, "neither a file nor a link"),
    "twice": (file(b"a") + file(b"./a") + END, "twice"),
    "link out": (symlink(b"manifest.json", b"../x") + END, "links out"),
    "absolute link": (symlink(b"manifest.json", b"/etc/passwd") + END, "links out"),
    "circle": (symlink(b"manifest.json", b"a") + symlink(b"a", b"manifest.json") + END, "neither"),
    "not UTF-8": (file(b"\xff") + END, "UTF-8"),
    "damaged gzip": (gzip.compress(file(b"a") + END)[:-9], "damaged"),
}


@pytest.mark.parametrize("case", RAW)
def test_hostile_archives(tmp_path, case):
    data, text = RAW[case]

    async def main():
        async with store(tmp_path) as one:
            with pytest.raises(InvalidArgument, match=text):
                await one.service.load(pieces(data))
            await check_untouched(one)

    asyncio.run(main())


def test_too_many_files(tmp_path):
    data = b"".join(head(b"%d" % n) for n in range(limits.MAX_ARCHIVE_FILES + 1)) + END

    async def main():
        async with store(tmp_path) as one:
            with pytest.raises(InvalidArgument, match="more than"):
                await one.service.load(pieces(data))
            await check_untouched(one)

    asyncio.run(main())


def test_a_blob_that_lies_about_its_digest(tmp_path):
    async def main():
        async with two(tmp_path) as (one, other):
            await base(one, "a:1")
            files = entries(await saved(one, "a:1"))
            largest = max(files, key=lambda name: len(files[name]))
            files[largest] = files[largest][:-1] + b"x"
            with pytest.raises(DigestMismatch):
                await other.service.load(pieces(archive(files)))
            await check_untouched(other)
            files = legacy(layer(b"one"))
            files["0/layer.tar"] = layer(b"two")
            with pytest.raises(DigestMismatch, match="diff id"):
                await other.service.load(pieces(archive(files)))
            await check_untouched(other)

    asyncio.run(main())


def test_a_source_that_breaks_off_leaves_nothing(tmp_path):
    async def broken(data):
        yield data[:100_000]
        raise ConnectionResetError

    async def main():
        async with two(tmp_path) as (one, other):
            await base(one, "a:1")
            data = await saved(one, "a:1")
            with pytest.raises(Exception):  # noqa: B017 - which one is the source's
                await other.service.load(broken(data))
            await check_untouched(other)

    asyncio.run(main())


def test_an_index_is_kept_whole(tmp_path):
    async def main():
        async with two(tmp_path) as (one, other):
            files = await many_platforms(one)
            loaded = await one.service.load(pieces(archive(files)))
            assert loaded[0].names == ("multi:1",)
            arm = Platform("linux", "arm64")
            image = await one.service.get("multi:1", arm)
            assert image.config.architecture == "arm64"
            again = await saved(one, "multi:1", kind=ArchiveFormat.OCI)
            assert json.loads(entries(again)["index.json"])["manifests"][0]["mediaType"].endswith(
                "index.v1+json"
            )
            await other.service.load(pieces(again), platforms=[arm])
            assert (await other.service.get("multi:1")).id
            only = await saved(one, "multi:1", platforms=[arm])
            assert len(entries(only)) == 4 + 3
            with pytest.raises(ImageNotFound):
                await other.service.load(pieces(again), platforms=[Platform("linux", "s390x")])

    asyncio.run(main())


def test_some_platforms_of_an_index(tmp_path):
    amd, arm, riscv = (Platform("linux", name) for name in ("amd64", "arm64", "riscv64"))

    async def main():
        async with two(tmp_path) as (one, other):
            files = await many_platforms(one, "amd64", "arm64", "riscv64")
            await one.service.load(pieces(archive(files)), platforms=[amd, arm])
            data = await saved(one, "multi:1", platforms=[arm, amd])
            assert len(entries(data)) == 4 + 1 + 2 * 3
            await other.service.load(pieces(data), platforms=[amd, arm])
            for platform in (amd, arm):
                assert (await other.service.get("multi:1", platform)).id
                assert (await other.service.unpack("multi:1", platform)).size
            with pytest.raises(ImageNotFound):
                await saved(other, "multi:1", platforms=[amd, riscv])

    asyncio.run(main())


def test_platforms_are_removed_one_by_one(tmp_path):
    amd, arm = Platform("linux", "amd64"), Platform("linux", "arm64")

    async def main():
        async with store(tmp_path) as one:
            files = await many_platforms(one)
            await one.service.load(pieces(archive(files)))
            gone = await one.service.get("multi:1", amd)
            [removed] = await one.service.remove("multi:1", platforms=[amd])
            with pytest.raises(ImageNotFound):
                await one.service.get("multi:1", amd)
            assert not one.content.has(removed.deleted)
            assert not one.content.has(gone.id)
            assert (await one.service.get("multi:1")).config.architecture == "arm64"
            with pytest.raises(ImageNotFound):
                await one.service.remove("multi:1", platforms=[amd])
            with pytest.raises(Conflict, match="without any platform"):
                await one.service.remove("multi:1", platforms=[arm])
            await one.service.load(pieces(archive(files)))
            assert (await one.service.get("multi:1", amd)).id == gone.id

    asyncio.run(main())


async def many_platforms(one, *architectures: str) -> dict[str, bytes]:
    """A layout of one index with an image for each architecture."""
    blobs: dict[str, bytes] = {}

    def add(data: bytes, kind: str, **more) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data), **more}

    oci = "application/vnd.oci.image."
    manifests = []
    for architecture in architectures or ("amd64", "arm64"):
        data = layer(architecture.encode())
        document = {
            "architecture": architecture,
            "os": "linux",
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}"],
            },
        }
        config = add(json.dumps(document).encode(), oci + "config.v1+json")
        body = {
            "schemaVersion": 2,
            "config": config,
            "layers": [add(data, oci + "layer.v1.tar")],
        }
        platform = {"os": "linux", "architecture": architecture}
        manifests.append(
            add(json.dumps(body).encode(), oci + "manifest.v1+json", platform=platform)
        )
    index = {"schemaVersion": 2, "manifests": manifests}
    entry = add(json.dumps(index).encode(), oci + "index.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "multi:1"}
    top = {"schemaVersion": 2, "manifests": [entry]}
    return {**blobs, "index.json": json.dumps(top).encode()}


def test_what_is_not_here_cannot_be_saved(tmp_path):
    async def main():
        async with store(tmp_path) as one:
            image = await base(one, "a:1")
            with pytest.raises(ImageNotFound):
                await one.service.save(["nothing"])
            with pytest.raises(ImageNotFound):
                await one.service.save(["a:1"], platforms=[Platform("linux", "s390x")])
            await one.content.delete(image.layers[0].digest)
            with pytest.raises(NotFound, match="is not here"):
                await saved(one, "a:1")

    asyncio.run(main())
