"""kill -9 of sampan-oci in front of each of its steps: what is left, `delete --force` removes.

The command runs in an interpreter that counts its system calls that change something or speak to
another process, and ends by SIGKILL in front of the one that is asked for. What the command has
started goes on, or sees that nobody is there any more, as it would after a real kill.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bundles import Bundle

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SOURCE = Path(__file__).parents[2] / "src"
STEPS = (
    "mkdir mkfifo mknod rename unlink remove rmdir write posix_spawn waitpid waitid sendmsg send "
    "recv recvmsg execve pidfd_open pidfd_send_signal sched_setaffinity memfd_create"
).split()
WALK = """
import os, sys
sys.path.append({source!r})
count, last = 0, {last}
def watch(frame, event, function):
    global count
    if event == "c_call" and function.__name__ in {steps!r}:
        count += 1
        if count == last:
            os.kill(os.getpid(), 9)
from sampan.runtime.__main__ import main
sys.argv = ["-c", *{words!r}]
sys.setprofile(watch)
status = main()
sys.setprofile(None)
with open({out!r}, "w") as file:
    file.write(str(count))
os._exit(status)
"""
WAIT = 20.0
STRIDE = 4  # 1 takes a minute more, and found nothing that 4 did not


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    made.shell(f"exec sleep 98{os.getpid()}")
    yield made
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def walk(bundle: Bundle, last: int, *words: str) -> int:
    """Run a command up to step `last`; how many steps it has, or 0 when it was killed."""
    out = bundle.path / "steps"
    out.unlink(missing_ok=True)
    all_words = ["--root", str(bundle.root), *words]
    text = WALK.format(source=str(SOURCE), last=last, steps=STEPS, words=all_words, out=str(out))
    command = [sys.executable, "-I", "-S", "-c", text]
    null = subprocess.DEVNULL
    done = subprocess.run(
        command, cwd=bundle.path, stdin=null, stdout=null, stderr=null, timeout=60, check=False
    )
    if done.returncode == -9:
        return 0
    return int(out.read_text()) if out.exists() else 0


def processes(bundle: Bundle) -> list[str]:
    """What is left of the command and of its container."""
    found = []
    marks = (f"98{os.getpid()}".encode(), b"sampan-init", bundle.id.encode())
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                line = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if any(mark in line for mark in marks):
                found.append(f"{entry.name} {line!r}")
    return found


def assert_nothing_is_left(bundle: Bundle, step: int) -> None:
    assert not list(bundle.root.glob("*")), step
    assert bundle.cgroup_is_gone(), step
    deadline = time.monotonic() + WAIT
    while left := processes(bundle):
        assert time.monotonic() < deadline, (step, left)


def with_clocks(bundle: Bundle) -> None:
    """What only an interpreter makes."""
    bundle.config["linux"]["namespaces"].append({"type": "time"})


@pytest.mark.parametrize("by", ["machine", "interpreter"])
@pytest.mark.timeout(240)
def test_a_killed_start_leaves_nothing_that_delete_does_not_remove(bundle: Bundle, by: str):
    if by == "interpreter":
        with_clocks(bundle)
    bundle.save()
    words = ["run", "--detach", bundle.id]
    total = walk(bundle, 0, *words)
    assert total > 10
    bundle.oci("delete", "--force", bundle.id, check=True)
    assert_nothing_is_left(bundle, 0)
    for step in range(1, total + 1, STRIDE):
        walk(bundle, step, *words)
        bundle.oci("delete", "--force", bundle.id, check=True)
        assert_nothing_is_left(bundle, step)


@pytest.mark.timeout(120)
def test_a_killed_removal_can_be_repeated(bundle: Bundle):
    bundle.save()
    bundle.start(f"exec sleep 98{os.getpid()}")
    total = walk(bundle, 0, "delete", "--force", bundle.id)
    assert total > 2
    assert_nothing_is_left(bundle, 0)
    for step in range(1, total + 1):
        bundle.start(f"exec sleep 98{os.getpid()}")
        walk(bundle, step, "delete", "--force", bundle.id)
        bundle.oci("delete", "--force", bundle.id, check=True)
        assert_nothing_is_left(bundle, step)
