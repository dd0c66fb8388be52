"""A daemon is started when none is there, and a daemon that dies says why."""

from __future__ import annotations

import os
import sys

import pytest

from sampan.client import launch
from sampan.client.address import Address, default_state, parse_host, resolve
from sampan.client.failures import error_for
from sampan.client.sync import Client
from sampan.errors import InvalidArgument, Unavailable
from unit.client.fake_daemon import FakeDaemon


def address(tmp_path):
    return Address(str(tmp_path / "docker.sock"), may_start=True, state=str(tmp_path))


def use(monkeypatch, code, *arguments):
    monkeypatch.setattr(launch, "command", lambda _: [sys.executable, "-S", "-c", code, *arguments])


def test_daemon_that_ends_is_quoted(tmp_path, monkeypatch):
    use(monkeypatch, "import sys; print('starting'); print('root is locked', file=sys.stderr)")
    with pytest.raises(Unavailable, match=r"it ended: root is locked \(.*daemon.log\)"):
        launch.connect(Client(str(tmp_path / "docker.sock"), error_for), address(tmp_path))


def test_daemon_that_is_silent_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "PATIENCE", 0.05)
    use(monkeypatch, "import time; time.sleep(2)")
    with pytest.raises(Unavailable, match="no answer after"):
        launch.connect(Client(str(tmp_path / "docker.sock"), error_for), address(tmp_path))


def test_daemon_is_waited_for(tmp_path, monkeypatch):
    code = (
        "import os, socket, sys, time\n"
        "assert os.getcwd() == '/' and os.getsid(0) != int(sys.argv[2])\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
        "s.accept()[0].recv(1)\n"
    )
    use(monkeypatch, code, str(tmp_path / "docker.sock"), str(os.getsid(0)))
    with Client(str(tmp_path / "docker.sock"), error_for) as client:
        launch.connect(client, address(tmp_path))


def test_running_daemon_is_not_started(tmp_path, monkeypatch):
    def never(_):
        raise AssertionError("started")

    monkeypatch.setattr(launch, "start", never)
    with FakeDaemon(tmp_path) as daemon, Client(daemon.path, error_for) as client:
        launch.connect(client, Address(daemon.path, may_start=True))


def test_given_host_is_not_started(tmp_path):
    with pytest.raises(FileNotFoundError):
        launch.connect(Client(str(tmp_path / "d"), error_for), Address(str(tmp_path / "d")))


def test_command_names_every_place(tmp_path):
    argv = launch.command(
        Address("/s/docker.sock", may_start=True, root="/r", state="/s", config="/c")
    )
    assert argv[-8:] == ["--state", "/s", "--idle-exit", "300", "--root", "/r", "--config", "/c"]


def test_flags_come_before_environment(monkeypatch):
    monkeypatch.setenv("SAMPAN_HOST", "unix:///e.sock")
    monkeypatch.setenv("SAMPAN_STATE", "/e")
    monkeypatch.setenv("SAMPAN_ROOT", "/er")
    assert resolve("unix:///f.sock").path == "/f.sock"
    assert resolve().path == "/e.sock"
    assert not resolve().may_start
    assert resolve(state="/f").path == "/f/docker.sock"
    monkeypatch.delenv("SAMPAN_HOST")
    found = resolve()
    assert (found.path, found.root, found.may_start) == ("/e/docker.sock", "/er", True)
    monkeypatch.setenv("SAMPAN_CONFIG", "/ec")
    assert (resolve().config, resolve(config="/fc").config) == ("/ec", "/fc")


def test_default_state_of_others(monkeypatch):
    monkeypatch.delenv("SAMPAN_STATE", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert default_state() == "/run/user/1000/sampan"


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:2375", "relative.sock", ""])
def test_host_that_is_no_socket_is_refused(host):
    with pytest.raises(InvalidArgument):
        parse_host(host)
