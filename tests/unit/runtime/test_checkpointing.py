"""What CRIU is told of a container's mounts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.runtime import checkpointing


@pytest.mark.parametrize("root", ["/", "/proc/self/root", ""])
def test_mount_points_begin_with_a_slash_and_have_no_links(tmp_path: Path, root: str):
    """The root may be a process's own, which is how the engine names it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real" if root else "/real")
    inside = str(tmp_path) if root else ""
    points = ["link/", "nosuch/./x", "link/nosuch/y"]
    mounts = [{"destination": f"{inside}/{point}", "source": "/s"} for point in points]
    fd = os.open(root or tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        found = checkpointing.external_mounts({"mounts": mounts}, fd)
    finally:
        os.close(fd)
    assert found == {
        f"{inside}/real": "/s",
        f"{inside}/nosuch/x": "/s",
        f"{inside}/real/nosuch/y": "/s",
    }
