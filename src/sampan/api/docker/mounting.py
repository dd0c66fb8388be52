"""Mounts between Docker's bodies and the engine's words, both ways. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from sampan.engine import model
from sampan.engine.volumes import check_driver
from sampan.errors import InvalidArgument
from sampan.wire import containers
from sampan.wire import hostconfig as wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.engine.model import Container, Mount

DRIVER = "local"


def requested(mounts: Iterable[wire.MountRequest]) -> tuple[Mount, ...]:
    """`--mount` entries in the engine's words.

    Raises:
        InvalidArgument: the type is unknown, or options of another type are given.
    """
    return tuple(_requested(mount) for mount in mounts)


def _requested(body: wire.MountRequest) -> Mount:
    try:
        kind = model.MountType(body.type)
    except ValueError:
        raise InvalidArgument(
            f'invalid mount config for type "{body.type}": mount type unknown'
        ) from None
    given = {
        model.MountType.BIND: _given(body.bind_options),
        model.MountType.VOLUME: _given(body.volume_options),
        model.MountType.TMPFS: _given(body.tmpfs_options),
        model.MountType.IMAGE: _given(body.image_options),
    }
    if stray := [other for other, value in given.items() if value is not None and other != kind]:
        name = f"{stray[0].value.capitalize()}Options"
        raise InvalidArgument(
            f'invalid mount config for type "{kind}": field {name} must not be specified'
        )
    return model.Mount(
        type=kind,
        target=body.target,
        source=_given(body.source) or "",
        read_only=bool(_given(body.read_only)),
        **_OPTIONS[kind](given[kind]),
    )


def _bind(options: wire.BindOptions | None) -> dict[str, Any]:
    if options is None:
        return {}
    return {
        "propagation": options.propagation or "",
        "recursive": not options.non_recursive,
        "read_only_recursive": not options.read_only_non_recursive,
        "make_source": bool(options.create_mountpoint),
    }


def _volume(options: wire.VolumeOptions | None) -> dict[str, Any]:
    if options is None:
        return {}
    driver = _given(options.driver_config) or wire.VolumeDriver()
    check_driver(driver.name or "")
    return {
        "copy": not _given(options.no_copy),
        "labels": _given(options.labels) or {},
        "subpath": _given(options.subpath) or "",
        "driver_options": _given(driver.options) or {},
    }


def _tmpfs(options: wire.TmpfsOptions | None) -> dict[str, Any]:
    if options is None:
        return {}
    words = tuple("=".join(pair) for pair in _given(options.options) or ())
    return {
        "size": _given(options.size_bytes) or 0,
        "mode": _given(options.mode) or None,
        "words": words,
    }


def _image(options: wire.ImageOptions | None) -> dict[str, Any]:
    return {} if options is None else {"subpath": _given(options.subpath) or ""}


_OPTIONS: dict[model.MountType, Any] = {
    model.MountType.BIND: _bind,
    model.MountType.VOLUME: _volume,
    model.MountType.TMPFS: _tmpfs,
    model.MountType.IMAGE: _image,
}


def answered(mounts: Iterable[Mount]) -> list[wire.MountRequest]:
    """`HostConfig.Mounts` of inspect."""
    return [_answered(mount) for mount in mounts]


def _answered(mount: Mount) -> wire.MountRequest:
    body = wire.MountRequest(
        type=mount.type.value,
        source=mount.source or UNSET,
        target=mount.target,
        read_only=mount.read_only or UNSET,
    )
    if mount.type is model.MountType.BIND and (mount.propagation or not mount.recursive):
        body.bind_options = wire.BindOptions(
            propagation=mount.propagation, non_recursive=not mount.recursive
        )
    elif mount.type is model.MountType.VOLUME:
        body.volume_options = _volume_answer(mount)
    elif mount.type is model.MountType.TMPFS and (mount.size or mount.mode):
        body.tmpfs_options = wire.TmpfsOptions(
            size_bytes=mount.size or UNSET, mode=mount.mode or UNSET
        )
    elif mount.type is model.MountType.IMAGE and mount.subpath:
        body.image_options = wire.ImageOptions(subpath=mount.subpath)
    return body


def _volume_answer(mount: Mount) -> wire.VolumeOptions | Any:
    if mount.copy and not (mount.labels or mount.subpath or mount.driver_options):
        return UNSET
    return wire.VolumeOptions(
        no_copy=True if not mount.copy else UNSET,
        labels=dict(mount.labels) or UNSET,
        subpath=mount.subpath or UNSET,
        driver_config=wire.VolumeDriver(name=DRIVER, options=dict(mount.driver_options))
        if mount.driver_options
        else UNSET,
    )


def points(container: Container) -> list[containers.MountPoint]:
    """The mounts that `inspect` and `ps` list."""
    return [_point(mount) for mount in container.mounts]


def _point(mount: Mount) -> containers.MountPoint:
    is_volume = mount.type is model.MountType.VOLUME
    is_bind = mount.type is model.MountType.BIND
    return containers.MountPoint(
        type=mount.type.value,
        name=mount.source if is_volume else UNSET,
        source=mount.path or mount.source,
        destination=mount.target,
        driver=DRIVER if is_volume else UNSET,
        mode=",".join(mount.words) or ("z" if is_volume else ""),
        rw=not mount.read_only and mount.type is not model.MountType.IMAGE,
        propagation=(mount.propagation or "rprivate") if is_bind else "",
    )


def _given(value: Any) -> Any:
    return None if value is UNSET else value
