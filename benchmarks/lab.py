"""The place where all engines are measured: namespaces, directories and cgroups of its own.

`enter` runs a function in new mount, pid, network and IPC namespaces, below a directory of its own,
with a fresh /run. Whatever the engines start dies with the pid namespace and whatever they mount
with the mount namespace, also when this process is killed. Cgroups belong to no namespace: every
engine makes its own below `CGROUP`, and they are removed here when all processes are gone. The lab
itself lives there too, in cgroups for memory and CPU: what it and all below it use is counted
without the neighbours of a shared machine.

The directory is removed at the very end only: ext4 extracts three to four times slower soon after
ten thousand files were deleted.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.kernel import loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CGROUP = "/sampan-bench"
_PODMAN = "/libpod_parent"  # podman makes it whatever its parent is said to be
_HERE = "SAMPAN_BENCH_BASE"
_TREES = "/sys/fs/cgroup"


def base() -> Path | None:
    """The directory of the lab, inside of it; None outside."""
    value = os.environ.get(_HERE)
    return Path(value) if value else None


def enter(argv: Sequence[str], directory: str) -> int:
    """Run this program again inside of a new lab below `directory`, clean up; its exit code."""
    place = tempfile.mkdtemp(prefix="sampan-bench-", dir=directory)
    command = ["unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child"]
    command += ["--mount-proc", "--propagation", "private", sys.executable, *argv]
    inside = subprocess.Popen(command, env={**os.environ, _HERE: place})
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: inside.kill())
    podman = not os.path.exists(f"{_TREES}/memory{_PODMAN}")
    try:
        return inside.wait()
    finally:
        remove_cgroups([CGROUP, *([_PODMAN] if podman else [])])
        shutil.rmtree(place, ignore_errors=True)


def serve(work: Callable[[], int]) -> int:
    """As the first process of the lab: set it up, run `work` in a child, reap whatever ends."""
    join_cgroup()
    loopback.bring_up()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run"], check=True)
    child = os.fork()
    if child == 0:
        os._exit(_guarded(work))
    while True:
        pid, status = os.wait()
        if pid == child:
            return abs(os.waitstatus_to_exitcode(status))


def _guarded(work: Callable[[], int]) -> int:
    try:
        return work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def environ(place: Path) -> dict[str, str]:
    """What commands and daemons are started with: no configuration of the user's is seen."""
    path = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "HOME": str(place), "TMPDIR": str(place), "LANG": "C.UTF-8"}


def join_cgroup() -> None:
    """Move this process, and so all that it starts, below the lab's cgroups for memory and CPU."""
    for path in {Path(memory_cgroup()), Path(cpu_cgroup())}:
        (path / "lab").mkdir(parents=True)
        if path.parent == Path(_TREES):  # v2: controllers are handed down
            for folder in (path.parent, path):
                (folder / "cgroup.subtree_control").write_text("+memory +cpu")
        (path / "lab/cgroup.procs").write_text("0")


def memory_cgroup() -> str:
    """The directory of the cgroup whose memory is everything in the lab."""
    return _tree("memory") + CGROUP


def cpu_cgroup() -> str:
    """The directory of the cgroup whose CPU time is everything in the lab."""
    return _tree("cpuacct") + CGROUP


def cpu_ms() -> float:
    """Milliseconds of CPU that all of the lab has used."""
    folder = Path(cpu_cgroup())
    if (folder / "cpuacct.usage").exists():
        return int((folder / "cpuacct.usage").read_text()) / 1e6
    words = (folder / "cpu.stat").read_text().split()
    return int(words[words.index("usage_usec") + 1]) / 1e3


def _tree(controller: str) -> str:
    """The hierarchy of a controller: its own on v1, the one of all on v2."""
    return f"{_TREES}/{controller}" if os.path.isdir(f"{_TREES}/{controller}") else _TREES


def remove_cgroups(names: list[str]) -> None:
    """Remove the cgroups of the lab from every hierarchy; they hold no process any more."""
    trees = [_TREES, *(entry.path for entry in os.scandir(_TREES) if entry.is_dir())]
    for path in (tree + name for tree in trees for name in names):
        for folder, _, _ in os.walk(path, topdown=False):
            try:
                os.rmdir(folder)
            except OSError as error:
                print(f"bench: {folder} stays: {error.strerror}", file=sys.stderr)
