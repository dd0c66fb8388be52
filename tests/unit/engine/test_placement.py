"""Where a container's cgroup is."""

from __future__ import annotations

import pytest

from sampan.engine.config import EngineConfig
from sampan.engine.model import Container, ContainerConfig, HostConfig
from sampan.engine.placement import cgroup_path


@pytest.mark.parametrize(
    ("parent", "path"),
    [
        ("", "/ours/c1"),
        ("/theirs", "/theirs/c1"),
        ("mine/too", "/ours/mine/too/c1"),
        ("mine/", "/ours/mine/c1"),
    ],
)
def test_a_relative_parent_is_below_ours(parent, path):
    container = Container(
        id="c1",
        name="n",
        created_at=0,
        config=ContainerConfig(),
        host=HostConfig(cgroup_parent=parent),
        path="sh",
    )
    assert cgroup_path(EngineConfig(cgroup_parent="/ours"), container) == path
