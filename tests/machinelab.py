"""Containers that a given blank becomes, and what they write."""

from __future__ import annotations

import os

from sampan.kernel import process
from sampan.runtime import create, rootfs


def output(place, name: str, config: dict, blank) -> str:
    """What the container `name` of `config` writes; `place` has its `root` and where that is
    attached, `at`."""
    read_end, write_end = os.pipe()
    root = rootfs.bind(str(place / "root"))
    null = os.open("/dev/null", os.O_RDWR)
    try:
        made = create.create(
            name,
            config,
            stdio=(null, write_end, write_end),
            root=root,
            attach_at=str(place / "at"),
            use_gate=False,
            die_with_parent=True,
            blank=blank,
        )
    except BaseException:
        os.close(read_end)
        raise
    finally:
        for fd in (root, null, write_end):
            os.close(fd)
    with open(read_end) as stream:
        text = stream.read()
    process.wait_pidfd(made.pidfd)
    os.close(made.pidfd)
    made.release()
    assert made.cgroup is not None
    made.cgroup.remove()
    return text
