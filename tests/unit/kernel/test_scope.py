"""Scopes of systemd: names, properties, and what is said to the manager and heard from it."""

from __future__ import annotations

import errno
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.kernel import dbus
from sampan.kernel.cgroups import devices, scope, scope_properties
from sampan.kernel.cgroups.scope import Manager, expand
from sampan.kernel.dbus_values import Writer

MIB = 1 << 20
INFINITY = (1 << 64) - 1


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("system.slice", "/system.slice"),
        ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
        ("-.slice", ""),
    ],
)
def test_slices_lie_in_one_another(name: str, path: str):
    assert expand(name) == path


@pytest.mark.parametrize(
    "name", ["", "-", ".slice", "a", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "ä.slice"]
)
def test_what_is_no_slice_is_refused(name: str):
    with pytest.raises(ValueError, match="cgroupsPath"):
        expand(name)


def told(resources: dict[str, object], rules: devices.Policy | None = None) -> dict[str, object]:
    found = scope_properties.of_resources(resources, rules)
    assert len(dict(found)) == len(found)
    return {name: value for name, (_, value) in found}


def test_limits_become_properties():
    limits = {
        "memory": {"limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB},
        "cpu": {"shares": 1024, "quota": 50_500, "period": 100_000, "cpus": "0-1,8", "mems": "0"},
        "pids": {"limit": 77},
        "blockIO": {"weight": 10},
        "unified": {"memory.high": "1000", "memory.min": "max", "cgroup.max.depth": "5"},
    }
    assert told(limits) == {
        "MemoryMax": 64 * MIB,
        "MemoryLow": 32 * MIB,
        "MemorySwapMax": 32 * MIB,
        "CPUWeight": 100,
        "CPUQuotaPerSecUSec": 510_000,
        "CPUQuotaPeriodUSec": 100_000,
        "AllowedCPUs": [3, 1],
        "AllowedMemoryNodes": [1],
        "TasksMax": 77,
        "IOWeight": 1,
        "MemoryHigh": 1000,
        "MemoryMin": INFINITY,
    }


def test_no_limit_is_infinity_and_what_is_not_named_is_left_alone():
    assert told({"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}}) == {
        "MemoryMax": INFINITY,
        "MemorySwapMax": INFINITY,
        "CPUQuotaPerSecUSec": INFINITY,
        "TasksMax": INFINITY,
    }
    assert told({"cpu": {"period": 50_000}}) == {}
    # Odd values are for the kernel to judge, in the write that follows.
    assert told({"unified": {"memory.max": "1G", "cpuset.cpus": "9-", "cpu.max": "x"}}) == {}


def test_devices_are_named_one_by_one():
    rules = devices.policy([{"allow": True, "type": "b", "major": 8, "access": "r"}])
    found = told({}, rules)
    assert found["DevicePolicy"] == "strict"
    allowed = dict(found["DeviceAllow"])
    assert allowed["/dev/char/1:3"] == "rwm"
    assert allowed["char-136"] == "rwm"
    assert allowed["char-*"] == "m"
    assert allowed["block-8"] == "r"
    everything = devices.policy([{"allow": True}])
    assert told({}, everything) == {"DevicePolicy": "auto", "DeviceAllow": []}
    odd = devices.policy([{"allow": True, "type": "c", "minor": 3, "access": "r"}])
    assert told({}, odd)["DevicePolicy"] == "auto"


class FakeSystemd:
    """The other end of a private socket: answers each call by `answers`, and records it."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.calls: list[tuple[str, list[object]]] = []
        self.error = ""
        self.result = "done"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer, peer.makefile("rb") as stream:
                assert stream.readline().startswith(b"\0AUTH EXTERNAL ")
                peer.sendall(b"OK 0123\r\n")
                assert stream.readline() == b"BEGIN\r\n"
                while head := stream.read(16):
                    body, serial, fields = struct.unpack_from("=III", head, 4)
                    rest = stream.read(fields + -fields % 8 + body)
                    peer.sendall(self._answer(dbus.Message(head, rest), serial))

    def _answer(self, call: dbus.Message, serial: int) -> bytes:
        name = call.fields[3]
        self.calls.append((name, call.values))
        if self.error:
            fields = [(4, ("s", self.error)), (5, ("u", serial)), (8, ("g", "s"))]
            return message(3, fields, "s", "told so")
        job = "/org/freedesktop/systemd1/job/7"
        returned = [(5, ("u", serial)), (8, ("g", "o"))]
        fields = [(1, ("o", "/x")), (2, ("s", "i.f")), (3, ("s", "JobRemoved"))]
        fields.append((8, ("g", "uoss")))
        other = message(4, fields, "uoss", 6, job.replace("7", "6"), "other", "failed")
        ended = message(4, fields, "uoss", 7, job, "unit", self.result)
        return other + ended + message(2, returned, "o", job)  # the signal may come first


def message(kind: int, fields: list[tuple[int, object]], signature: str, *values: object) -> bytes:
    body, head = Writer(), Writer()
    parts = ["u", "o", "s", "s"] if signature == "uoss" else [signature]
    for part, value in zip(parts, values, strict=True):
        body.put(part, value)
    head.data += (b"l" if sys.byteorder == "little" else b"B") + bytes((kind, 0, 1))
    head.put("u", len(body.data))
    head.put("u", 1)
    head.put("a(yv)", fields)
    head.align(8)
    return bytes(head.data + body.data)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[FakeSystemd]:
    fake = FakeSystemd(tmp_path / "private")
    yield fake
    fake.close()


def manager(systemd: FakeSystemd) -> Manager:
    return Manager(dbus.Connection(systemd.path), is_bus=False)


def test_a_unit_is_asked_for_and_its_job_waited_for(systemd: FakeSystemd):
    properties = [
        *scope_properties.of_unit("x-1.scope", "a.slice", 4711),
        ("MemoryMax", ("t", 5)),
    ]
    with manager(systemd) as asked:
        asked.start("x-1.scope", properties)
        asked.set_properties("x-1.scope", [("TasksMax", ("t", 3))])
        asked.stop("x-1.scope")
    (start, said), change, stop = systemd.calls
    assert start == "StartTransientUnit"
    assert said[:2] == ["x-1.scope", "replace"]
    found = {name: value for name, (_, value) in said[2]}
    assert found["PIDs"] == [4711]
    assert found["Slice"] == "a.slice"
    assert found["Delegate"] is True
    assert found["MemoryMax"] == 5
    assert change == ("SetUnitProperties", ["x-1.scope", True, [("TasksMax", ("t", 3))]])
    assert stop == ("StopUnit", ["x-1.scope", "replace"])


def test_a_job_that_fails_is_told(systemd: FakeSystemd):
    systemd.result = "failed"
    with manager(systemd) as asked, pytest.raises(OSError, match=r"StopUnit x\.scope.*job failed"):
        asked.stop("x.scope")


def test_a_unit_that_is_there_or_gone(systemd: FakeSystemd):
    systemd.error = "org.freedesktop.systemd1.UnitExists"
    with manager(systemd) as asked, pytest.raises(FileExistsError, match=r"not empty.*x\.scope"):
        asked.start("x.scope", [])
    systemd.error = "org.freedesktop.systemd1.NoSuchUnit"
    with manager(systemd) as asked:
        asked.stop("x.scope")
    systemd.error = "org.freedesktop.DBus.Error.AccessDenied"
    with manager(systemd) as asked, pytest.raises(OSError, match="StopUnit: told so") as caught:
        asked.stop("x.scope")
    assert caught.value.errno == errno.EACCES


def test_a_host_without_systemd_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(scope, "BOOTED", str(tmp_path / "none"))
    with pytest.raises(OSError, match="systemd does not run on this host"):
        scope.place("", "c1")
