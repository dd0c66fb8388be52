"""Sampan: a complete container platform in Python.

The public names are resolved when they are first used, so that `import sampan` costs nothing:

    import sampan

    with sampan.Engine.open() as engine:
        print(engine.run("busybox", command=["uname", "-a"]).text)
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan import errors as errors
    from sampan.client.async_engine import AsyncContainer as AsyncContainer
    from sampan.client.async_engine import AsyncEngine as AsyncEngine
    from sampan.client.building import Build as Build
    from sampan.client.building import BuildEvent as BuildEvent
    from sampan.client.building import BuildWarning as BuildWarning
    from sampan.client.engine import Container as Container
    from sampan.client.engine import Engine as Engine
    from sampan.client.networks import Network as Network
    from sampan.client.results import Change as Change
    from sampan.client.results import CommandFailed as CommandFailed
    from sampan.client.results import ContainerInfo as ContainerInfo
    from sampan.client.results import ContainerSummary as ContainerSummary
    from sampan.client.results import Event as Event
    from sampan.client.results import ExecResult as ExecResult
    from sampan.client.results import HistoryStep as HistoryStep
    from sampan.client.results import Image as Image
    from sampan.client.results import LogChunk as LogChunk
    from sampan.client.results import Output as Output
    from sampan.client.results import Progress as Progress
    from sampan.client.results import PrunedImages as PrunedImages
    from sampan.client.results import RunResult as RunResult
    from sampan.client.results import SearchResult as SearchResult
    from sampan.client.results import Stats as Stats
    from sampan.client.results import StoreCheck as StoreCheck
    from sampan.client.results import StoreProblem as StoreProblem
    from sampan.client.results import Verified as Verified
    from sampan.client.sandbox import Sandbox as Sandbox
    from sampan.client.shortcuts import build as build
    from sampan.client.volumes import Volume as Volume
    from sampan.version import VERSION as __version__  # noqa: N811

_RESULTS = (
    "Change CommandFailed ContainerInfo ContainerSummary Event ExecResult HistoryStep Image "
    "LogChunk Output Progress PrunedImages RunResult SearchResult Stats StoreCheck StoreProblem "
    "Verified"
)
_WHERE = {
    "AsyncContainer": "sampan.client.async_engine",
    "AsyncEngine": "sampan.client.async_engine",
    "Build": "sampan.client.building",
    "BuildEvent": "sampan.client.building",
    "BuildWarning": "sampan.client.building",
    "Container": "sampan.client.engine",
    "Engine": "sampan.client.engine",
    "Sandbox": "sampan.client.sandbox",
    "Network": "sampan.client.networks",
    "Volume": "sampan.client.volumes",
    "build": "sampan.client.shortcuts",
} | dict.fromkeys(_RESULTS.split(), "sampan.client.results")

__all__ = ["__version__", "errors", *_WHERE]  # noqa: PLE0604  literal names, by split


def __getattr__(name: str) -> Any:
    import sys

    if name == "__version__":
        from sampan.version import VERSION

        return VERSION
    if name != "errors" and name not in _WHERE:
        raise AttributeError(f"module 'sampan' has no attribute {name!r}")
    module = _WHERE.get(name, "sampan.errors")
    __import__(module)
    found = sys.modules[module]
    value = found if name == "errors" else getattr(found, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
