"""Shims with the real runtime, for the tests that need root."""

from __future__ import annotations

import uuid
from pathlib import Path

from bundles import make_rootfs
from sampan.kernel import cgroups
from sampan.runtime.specification import example
from shimlab import Lab, wait_for


class RealLab(Lab):
    """Containers of busybox in cgroups below /sampan-test."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, real=True)
        self.root = make_rootfs(directory / "rootfs")
        self.cgroups: list[str] = []

    def spec(self, *args, terminal=False):
        spec = example()
        spec["process"] |= {"args": list(args), "terminal": terminal}
        self.cgroups.append(f"/sampan-test/shim-{uuid.uuid4().hex}")
        spec["linux"]["cgroupsPath"] = self.cgroups[-1]
        return spec

    def run(self, *args, **fields):
        return self.launch(*args, rootfs={"type": "bind", "source": str(self.root)}, **fields)

    def run_attached(self, *args, **fields):
        rootfs = {"type": "bind", "source": str(self.root)}
        return self.launch_attached(*args, rootfs=rootfs, **fields)


def real_lab(directory):
    """The body of a fixture: a lab, and the proof that no cgroup and no complaint is left."""
    lab = RealLab(directory)
    yield lab
    lab.close()
    for path in lab.cgroups:
        cgroup = cgroups.manager(path)
        wait_for(f"{path} is gone", lambda cgroup=cgroup: _removed(cgroup))
    complaints = lab.complaints()
    assert complaints == ""


def _removed(cgroup):
    """The cgroups of containers whose shim a test has ended are the test's to remove."""
    if cgroup.exists() and not cgroup.pids():
        cgroup.remove()
    return not cgroup.exists()


def sh(script):
    """A command of the shell."""
    return "/bin/sh", "-c", script


def started(shim):
    """Wait for the start; the pid of init."""
    return shim.next_event("started")["pid"]


def process(*args, terminal=False):
    """An OCI process for an exec."""
    return {
        "args": list(args),
        "env": ["PATH=/bin"],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
        "terminal": terminal,
    }
