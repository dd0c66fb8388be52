"""Builds are imported with the first one."""

from __future__ import annotations

import subprocess
import sys

from dockerlab import SOURCES
from sampan.api.docker import app, build, building

LIGHT = {"sampan.builder"} | {
    f"sampan.builder.{name}" for name in ("failures", "leftovers", "ondemand", "secrets")
}


def test_each_handler_has_its_route():
    routes = {**building.PATHS, **building.NAMED}
    assert {key: route.load() for key, route in routes.items()} == build.HANDLERS
    assert routes.items() <= {**app.PATHS, **app.NAMED}.items()


def test_a_daemon_that_never_builds_has_no_builder():
    script = "import sys, sampan.daemon.serve, sampan.api.docker.app; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": SOURCES},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert {name for name in loaded if name.startswith("sampan.builder")} <= LIGHT
    assert "sampan.api.docker.build" not in loaded
