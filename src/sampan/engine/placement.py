"""Where a container's cgroup is, whoever asks: its starter, its stats, or its burial."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.engine.config import EngineConfig
    from sampan.engine.model import Container


def cgroup_path(config: EngineConfig, container: Container) -> str:
    """The path below the mount point of every hierarchy; it starts with a slash."""
    parent = container.host.cgroup_parent or config.cgroup_parent
    if not parent.startswith("/"):
        parent = f"{config.cgroup_parent}/{parent.rstrip('/')}"
    return f"{parent}/{container.id}"
