"""What a run has left on this machine: processes, mounts, cgroups, networks, files.

The watch is started before the run. It makes this process the subreaper of everything it starts:
whatever loses its parent becomes our child, however it was started. So "no child is left" is a
proof that no process is left, not a search by name. Network namespaces live on in processes and in
mounts only, so what is looked for are mounts of them. Bridges and the tables of the packet filter
live on by themselves.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import socket
import subprocess
import time
from glob import glob

from sampan.network import links
from sampan.network.netlink import Netlink

PR_SET_CHILD_SUBREAPER = 36
PLACES = ("/run/sampan", "/var/lib/sampan", "/etc/sampan", "/run/netns")


class Watch:
    """What was there before; `directory` and `cgroup` are the run's own."""

    def __init__(self, directory: str, cgroup: str) -> None:
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
        self.directory = directory
        self.cgroup = cgroup
        self._places = _listing(PLACES)
        self._namespaces = _namespace_mounts()
        self._bridges = _bridges()
        self._tables = _tables()

    def found(self) -> list[str]:
        """A sentence for each thing that is left; the directory is the caller's to remove."""
        left = [f"process {pid}: {_name(pid)}" for pid in children()]
        left += [f"mount {line}" for line in _mounts() if self.directory in line]
        left += [f"network namespace {line}" for line in _namespace_mounts() - self._namespaces]
        left += [f"bridge {name}" for name in sorted(_bridges() - self._bridges)]
        left += [f"table {name} of the packet filter" for name in sorted(_tables() - self._tables)]
        left += [f"cgroup {path}" for path in self.cgroups() if not _is_parent(path, self.cgroup)]
        left += [f"file {path}" for path in sorted(_listing(PLACES) - self._places)]
        return left

    def cgroups(self) -> list[str]:
        """Every directory of the run in every hierarchy, the deepest first."""
        roots = glob(f"/sys/fs/cgroup{self.cgroup}") + glob(f"/sys/fs/cgroup/*{self.cgroup}")
        found = [path for root in roots for path, _, _ in os.walk(root, topdown=False)]
        return sorted(set(found), key=lambda path: (-path.count("/"), path))

    def end_processes(self, patience: float = 10.0) -> None:
        """Kill what is left of the run, its children's children too, and wait until it is gone."""
        end = time.monotonic() + patience
        while (left := children()) and time.monotonic() < end:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def remove_networks(self) -> None:
        """Remove the run's bridges and rules; its processes are gone, and their interfaces too."""
        netlink = Netlink()
        try:
            netlink.run([links.delete(name) for name in _bridges() - self._bridges])
        finally:
            netlink.close()
        for name in _tables() - self._tables:
            subprocess.run(["nft", "delete", "table", *name.split()], check=True)

    def remove_cgroups(self) -> list[str]:
        """Remove the run's directories; a sentence for each that refuses."""
        refused = []
        for path in self.cgroups():
            try:
                os.rmdir(path)
            except OSError as error:
                refused.append(f"cgroup {path}: {error.strerror}")
        return refused


def children() -> list[int]:
    """The living children of this process; those that ended are reaped."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            return []
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(word) for word in file.read().split()]


def wait_for_no_children(patience: float = 5.0) -> None:
    """Give processes that are on their way out the time to go."""
    end = time.monotonic() + patience
    while children() and time.monotonic() < end:
        time.sleep(0.02)


def _is_parent(path: str, cgroup: str) -> bool:
    return path.endswith(cgroup)


def _listing(places: tuple[str, ...]) -> set[str]:
    return {f"{place}/{name}" for place in places for name in _names(place)}


def _names(place: str) -> list[str]:
    try:
        return [".", *os.listdir(place)]
    except FileNotFoundError:
        return []


def _mounts() -> list[str]:
    with open("/proc/self/mountinfo") as file:
        return file.read().splitlines()


def _namespace_mounts() -> set[str]:
    return {line.split()[4] for line in _mounts() if " - nsfs " in line}


def _bridges() -> set[str]:
    """Bridges that the engine makes for a root of its own."""
    return {name for _, name in socket.if_nameindex() if name.startswith("sb-")}


def _tables() -> set[str]:
    """Its tables of the packet filter, as `inet sampan-...`."""
    if shutil.which("nft") is None:
        return set()
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    words = (line.removeprefix("table ") for line in done.stdout.splitlines())
    return {word for word in words if word.partition(" ")[2].startswith("sampan")}


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().replace("\0", " ").strip() or "without a command line"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "gone")
