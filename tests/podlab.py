"""Pods of an engine in this process, for tests that look below the interface of the kubelet."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from dockerlab import tar_of
from enginelab import Lab, eventually, shims_running
from sampan.pods.model import ImageSpec, Mode, Namespaces, Request, SandboxConfig, Security
from sampan.pods.service import Pods
from sampan.pods.settings import PodSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def opened(lab: Lab) -> AsyncIterator[Pods]:
    """An engine with the image `bb:1`, and its pods."""
    async with lab.engine() as engine:
        await engine.images.import_tar(_body(lab), "bb:1")
        yield await Pods.open(engine, PodSettings(cni_config="/nonexistent"))


async def _body(lab: Lab) -> AsyncIterator[bytes]:
    yield tar_of(lab.rootfs)


def config(lab: Lab, name: str, network: Mode = Mode.NODE) -> SandboxConfig:
    """A sandbox with logs, whose containers do not share processes."""
    namespaces = Namespaces(network=network, pid=Mode.CONTAINER)
    security = Security(namespaces=namespaces)
    logs = str(lab.path / "logs")
    return SandboxConfig(name=name, namespace="ns", uid=name, security=security, log_directory=logs)


def wish(sandbox: SandboxConfig, name: str, **more: object) -> Request:
    """A container of such a sandbox."""
    made = Request(
        name=name,
        image=ImageSpec(image="bb:1"),
        security=sandbox.security,
        log_path=f"{sandbox.name}-{name}.log",
    )
    return replace(made, **more)


def close(lab: Lab) -> None:
    """The end of the test: nothing of the pods is left."""
    asyncio.run(eventually(lambda: shims_running(str(lab.path)) == []))
    assert (lab.shims(), lab.cgroups()) == ([], [])
    assert os.listdir(lab.path / "root/containers") == []  # a layer of the image stays
    lab.close()
