"""The host and the engine in numbers."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from sampan.engine.model import EngineInfo, Status
from sampan.engine.runtimes import find
from sampan.engine.stats import MEMORY_TOTAL
from sampan.kernel import cgroups

if TYPE_CHECKING:
    from sampan.engine.services import Services


async def engine_info(services: Services) -> EngineInfo:
    """See Engine.info."""
    config = services.config
    everyone = (entry.container for entry in services.containers)
    states = [container.status for container in everyone if not container.owner]
    kernel = os.uname()
    running = states.count(Status.RUNNING) + states.count(Status.RESTARTING)
    paused = states.count(Status.PAUSED)
    paths = {name: words[0] for name, words in find(config.runtimes).items()}
    return EngineInfo(
        id=_machine_id(),
        name=socket.gethostname(),
        containers=len(states),
        containers_running=running,
        containers_paused=paused,
        containers_stopped=len(states) - running - paused,
        images=len(await services.images.list()),
        driver="overlay",
        root=config.root,
        state=config.state,
        kernel_version=kernel.release,
        operating_system=_operating_system(),
        architecture=kernel.machine,
        cpus=os.cpu_count() or 1,
        memory_total=MEMORY_TOTAL,
        cgroup_version="2" if cgroups.mode() == "unified" else "1",
        default_no_new_privileges=config.no_new_privileges,
        log_driver=config.log_driver,
        runtimes={"sampan-oci": "sampan-oci", **paths},
    )


def _machine_id() -> str:
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read(64).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _operating_system() -> str:
    try:
        with open("/etc/os-release", encoding="utf-8", errors="replace") as file:
            lines = file.read(1 << 16).split("\n")
    except OSError:
        return "Linux"
    for line in lines:
        if line.startswith("PRETTY_NAME="):
            return line[12:].strip("\"'")
    return "Linux"
