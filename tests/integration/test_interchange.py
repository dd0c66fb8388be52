"""Archives of ours in other people's tools, and theirs here: the same digests, the same trees."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

import peerlab
from imagelab import store
from peerlab import call
from sampan.images.saving import ArchiveFormat
from sampan.spec.image import ImageConfig, RunConfig
from treelab import describe, make_rich

TOOLS = ("skopeo", "umoci", "podman", "buildah", "ctr", "containerd", "docker", "dockerd")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="snapshots need root"),
    pytest.mark.skipif(bool(peerlab.missing(*TOOLS)), reason="needs the tools of Debian"),
]
CONFIG = ImageConfig(
    architecture="amd64",
    os="linux",
    created="2020-01-02T03:04:05Z",
    config=RunConfig(cmd=("/bin/sh",), env=("A=b",), labels={"x": "y"}, working_dir="/etc"),
)


async def file_pieces(path):
    with open(path, "rb") as file:  # noqa: ASYNC230 - a test waits for its files
        while data := file.read(1 << 20):
            yield data


async def make(one):
    """An image of two layers: everything there is, then changes with whiteouts."""
    async with one.service.lease() as lease:
        word = await one.snapshots.prepare("a", None, lease=lease)
        make_rich(Path(word["source"]))
        os.utime(f"{word['source']}/owned", (7, 7))  # podman knows no time before 1970
        first = await one.service.commit_layer("a", lease=lease)
        base = await one.service.create_image(CONFIG, [first], None, lease=lease)
        word = await one.snapshots.prepare("b", base.chain_id, lease=lease)
        change(word)
        second = await one.service.commit_layer("b", lease=lease)
        image = await one.service.create_image(CONFIG, [first, second], "rich:1", lease=lease)
        await one.snapshots.remove("a")
        await one.snapshots.remove("b")
    return image


def change(word) -> None:
    merged = Path(word["upper"]).parent / "merged"
    merged.mkdir()
    with mounted(word, merged):
        (merged / "fifo").unlink()
        subprocess.run(["rm", "-r", merged / "etc"], check=True)
        (merged / "etc").mkdir()
        (merged / "etc/hostname").write_text("new\n")
        (merged / "added").write_text("added\n")
        os.utime(merged / "added", (1, 1_600_000_000))
    merged.rmdir()


class mounted:  # noqa: N801 - reads like the function that it is
    def __init__(self, word, path):
        options = "lowerdir=" + ":".join(word["lowers"])
        if "upper" in word:
            options += f",upperdir={word['upper']},workdir={word['work']}"
        self.path = path
        self.command = ["mount", "-t", "overlay", "-o", options, "overlay", path]

    def __enter__(self):
        subprocess.run(self.command, check=True)

    def __exit__(self, *_):
        subprocess.run(["umount", self.path], check=True)


async def tree_of(one, ref):
    """What a container of an image would see."""
    image = await one.service.get(ref)
    word = await one.snapshots.view("look", image.chain_id)
    path = Path(one.layout.state) / "view"
    path.mkdir(exist_ok=True)
    with mounted(word, path):
        tree = describe(path)
    await one.snapshots.remove("look")
    return tree


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """Our archives of one image: paths by format, its id, its manifest's digest and its tree."""
    base = tmp_path_factory.mktemp("ours")

    async def main():
        async with store(base / "store") as one:
            image = await make(one)
            for kind in ArchiveFormat:
                with open(base / kind, "wb") as file:  # noqa: ASYNC230 - a test waits for its files
                    async for piece in await one.service.save(["rich:1"], kind=kind):
                        file.write(piece)
            return image.id, image.target.digest, await tree_of(one, "rich:1")

    image_id, digest, tree = asyncio.run(main())
    layout = base / "layout"
    layout.mkdir()
    with tarfile.open(base / ArchiveFormat.OCI) as tar:
        tar.extractall(layout, filter="data")
    return Ours(base, layout, image_id, digest, tree)


class Ours:
    def __init__(self, base, layout, image_id, digest, tree):
        self.docker, self.oci = base / ArchiveFormat.DOCKER, base / ArchiveFormat.OCI
        self.layout = layout
        self.id, self.digest, self.tree = image_id, digest, tree


def load(tmp_path, archive):
    """Load an archive into a store of its own: what came, and the tree of the first image."""

    async def main():
        async with store(tmp_path / "loaded") as one:
            loaded = await one.service.load(file_pieces(archive))
            image = await one.service.get(loaded[0].id)
            return loaded[0], image.target.digest, await tree_of(one, loaded[0].id)

    return asyncio.run(main())


def test_skopeo(tmp_path, ours):
    for source in (f"docker-archive:{ours.docker}", f"oci-archive:{ours.oci}:1"):
        raw = json.loads(call("skopeo", "inspect", "--raw", source))
        assert raw["config"]["digest"] == ours.id
        for kind in ("docker-archive", "oci-archive"):
            target = tmp_path / kind
            target.unlink(missing_ok=True)
            call("skopeo", "copy", source, f"{kind}:{target}:rich:1")
            came, _, tree = load(tmp_path, target)
            assert came.names == ("rich:1",)
            assert tree == ours.tree
            assert kind == "oci-archive" or came.id == ours.id
    assert call("skopeo", "inspect", "--format", "{{.Digest}}", f"oci:{ours.layout}:1") == (
        ours.digest
    )


def test_umoci(tmp_path, ours):
    call("umoci", "unpack", "--image", f"{ours.layout}:1", tmp_path / "bundle")
    assert without_times(describe(tmp_path / "bundle/rootfs")) == without_times(ours.tree)
    (tmp_path / "bundle/rootfs/more").write_text("more\n")
    call("cp", "-r", ours.layout, tmp_path / "layout")
    call("umoci", "repack", "--image", f"{tmp_path}/layout:two", tmp_path / "bundle")
    call("tar", "-cf", tmp_path / "a.tar", "-C", tmp_path / "layout", ".")

    async def main():
        async with store(tmp_path / "store") as one:
            loaded = await one.service.load(file_pieces(tmp_path / "a.tar"))
            assert {each.id == ours.id for each in loaded} == {True, False}
            other = next(each for each in loaded if each.id != ours.id)
            return await tree_of(one, other.id)

    assert b"more" in asyncio.run(main())


def without_times(tree):
    """umoci leaves the times of directories to the moment."""
    return {path: (*facts[:3], 0, *facts[4:]) for path, facts in tree.items()}


def test_podman_and_buildah(tmp_path, ours):
    peerlab.podman(tmp_path, "load", "-q", "-i", ours.docker)
    inspected = json.loads(peerlab.podman(tmp_path, "image", "inspect", "rich:1"))
    assert f"sha256:{inspected[0]['Id']}" == ours.id
    mount = peerlab.podman(tmp_path, "image", "mount", "rich:1")
    assert describe(mount) == ours.tree
    for kind in ("docker-archive", "oci-archive"):
        target = tmp_path / f"podman-{kind}"
        peerlab.podman(tmp_path, "save", "-q", "--format", kind, "-o", target, "rich:1")
        came, _, tree = load(tmp_path, target)
        assert tree == ours.tree
        assert came.id == ours.id
    peerlab.podman(tmp_path, "image", "umount", "-a")
    name = peerlab.buildah(tmp_path, "from", f"oci-archive:{ours.oci}")
    assert describe(peerlab.buildah(tmp_path, "mount", name)) == ours.tree
    target = f"docker-archive:{tmp_path}/buildah.tar:built:1"
    peerlab.buildah(tmp_path, "commit", "-q", name, target)
    came, _, tree = load(tmp_path, tmp_path / "buildah.tar")
    assert (came.names, tree) == (("built:1",), ours.tree)
    peerlab.buildah(tmp_path, "rm", "-a")


def test_containerd(tmp_path, ours):
    with peerlab.containerd(tmp_path) as ctr:
        for archive in (ours.docker, ours.oci):
            ctr("images", "import", archive)
            line = ctr("images", "ls", "name==docker.io/library/rich:1").splitlines()[-1]
            assert ours.digest in line
        ctr("images", "export", tmp_path / "ctr.tar", "docker.io/library/rich:1")
    came, digest, tree = load(tmp_path, tmp_path / "ctr.tar")
    assert (came.names, came.id, digest) == (("rich:1",), ours.id, ours.digest)
    assert tree == ours.tree


def test_docker(tmp_path, ours):
    with peerlab.dockerd(tmp_path) as docker:
        assert docker("load", "-i", ours.docker) == "Loaded image: rich:1"
        assert docker("inspect", "--format", "{{.Id}}", "rich:1") == ours.id
        docker("save", "-o", tmp_path / "docker.tar", "rich:1")
    came, _, tree = load(tmp_path, tmp_path / "docker.tar")
    assert (came.names, came.id) == (("rich:1",), ours.id)
    assert tree == ours.tree


def test_export_is_the_whole_file_system(tmp_path, ours):
    async def main():
        async with store(tmp_path / "store") as one:
            await one.service.load(file_pieces(ours.docker))
            with open(tmp_path / "a.tar", "wb") as file:  # noqa: ASYNC230 - a test waits for it
                async for piece in await one.service.export("rich:1"):
                    file.write(piece)
            unfinished = await one.service.export("rich:1")
            await anext(unfinished)
            await unfinished.aclose()

    asyncio.run(main())
    (tmp_path / "out").mkdir()
    options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", tmp_path / "out"]
    call("tar", "-xpf", tmp_path / "a.tar", *options)
    assert describe(tmp_path / "out") == ours.tree
