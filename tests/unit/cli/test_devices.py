"""The flags about devices."""

from __future__ import annotations

import pytest

from sampan.cli.devices import parse_device, parse_rate
from sampan.cli.flags import FlagError
from sampan.cli.mounts import parse_mount


def test_devices():
    for text, expected in (
        ("/dev/a", ("/dev/a", "/dev/a", "rwm")),
        ("/dev/a:r", ("/dev/a", "/dev/a", "r")),
        ("/dev/a:/dev/b", ("/dev/a", "/dev/b", "rwm")),
        ("/dev/a:/dev/b:rw", ("/dev/a", "/dev/b", "rw")),
    ):
        found = parse_device(text)
        names = ("PathOnHost", "PathInContainer", "CgroupPermissions")
        assert tuple(found[name] for name in names) == expected
    for text in ("", "/dev/a:/dev/b:x", "/dev/a:/dev/b:rr", "a:b:r:w"):
        with pytest.raises(FlagError):
            parse_device(text)


def test_rates():
    assert parse_rate("device-read-bps", "Rate", "/dev/sda:1mb") == {
        "Path": "/dev/sda",
        "Rate": 1 << 20,
    }
    for text in ("/dev/sda", "sda:1", "/dev/sda:x"):
        with pytest.raises(FlagError):
            parse_rate("device-read-iops", "Rate", text)


def test_mounts_of_every_type():
    assert parse_mount('type=volume,src=v,dst=/x,volume-nocopy,"volume-opt=o=size=1m,uid=1"') == {
        "Type": "volume",
        "Source": "v",
        "Target": "/x",
        "VolumeOptions": {
            "NoCopy": True,
            "DriverConfig": {"Options": {"o": "size=1m,uid=1"}},
        },
    }
    bind = parse_mount("type=bind,src=/a,dst=/x,ro,bind-recursive=writable")
    assert bind["BindOptions"] == {"ReadOnlyNonRecursive": True}
    image = parse_mount("type=image,src=bb:1,dst=/x,image-subpath=bin")
    assert image["ImageOptions"] == {"Subpath": "bin"}
    for text in ("dst=/x,nonsense=1", "type=bind", 'dst=/x,"a', "dst=/x,bind-recursive=no"):
        with pytest.raises(FlagError):
            parse_mount(text)
