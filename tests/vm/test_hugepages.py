"""Huge pages of a pod's container, on a kernel with the controller: what it may have of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from enginelab import Lab
from podlab import close, config, opened, wish
from sampan.pods import pressure
from sampan.pods.model import Resources

pytestmark = pytest.mark.skipif(not os.environ.get("SAMPAN_VM"), reason="for the virtual machine")
PAGE = 2 << 20
RESERVED = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
MAP_HUGETLB = 0x40000
TAKES = f"""
import mmap, sys
size = int(sys.argv[1]) * {PAGE}
with open(sys.argv[2] + "/cgroup.procs", "w") as file:
    file.write("0")
pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | {MAP_HUGETLB})
for start in range(0, size, {PAGE}):
    pages[start] = 1
print(open(sys.argv[2] + "/hugetlb.2MB.current").read().strip())
"""


@pytest.fixture
def lab(tmp_path: Path):
    RESERVED.write_text("4")
    made = Lab(tmp_path)
    yield made
    close(made)
    RESERVED.write_text("0")


@pytest.mark.parametrize("unified", [False, True])
def test_the_limit_of_huge_pages(lab: Lab, unified: bool):
    asyncio.run(limit(lab, unified=unified))


async def limit(lab: Lab, *, unified: bool) -> None:
    limits = Resources(hugepages={"2MB": PAGE})
    if unified:
        limits = Resources(unified={"hugetlb.2MB.max": str(PAGE)})
    async with opened(lab) as pods:
        sandbox = await pods.sandboxes.run(config(lab, "pod"), "")
        request = wish(sandbox.config, "c", command=("sleep", "1000"), resources=limits)
        made = await pods.containers.create(sandbox.id, request, None)
        await pods.containers.start(made)
        pid = pods.engine.get(made).state.pid
        group = group_of(pid)
        assert (group / "hugetlb.2MB.max").read_text().strip() == str(PAGE)
        assert await asyncio.to_thread(take, 1, group) == (0, str(PAGE))
        code, said = await asyncio.to_thread(take, 2, group)
        if unified:
            assert (code, said) == (-signal.SIGBUS, "")
        else:  # the field limits what may be set aside for a process, too
            assert (code, said[-22:]) == (1, "Cannot allocate memory")
        assert pressure.huge_pages(pid)["2MB"] == (0, 0)
        await pods.containers.update(made, Resources(hugepages={"2MB": 2 * PAGE}))
        assert (group / "hugetlb.2MB.max").read_text().strip() == str(2 * PAGE)
        assert await asyncio.to_thread(take, 2, group) == (0, str(2 * PAGE))
        await pods.sandboxes.remove(sandbox.id)


def group_of(pid: int) -> Path:
    """The directory of a process' cgroup."""
    name = Path(f"/proc/{pid}/cgroup").read_text().strip().partition("::")[2]
    return Path(f"/sys/fs/cgroup{name}")


def take(count: int, group: Path) -> tuple[int, str]:
    """How a process in the cgroup ends that uses so many pages; what it sees counted, or says."""
    words = [sys.executable, "-c", TAKES, str(count), str(group)]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    return done.returncode, (done.stdout or done.stderr).strip()
