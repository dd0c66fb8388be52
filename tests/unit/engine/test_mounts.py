"""What is mounted: parsing, precedence, and the words of the runtime."""

from __future__ import annotations

import pytest

from sampan.engine import binds, mounts
from sampan.engine.model import Container, ContainerConfig, HostConfig, Mount, MountType
from sampan.errors import Conflict, InvalidArgument
from sampan.volumes.options import Backing, parse


def plan(host: HostConfig, volumes: tuple[str, ...] = (), others: tuple[Mount, ...] = ()):
    config = ContainerConfig(image="x", volumes=volumes)
    other = Container(
        id="a" * 64, name="o", created_at=0, config=config, host=HostConfig(), path="x",
        mounts=others,
    )  # fmt: skip
    return {m.target: m for m in mounts.plan(config, host, lambda _: other)}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "invalid volume specification"),
        ("/a:", "invalid volume specification"),
        ("/a:/b:ro:z", "invalid volume specification"),
        ("/a:b", "mount path must be absolute"),
        ("/a:/", "destination can't be '/'"),
        ("/a:/b/../..", "destination can't be '/'"),
        ("/a:/b:nonsense", "invalid mode: nonsense"),
        ("/a:/b:nocopy", "invalid mode: nocopy"),
        ("/a:/b:rshared,rslave", "invalid mode"),
        ("./a:/b", "use an absolute path"),
    ],
)
def test_binds_that_are_refused(text, sentence):
    with pytest.raises(InvalidArgument, match=sentence):
        binds.parse(text)


def test_binds():
    bind = binds.parse("/a//b/:/x/y/:ro,rslave,nosuid")
    assert (bind.type, bind.source, bind.target) == (MountType.BIND, "/a/b", "/x/y")
    assert (bind.read_only, bind.propagation, bind.make_source) == (True, "rslave", True)
    assert mounts.words(bind)["options"] == ["rbind", "rslave", "rro", "nosuid"]
    assert mounts.words(binds.parse("/a:/b:bind,ro"))["options"] == ["bind", "rprivate", "ro"]
    named = binds.parse("data:/x:nocopy")
    assert (named.type, named.source, named.copy) == (MountType.VOLUME, "data", False)
    assert binds.parse("/x").source == ""


def test_what_wins_at_one_target():
    others = (
        Mount(type=MountType.VOLUME, source="theirs", target="/a"),
        Mount(type=MountType.BIND, source="/h", target="/c", make_source=True),
    )
    found = plan(
        HostConfig(volumes_from=("o:ro",), binds=("mine:/a",), tmpfs={"/t": ""}),
        volumes=("/a", "/b", "/t"),
        others=others,
    )
    assert found["/a"].source == "mine"
    assert (found["/b"].type, found["/b"].source) == (MountType.VOLUME, "")
    assert (found["/c"].read_only, found["/c"].make_source) == (True, False)
    assert "/t" not in found
    with pytest.raises(Conflict, match="Duplicate mount point: /x"):
        plan(HostConfig(binds=("/a:/x/",), tmpfs={"/x": ""}))


def test_words_of_volumes():
    mount = Mount(type=MountType.VOLUME, source="v", target="/x", subpath="a/b", read_only=True)
    assert mounts.volume_words(mount, "/root/v/_data", Backing(flags=("nosuid", "rw"))) == {
        "destination": "/x",
        "type": "bind",
        "source": "/root/v/_data",
        "options": ["bind", "rprivate", "nosuid", "ro"],
        "subpath": "a/b",
    }
    behind = parse({"type": "none", "o": "rbind", "device": "/srv"})
    assert mounts.volume_words(mount, "/unused", behind)["source"] == "/srv"
    tmpfs = Mount(type=MountType.TMPFS, target="/t", size=1000, mode=0o700, words=("exec",))
    assert mounts.words(tmpfs)["options"] == ["nosuid", "nodev", "exec", "size=1000", "mode=700"]


def test_options_of_the_local_driver():
    assert parse({}) == Backing()
    assert parse({"o": "nosuid,nodev"}).flags == ("nosuid", "nodev")
    disk = parse({"type": "ext4", "device": "/dev/sdz", "o": "noatime,data=ordered"})
    assert (disk.kind, disk.flags, disk.data) == ("ext4", ("noatime",), ("data=ordered",))
    assert disk.is_mounted
    for bad in ({"type": "ext4"}, {"o": "bind", "device": "/a/../b"}, {"size": "1"},
                {"type": "none", "o": "bind,uid=1", "device": "/a"}):  # fmt: skip
        with pytest.raises(InvalidArgument, match="create volume"):
            parse(bad)
