"""Pure: what a request leaves open is taken from the image, as dockerd does.

An image gives command, environment, user, directory, ports, stop signal and labels, and nothing
else: its labels stay apart, so that no label of an image can be taken for one of ours.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sampan.engine import health, signals
from sampan.engine.specgen import merge_environment
from sampan.errors import InvalidArgument
from sampan.ids import short_id

if TYPE_CHECKING:
    from sampan.engine.model import ContainerConfig, HostConfig
    from sampan.spec.image import RunConfig

MAX_HOSTNAME = 64


def complete(
    config: ContainerConfig, image: RunConfig | None, host: HostConfig, container_id: str
) -> ContainerConfig:
    """`config` with nothing left open.

    Raises:
        InvalidArgument: a value is impossible, or there is no command.
    """
    if image is not None:
        config = _from_image(config, image)
    changes: dict[str, Any] = {}
    check = health.complete(config.healthcheck, image)
    if check is not config.healthcheck:
        changes["healthcheck"] = check
    if config.entrypoint == ("",):
        changes["entrypoint"] = ()
    if not config.hostname:
        own = host.network_mode != "host" and host.uts_mode != "host"
        changes["hostname"] = short_id(container_id) if own else os.uname().nodename
    if not config.stop_signal:
        changes["stop_signal"] = "SIGTERM"
    if changes:
        config = replace(config, **changes)
    _check(config)
    return config


def command_line(config: ContainerConfig) -> tuple[str, ...]:
    """What runs: the entrypoint and the command.

    Raises:
        InvalidArgument: that is nothing.
    """
    words = (*(config.entrypoint or ()), *(config.command or ()))
    if not words:
        raise InvalidArgument("no command specified")
    return words


def _from_image(config: ContainerConfig, image: RunConfig) -> ContainerConfig:
    entrypoint, command = config.entrypoint, config.command
    if not entrypoint:
        if not command:
            command = image.cmd
        if entrypoint is None:
            entrypoint = image.entrypoint
    return replace(
        config,
        entrypoint=entrypoint or None,
        command=command or None,
        env=_environment(image.env, config.env),
        cwd=config.cwd or image.working_dir,
        user=config.user or image.user,
        exposed_ports=tuple(dict.fromkeys((*image.exposed_ports, *config.exposed_ports))),
        volumes=tuple(dict.fromkeys((*image.volumes, *config.volumes))),
        stop_signal=config.stop_signal or image.stop_signal or "",
    )


def _environment(image: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, ...]:
    """The image's variables below the container's own. A bare name takes a variable away, and stays
    in the list as clients gave it: `specgen` makes the environment without it."""
    merged = merge_environment(list(image), own)
    set_ = {entry.partition("=")[0] for entry in merged}
    return (*merged, *(name for name in own if "=" not in name and name not in set_))


def _check(config: ContainerConfig) -> None:
    if config.cwd and not config.cwd.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.cwd}' is invalid, it needs to be an absolute path"
        )
    if len(config.hostname) > MAX_HOSTNAME or not config.hostname.isprintable():
        raise InvalidArgument(f"invalid hostname {config.hostname!r}")
    signals.parse(config.stop_signal)
    for entry in config.env:
        name = entry.partition("=")[0]
        if not name or "\0" in entry or "\n" in name:
            raise InvalidArgument(f"invalid environment variable: {entry[:100]}")
    texts = (*command_line(config), config.cwd, config.user, config.domainname)
    if any("\0" in text or "\n" in config.user for text in texts):
        raise InvalidArgument("invalid character in the command, directory or user")
    if config.stop_timeout is not None and config.stop_timeout < -1:
        raise InvalidArgument(f"invalid stop timeout: {config.stop_timeout}")
