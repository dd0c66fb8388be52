"""What a kernel can do with mounts, by its release."""

from __future__ import annotations

import pytest

from sampan.kernel.mounts import clones_detached


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("6.1.0-56-cloud-amd64", False),
        ("5.15.0", False),
        ("6.14.11+", False),
        ("6.15-rc1", True),
        ("6.18.44-fc-v595", True),
        ("7.0.0", True),
    ],
)
def test_clones_of_detached_mounts(release, expected):
    assert clones_detached(release) is expected
