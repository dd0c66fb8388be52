"""The D-Bus client: values byte by byte, and a conversation with a real bus."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sampan.kernel import dbus
from sampan.kernel.dbus_values import Reader, Writer, split

BUS = "org.freedesktop.DBus"
BUS_OBJECT = "/org/freedesktop/DBus"


def test_signatures_are_split_into_complete_types():
    assert split("sa(sv)a{sv}aay(ii)") == ["s", "a(sv)", "a{sv}", "aay", "(ii)"]
    for bad in ("a", "(s", "s)", "z", "a" * 40 + "s", "{s"):
        with pytest.raises(ValueError, match="malformed"):
            split(bad)


@pytest.mark.skipif(sys.byteorder != "little", reason="the bytes are those of a little endian")
def test_values_are_laid_out_as_the_specification_says():
    writer = Writer()
    writer.put("s", "foo")
    writer.put("t", 5)
    writer.put("a(yv)", [(1, ("o", "/x")), (8, ("g", "u"))])
    writer.put("b", True)
    assert bytes(writer.data) == (
        b"\x03\0\0\0foo\0"
        b"\x05\0\0\0\0\0\0\0"
        b"\x17\0\0\0\0\0\0\0"
        b"\x01\x01o\0\x02\0\0\0/x\0\0\0\0\0\0"
        b"\x08\x01g\0\x01u\0"
        b"\0\x01\0\0\0"
    )
    assert Reader(bytes(writer.data)).all("sta(yv)b") == [
        "foo",
        5,
        [(1, ("o", "/x")), (8, ("g", "u"))],
        True,
    ]


@pytest.mark.parametrize(
    ("signature", "value"),
    [
        ("a(ss)", [("/dev/char/1:3", "rwm"), ("char-*", "m")]),
        ("ay", [1, 0, 255]),
        ("a{sv}", [("Delegate", ("b", True)), ("PIDs", ("au", [1, 2]))]),
        ("v", ("v", ("d", 1.5))),
        ("(nqiuxtd)", (-1, 1, -2, 2, -3, 3, 0.25)),
        ("as", []),
    ],
)
def test_what_is_written_is_read(signature: str, value: object):
    writer = Writer()
    writer.put("y", 7)  # so that nothing begins aligned
    writer.put(signature, value)
    assert Reader(bytes(writer.data)).all("y" + signature) == [7, value]


@pytest.mark.parametrize(
    ("data", "signature"),
    [
        (b"\xff\xff\xff\xff", "s"),
        (b"\xff\xff\xff\xff", "ay"),
        (b"\x01", "u"),
        (b"\x02ss\0\x01\0\0\0", "v"),
        (b"\x01v\0" * 40, "v"),
        (b"\x01z\0", "v"),
    ],
)
def test_a_malformed_message_is_an_oserror(data: bytes, signature: str):
    with pytest.raises(OSError, match="malformed D-Bus message"):
        Reader(data).all(signature)


@pytest.fixture
def bus(tmp_path: Path):
    """A message bus of our own."""
    program = shutil.which("dbus-daemon")
    assert program, "dbus-daemon is one of the packages that the tests need"
    path = tmp_path / "bus"
    words = [program, "--session", "--nofork", "--nopidfile", f"--address=unix:path={path}"]
    daemon = subprocess.Popen([*words, "--print-address=1"], stdout=subprocess.PIPE)
    assert daemon.stdout is not None
    daemon.stdout.readline()  # it listens
    yield str(path)
    daemon.terminate()
    daemon.wait()
    daemon.stdout.close()


def test_a_real_bus_answers(bus: str):
    with dbus.Connection(bus) as connection:
        (name,) = connection.call(BUS, BUS_OBJECT, f"{BUS}.Hello")
        assert name.startswith(":")
        (names,) = connection.call(BUS, BUS_OBJECT, f"{BUS}.ListNames")
        assert {BUS, name} <= set(names)
        assert connection.call(
            BUS, BUS_OBJECT, f"{BUS}.RequestName", "su", "org.sampan.Test", 4
        ) == [1]
        lost = connection.await_signal("NameAcquired", 0, "org.sampan.Test")
        assert lost == ["org.sampan.Test"]
        (pid,) = connection.call(BUS, BUS_OBJECT, f"{BUS}.GetConnectionUnixProcessID", "s", name)
        assert pid == os.getpid()


def test_an_error_has_its_name_and_its_text(bus: str):
    with dbus.Connection(bus) as connection:
        connection.call(BUS, BUS_OBJECT, f"{BUS}.Hello")
        with pytest.raises(dbus.Refused, match=r"no\.such\.name") as caught:
            connection.call(BUS, BUS_OBJECT, f"{BUS}.GetNameOwner", "s", "no.such.name")
        assert caught.value.name == "org.freedesktop.DBus.Error.NameHasNoOwner"


def answering(path: Path, answer: bytes) -> threading.Thread:
    """A peer that says one thing, and then nothing until the other side goes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as peer:
            peer.sendall(answer)
            while peer.recv(4096):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_who_is_refused_hears_it(tmp_path: Path):
    thread = answering(tmp_path / "s", b"REJECTED EXTERNAL\r\n")
    with pytest.raises(PermissionError, match="refused: REJECTED EXTERNAL"):
        dbus.Connection(str(tmp_path / "s"))
    thread.join()


def test_a_silent_peer_has_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dbus, "WAIT", 0.05)
    thread = answering(tmp_path / "s", b"OK 0\r\n")
    with dbus.Connection(str(tmp_path / "s")) as connection:
        with pytest.raises(TimeoutError, match="no answer to Hello in time"):
            connection.call("", "/", "x.Hello")
        with pytest.raises(TimeoutError, match="no signal Gone in time"):
            connection.await_signal("Gone", 0, "x")
    thread.join()


def test_a_message_without_end_is_refused(tmp_path: Path):
    endless = (b"l" if sys.byteorder == "little" else b"B") + b"\x02\0\x01" + b"\x7f" * 12
    thread = answering(tmp_path / "s", b"OK 0\r\n" + endless)
    with (
        dbus.Connection(str(tmp_path / "s")) as connection,
        pytest.raises(OSError, match="too long"),
    ):
        connection.call("", "/", "x.Hello")
    thread.join()


def test_nobody_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        dbus.Connection(str(tmp_path / "none"))
