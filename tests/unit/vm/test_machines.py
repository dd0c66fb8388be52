"""What can be seen of machines without one: words, settings, the archive, what is translated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.errors import InvalidArgument
from sampan.pods.handlers import Handlers
from sampan.pods.settings import PodSettings
from sampan.vm import finding, initramfs, sharing
from sampan.vm.__main__ import parse
from sampan.vm.machine import PORTS, Settings, arguments


def test_the_verbs_of_the_command_line():
    words = ["--kernel", "/k", "--root", "/r", "kill", "name", "9"]
    options, rest = parse(words)
    assert (options["kernel"], options["signal"], rest) == ("/k", "9", ["kill", "name"])
    options, rest = parse(["delete", "--force", "name"])
    assert (options["force"], rest) == ("yes", ["delete", "name"])


def test_the_words_of_qemu():
    settings = Settings(kernel="/k", modules="/m", memory=256, accelerator="tcg", cache="/c")
    words = arguments(settings, "/i", list(range(10, 11 + PORTS)), None)
    assert words[words.index("-kernel") + 1] == "/k"
    assert words.count("-chardev") == PORTS + 2
    assert "spawn=deny" in words[words.index("-sandbox") + 1]
    assert "-netdev" not in words


@pytest.mark.parametrize(
    ("table", "said"),
    [({"vm_accelerator": "xen"}, "vm_accelerator"), ({"vm_memory": 10}, "128 MiB")],
)
def test_settings_that_cannot_be(table, said):
    with pytest.raises(InvalidArgument, match=said):
        PodSettings.from_table(table)


def test_the_handler_is_there_when_a_machine_can_be_made():
    assert "vm" not in {one.name for one in Handlers({})}
    handler = Handlers({}, ("/bin/true",)).find("vm")
    assert handler.is_machine


def test_a_kernel_without_9p_is_not_taken(tmp_path):
    kernel = tmp_path / "vmlinuz-1"
    kernel.write_bytes(b"")
    words = {"memory": 256, "accelerator": "tcg", "cache": str(tmp_path)}
    assert finding.find(str(kernel), str(tmp_path), **words) == ()


def test_what_a_configuration_becomes_inside():
    spec = {
        "process": {"args": ["true"], "apparmorProfile": "x"},
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "h",
        "linux": {
            "namespaces": [{"type": "network", "path": "/x"}],
            "seccomp": {},
            "resources": {"memory": {"limit": 1}, "devices": [{"allow": False}]},
        },
    }
    found = sharing._translated(spec, "c1", [])
    assert found["linux"]["namespaces"] == [{"type": kind} for kind in ("mount", "pid", "cgroup")]
    assert found["linux"]["resources"] == {"memory": {"limit": 1}}
    assert found["linux"]["cgroupsPath"] == "/c1"
    assert found["root"] == {"path": "rootfs", "readonly": True}
    assert "apparmorProfile" not in found["process"]
    assert found["linux"]["seccomp"] == {}


def test_the_first_root_file_system(tmp_path):
    modules = tmp_path / "modules"
    modules.mkdir()
    for name in initramfs.MODULES:
        (modules / f"{name}.ko").write_bytes(b"\0depends=other-one,\0")
    (modules / "other_one.ko").write_bytes(b"\0depends=\0")
    (modules / "modules.builtin").write_text("")
    order = [os.path.basename(path) for path in initramfs.needed_modules(str(modules))]
    assert order[0] == "other_one.ko"
    assert len(order) == len(initramfs.MODULES) + 1
    path = initramfs.build(str(tmp_path / "cache"), str(modules))
    assert initramfs.build(str(tmp_path / "cache"), str(modules)) == path
    listed = set(names_of(path))
    assert {"init", "dev/console", "bin/python3", "modules/00"} <= listed
    assert "lib/sampan/sampan/vm/agent.py" in listed
    assert not any("sampan/engine" in name for name in listed)


def names_of(path):
    """The names in an archive of the kind "newc"."""
    data, place = Path(path).read_bytes(), 0
    while True:
        assert data[place : place + 6] == b"070701"
        size, length = (int(data[place + at : place + at + 8], 16) for at in (54, 94))
        name = data[place + 110 : place + 109 + length].decode()
        if name == "TRAILER!!!":
            return
        yield name
        content = (place + 110 + length + 3) & ~3
        place = (content + size + 3) & ~3


def test_a_module_that_is_missing(tmp_path):
    (tmp_path / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")
    with pytest.raises(FileNotFoundError, match="virtio_console"):
        initramfs.needed_modules(str(tmp_path))
