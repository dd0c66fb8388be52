"""A container like the last one: its script is made of the last one's, and is the same."""

from __future__ import annotations

import os
import subprocess

import pytest

import machinelab
from sampan.kernel import fds, machine
from sampan.runtime import create, machines
from sampan.runtime.assembly import Assembly
from sampan.runtime.plan import Facts
from sampan.runtime.specification import example
from sampan.runtime.written import Order, Written

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not machine.is_available(), reason="needs root on x86-64"
)
KINDS = ["ipc", "mount", "network", "pid", "uts"]
ONE, TWO = "1f" * 32, "2e" * 32
SHOW = "hostname; id -u; cat /proc/self/cgroup; ls -ld /d; ls /b; echo $A"


def config_of(place, name: str) -> dict:
    config = example()
    config["process"].update(terminal=False, args=["sh", "-c", SHOW], env=["PATH=/bin", "A=a"])
    config["process"]["user"] = {"username": "someone"}
    config["root"]["readonly"] = False
    config["hostname"] = name[:12]
    config["linux"]["namespaces"] = [{"type": kind} for kind in KINDS]
    config["linux"]["cgroupsPath"] = f"/sampan-test/{name}"
    bind = {"destination": "/b", "type": "bind", "source": f"{place}/b", "options": ["bind"]}
    config["mounts"].append(bind)
    return config


@pytest.fixture
def place(tmp_path):
    """A root of busybox with a user, a directory to mount on, and what is mounted."""
    for name in ("at", "b", "root/bin", "root/etc", "root/d"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root/etc/passwd").write_text("someone:x:7:7::/:/bin/sh\n")
    subprocess.run(["cp", "/bin/busybox", tmp_path / "root/bin/busybox"], check=True)
    for name in "sh cat hostname id ls".split():
        (tmp_path / f"root/bin/{name}").symlink_to("busybox")
    return tmp_path


@pytest.fixture
def scripts(monkeypatch):
    """The scripts that were sent, and how many of them were written anew."""
    sent, written = [], []
    memfd, pack = fds.memfd, Assembly.pack

    def seen(name: str, content: bytes) -> int:
        sent.append(content)
        return memfd(name, content)

    def counted(self, *words) -> bytes:
        written.append(self)
        return pack(self, *words)

    monkeypatch.setattr(create.fds, "memfd", seen)
    monkeypatch.setattr(Assembly, "pack", counted)
    monkeypatch.setattr(machines, "_made", {})  # with orders of this test alone
    yield sent, written
    for _, program in machines._made.values():
        os.close(program)


def output(place, name: str, config: dict) -> str:
    return machinelab.output(place, name, config, machines.make_machine(KINDS))


def forget() -> None:
    ready, _ = machines.machine_for(frozenset(KINDS))
    ready.written = None


def test_a_container_like_the_last_one_has_the_same_script(place, scripts):
    sent, written = scripts
    first = output(place, ONE, config_of(place, ONE))
    assert ONE in first
    second = output(place, TWO, config_of(place, TWO))
    assert len(written) == 1
    assert second == first.replace(ONE, TWO).replace(ONE[:12], TWO[:12])
    forget()
    assert output(place, TWO, config_of(place, TWO)) == second
    assert len(written) == 2
    assert sent[1] == sent[2] != sent[0]


def _set(section: str, key: str, value: object):
    def change(_place, config: dict) -> None:
        config[section][key] = value

    return change


def _user_moves(place, _config: dict) -> None:
    (place / "root/etc/passwd").write_text("someone:x:8:8::/:/bin/sh\n")


def _source_is_a_file(place, _config: dict) -> None:
    if (place / "b").is_dir():
        (place / "b").rmdir()
        (place / "root/b").rmdir()
    (place / "b").write_text("")


def _has_a_filter(_place, config: dict) -> None:
    refused = [{"names": ["chroot"], "action": "SCMP_ACT_ERRNO"}]
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": refused}


@pytest.mark.parametrize(
    "change",
    [
        _set("process", "env", ["PATH=/bin", "A=b"]),
        _set("process", "noNewPrivileges", False),
        _set("linux", "maskedPaths", ["/proc/keys"]),
        _user_moves,
        _source_is_a_file,
        _has_a_filter,
    ],
)
def test_a_container_that_differs_gets_its_own(place, scripts, change):
    sent, written = scripts
    output(place, ONE, config_of(place, ONE))
    config = config_of(place, TWO)
    change(place, config)
    said = output(place, TWO, config)
    assert len(written) == 2
    forget()
    config = config_of(place, TWO)
    change(place, config)
    assert output(place, TWO, config) == said
    assert sent[1] == sent[2]


def test_the_mode_of_a_tmpfs_is_that_of_its_own_root(place, scripts):
    _, written = scripts
    tmpfs = {"destination": "/d", "type": "tmpfs", "source": "tmpfs", "options": []}
    modes = {ONE: (0o701, "drwx-----x"), TWO: (0o710, "drwx--x---")}
    for name, (mode, shown) in modes.items():
        (place / "root/d").chmod(mode)
        config = config_of(place, name)
        config["mounts"].append(dict(tmpfs))
        assert shown in output(place, name, config)
    assert len(written) == 2


def test_a_null_device_that_was_replaced_is_seen_each_time(place, scripts, monkeypatch):
    output(place, ONE, config_of(place, ONE))
    looked = []
    monkeypatch.setattr("sampan.runtime.readiness.check_null", lambda: looked.append(1))
    output(place, TWO, config_of(place, TWO))
    assert looked == [1]


def order(name: str, number: int = 0, program: tuple[bytes, int] | None = None) -> Order:
    return Order(name, {"id": name, "n": number}, Facts(f"/at/{name}"), [], 1, [], program)


def test_only_the_last_few_are_kept():
    written = Written()
    for number in range(9):
        written.keep(order(ONE, number), ONE.encode(), [])
    assert written.find(order(TWO, 8)) == (TWO.encode(), [])
    assert written.find(order(TWO, 0)) is None
    assert written.find(order(TWO, 8, (b"", 0))) is None


@pytest.mark.parametrize("name", ["short", "X" * 64, "a" * 63])
def test_a_name_that_is_no_id_is_never_replaced(name):
    written = Written()
    written.keep(order(name), name.encode(), [])
    assert written.find(order(name)) is None


def test_an_id_that_holds_the_other_is_not_mixed_up():
    written = Written()
    other = TWO[:20] + ONE[:12] + TWO[32:]
    written.keep(order(ONE), ONE.encode(), [])
    assert written.find(order(other)) is None
