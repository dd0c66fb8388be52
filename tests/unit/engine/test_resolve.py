from __future__ import annotations

import pytest

from sampan.engine import resolve
from sampan.engine.model import ContainerConfig, HostConfig
from sampan.errors import InvalidArgument
from sampan.spec.image import RunConfig

ID = "a" * 64
IMAGE = RunConfig(
    user="7",
    env=("PATH=/bin", "A=image"),
    entrypoint=("/entry",),
    cmd=("image",),
    working_dir="/srv",
    labels={"io.sampan.reserved": "x"},
    stop_signal="SIGINT",
)


def complete(image: RunConfig | None = IMAGE, **fields) -> ContainerConfig:
    return resolve.complete(ContainerConfig(image="x", **fields), image, HostConfig(), ID)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, ("/entry", "image")),
        ({"command": ("own",)}, ("/entry", "own")),
        ({"entrypoint": ("/own",)}, ("/own",)),
        ({"entrypoint": ("/own",), "command": ("arg",)}, ("/own", "arg")),
        ({"entrypoint": ("",), "command": ("arg",)}, ("arg",)),
        ({"entrypoint": (), "command": None}, ("image",)),
    ],
)
def test_command_line_as_dockerd_has_it(fields, words):
    assert resolve.command_line(complete(**fields)) == words


def test_the_rest_of_the_image_and_nothing_more():
    config = complete(env=("A=own", "B=2"))
    assert config.env == ("PATH=/bin", "A=own", "B=2")
    assert (config.user, config.cwd, config.stop_signal) == ("7", "/srv", "SIGINT")
    assert config.hostname == "a" * 12
    assert config.labels == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"cwd": "relative"},
        {"hostname": "x" * 65},
        {"hostname": "a\nb"},
        {"env": ("=x",)},
        {"env": ("A=\0",)},
        {"env": ("A\nB=1",)},
        {"user": "a\nb"},
        {"stop_signal": "SIGNOTHING"},
        {"stop_timeout": -2},
        {"command": ("a\0b",)},
    ],
)
def test_what_is_refused(fields):
    with pytest.raises(InvalidArgument):
        complete(**fields)


def test_no_command():
    with pytest.raises(InvalidArgument, match="no command specified"):
        complete(RunConfig())
