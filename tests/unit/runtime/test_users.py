"""Docker's user strings, resolved in the files of a root that is not trusted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.kernel.paths import Root
from sampan.runtime import users
from sampan.runtime.failure import InvalidConfig

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n1000:x:5:5::/:/bin/sh\n"
GROUP = "root:x:0:\nwheel:x:10:root,web\nweb:x:34:\nmail:x:8:web\n"


@pytest.fixture
def root(tmp_path: Path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield Root(fd)
    os.close(fd)


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, [10], "/root"),
        ("web", 33, 34, [10, 8], "/var/www"),
        ("33", 33, 34, [10, 8], "/var/www"),
        ("web:mail", 33, 8, [], "/var/www"),
        ("web:100", 33, 100, [], "/var/www"),
        ("4242", 4242, 0, [], "/"),
        ("4242:4343", 4242, 4343, [], "/"),
        ("1000", 1000, 0, [], "/"),
        ("01", 1, 0, [], "/"),
        ("2147483647", 2**31 - 1, 0, [], "/"),
    ],
)
def test_identities(root: Root, user: str, uid: int, gid: int, groups: list[int], home: str):
    found = users.resolve(root, user, [])
    assert (found.uid, found.gid, found.groups, found.home) == (uid, gid, groups, home)


@pytest.mark.parametrize(
    "user",
    ["nobody", "1_0", "\uff11", " 1", "+1", "-1", "2147483648", "99999999999999", "0x0", "root\n"],
)
def test_what_is_no_user_is_refused(root: Root, user: str):
    with pytest.raises(InvalidConfig):
        users.resolve(root, user, [])


def test_unknown_groups_are_refused(root: Root):
    with pytest.raises(InvalidConfig, match="unable to find group nope"):
        users.resolve(root, "web:nope", [])


def test_additional_groups_by_name_and_number(root: Root):
    assert users.resolve(root, "0", ["mail", "99"]).groups == [10, 8, 99]


def test_numbers_work_without_the_files(tmp_path: Path):
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    assert users.resolve(Root(fd), "7:8", []).gid == 8
    os.close(fd)


def test_a_fifo_for_passwd_is_an_error_and_does_not_wait(tmp_path: Path):
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    with pytest.raises(OSError, match="not a regular file"):
        users.resolve(Root(fd), "0", [])
    os.close(fd)


def test_a_link_out_of_the_root_stays_inside(tmp_path: Path):
    inside = tmp_path / "root"
    (inside / "etc").mkdir(parents=True)
    (tmp_path / "passwd").write_text("evil:x:0:0::/:/bin/sh\n")
    (inside / "etc/passwd").symlink_to("../../passwd")
    fd = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    with pytest.raises(InvalidConfig):
        users.resolve(Root(fd), "evil", [])
    os.close(fd)
