"""What a daemon leaves in the file system, and what it must not take."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from sampan.daemon import sockets
from sampan.errors import Conflict, InvalidArgument


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "docker.sock")


def connects(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    return True


@pytest.mark.parametrize("mask", [0, 0o077])
def test_a_socket_has_its_mode_whatever_the_mask_is(path, mask):
    before = os.umask(mask)
    try:
        with sockets.listen(path):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
            assert connects(path)
            assert os.listdir(os.path.dirname(path)) == ["docker.sock"]
            assert os.umask(mask) == mask
    finally:
        os.umask(before)


def test_a_stale_socket_is_replaced(path):
    sockets.listen(path).close()
    assert os.path.exists(path)
    with sockets.listen(path):
        assert connects(path)


def test_a_living_socket_is_not_replaced(path):
    with sockets.listen(path):
        with pytest.raises(Conflict, match="another process listens"):
            sockets.listen(path)
        assert connects(path)


def test_a_file_is_not_replaced(path):
    with open(path, "w") as file:
        file.write("precious")
    with pytest.raises(Conflict, match="is no socket"):
        sockets.listen(path)
    with open(path) as file:
        assert file.read() == "precious"


def test_a_link_is_not_followed(path, tmp_path):
    with sockets.listen(str(tmp_path / "other")):
        os.symlink(str(tmp_path / "other"), path)
        with pytest.raises(Conflict):
            sockets.listen(path)


def test_a_group_that_was_named_must_exist(path):
    with pytest.raises(InvalidArgument, match="group 'no-such-group'"):
        sockets.listen(path, "no-such-group")
    assert not os.path.exists(path)


def test_a_directory_that_is_missing_is_an_error_of_ours(tmp_path):
    with pytest.raises(InvalidArgument, match="No such file"):
        sockets.listen(str(tmp_path / "missing" / "docker.sock"))


def test_the_pid_file(tmp_path):
    path = str(tmp_path / "sampan.pid")
    sockets.write_pid(path)
    sockets.write_pid(path)
    with open(path) as file:
        assert file.read() == f"{os.getpid()}\n"
    sockets.remove(path)
    sockets.remove(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["/notify", "@sampan-test-notify"])
def test_systemd_is_told(tmp_path, name):
    address = str(tmp_path) + name if name.startswith("/") else f"{name}-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if address.startswith("@") else address)
        manager.settimeout(5)
        sockets.notify("READY=1", address)
        assert manager.recv(100) == b"READY=1"


def test_nobody_to_tell(tmp_path):
    sockets.notify("READY=1", None)
    sockets.notify("READY=1", str(tmp_path / "nosuch"))
