"""Builds of an ordinary user: nobody is root but inside of a user namespace."""

from __future__ import annotations

import os
import signal
import tarfile
from pathlib import Path

import pytest

from ordinarylab import FIRST, USER, available, ordinary

pytestmark = pytest.mark.skipif(not available, reason="needs root, a static busybox and newuidmap")
BASE = "FROM scratch\nCOPY rootfs /\n"


@pytest.fixture(scope="module")
def user():
    with ordinary() as made:
        yield made


def test_a_user_builds_and_runs(user):
    user.write("secret", "hush-99\n")
    user.write(
        "Dockerfile",
        f"{BASE}RUN id -u > /who; cat /proc/self/uid_map > /map; chmod 777 /tmp\n"
        "RUN mkdir /d; chown 5:6 /d\n"
        "COPY --chown=1000:1001 secret /mine\n"
        "RUN --mount=type=secret,id=s,required cat /run/secrets/s | wc -c > /length\n"
        "RUN --mount=type=cache,target=/c echo x >> /c/n; wc -l < /c/n > /lines\n"
        "USER 1000\nRUN id -u > /tmp/own\n",
    )
    said = user.sampan("build", "-t", "r:1", "--secret", "id=s,src=secret", ".").err
    assert "commands of RUN had no network" in said
    flags = ("run", "--rm", "--user", "0", "--network", "none", "r:1")
    shown = user.sampan(*flags, "cat", "/who", "/length", "/lines", "/tmp/own").out
    assert shown.split() == ["0", "8", "1", "1000"]
    maps = user.sampan(*flags, "cat", "/map").out.split()
    assert maps == ["0", str(USER), "1", "1", str(FIRST), "65536"]
    again = user.sampan("build", "-t", "r:1", "--secret", "id=s,src=secret", ".").err
    assert again.count(" CACHED\n") == 7
    user.sampan("build", "-o", "type=tar,dest=out.tar", "--secret", "id=s,src=secret", ".")
    with tarfile.open(user.place / "out.tar") as tar:
        owners = {name: tar.getmember(name) for name in ("d", "mine", "who")}
    assert [(one.uid, one.gid) for one in owners.values()] == [(5, 6), (1000, 1001), (0, 0)]


def test_nobody_is_root_on_the_machine(user):
    user.write("Dockerfile", f"{BASE}RUN chown 7:7 /etc\n")
    user.sampan("build", "-q", "--network", "none", ".")
    words = Path(f"/proc/{user.daemon}/status").read_text().split()
    at = words.index("Uid:") + 1
    assert set(words[at : at + 4]) == {str(USER)}
    found = set()
    for folder, _, names in os.walk(f"{user.base}/home/.local"):
        for name in [*names, "."]:
            found.add(os.lstat(os.path.join(folder, name)).st_uid)
    assert found == {USER, FIRST + 6} | ({FIRST + 4, FIRST + 999} & found)


def test_what_an_ordinary_user_cannot_have_is_told(user):
    user.write("Dockerfile", f"{BASE}RUN true\n")
    said = user.sampan("build", "-m", "100m", "--no-cache", ".", code=1).err
    assert "these limits cannot hold" in said
    said = user.sampan("build", "--network", "host", "--no-cache", ".").err
    assert "no network" not in said


def test_the_cache_is_there_after_the_daemon_was_killed(user):
    user.write("Dockerfile", f"{BASE}RUN echo one > /one\nRUN cat /one > /two\n")
    user.sampan("build", "-q", "--build-arg", "A", ".")
    user.stop(signal.SIGKILL)
    again = user.sampan("build", "-t", "k:1", ".").err
    assert again.count(" CACHED\n") == 3
    assert user.sampan("run", "--rm", "--network", "none", "k:1", "cat", "/two").out == "one\n"
