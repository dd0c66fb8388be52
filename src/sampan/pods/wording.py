"""A request in the words of the engine, which keeps and starts its containers. Pure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sampan.engine.model import ContainerConfig, HostConfig, LogConfig, LogDriver
from sampan.engine.model import Device as EngineDevice
from sampan.pods import names, security
from sampan.pods.model import GroupsPolicy

if TYPE_CHECKING:
    from sampan.images.model import Image
    from sampan.pods.model import Request, Sandbox


def config(request: Request, sandbox: Sandbox, image: Image) -> ContainerConfig:
    """What runs in a container."""
    return ContainerConfig(
        image=image.id,
        entrypoint=request.command or None,
        command=request.args or None,
        env=request.env,
        cwd=request.cwd,
        user=security.user(request.security),
        hostname=sandbox.config.hostname or os.uname().nodename,
        tty=request.tty,
        open_stdin=request.stdin,
        stdin_once=request.stdin_once,
        stop_signal=request.stop_signal,
    )


def host(request: Request, sandbox: Sandbox, log: str) -> HostConfig:
    """What the container gets of the node; `log` is the path of its log, "" for none."""
    asked = request.security
    driver = LogDriver.CRI if log else LogDriver.NONE
    return HostConfig(
        network_mode="none",  # the pod's is joined
        cgroup_parent=names.cgroup_parent(sandbox.config.cgroup_parent),
        read_only=asked.read_only,
        cap_add=asked.add,
        cap_drop=asked.drop,
        privileged=asked.privileged,
        security_opt=security.options(asked),
        group_add=tuple(str(group) for group in asked.groups),
        groups_policy="strict" if asked.groups_policy is GroupsPolicy.STRICT else "merge",
        devices=tuple(
            EngineDevice(
                host_path=os.path.realpath(one.source),
                container_path=one.target or one.source,
                permissions=one.permissions or "rwm",
            )
            for one in request.devices
        ),
        cdi_devices=request.cdi,
        masked_paths=asked.masked_paths or None,
        readonly_paths=asked.readonly_paths or None,
        log=LogConfig(driver=driver, path=log),
    )
