"""The options of the `local` driver: what is mounted where a volume's directory would be.

Docker's grammar: `type`, `device` and `o`, the words of mount(8). Without options a volume is a
plain directory. `o=bind` shows a directory of the host; `type=tmpfs` and the file systems of block
devices are mounted while a container uses the volume. Words like `nosuid`, `nodev` and `ro` may
stand alone. Network file systems are refused by name: they need helpers of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument, NotImplementedHere

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEYS = frozenset(("type", "device", "o"))
_DISKS = frozenset("btrfs erofs ext2 ext3 ext4 iso9660 squashfs vfat xfs".split())
_FLAGS = frozenset(
    "ro rw nosuid suid nodev dev noexec exec noatime relatime strictatime nodiratime".split()
)
_BINDS = frozenset(("bind", "rbind"))


@dataclass(frozen=True, slots=True)
class Backing:
    """What is behind a volume. `kind` is "" for a plain directory, "bind", or a file system.

    `flags` are words of the mount itself, `data` the file system's own.
    """

    kind: str = ""
    device: str = ""
    flags: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    recursive: bool = False

    @property
    def is_mounted(self) -> bool:
        """Whether a file system is mounted on the volume's directory while it is used."""
        return self.kind not in ("", "bind")


def parse(options: Mapping[str, str]) -> Backing:
    """Read the options of a volume.

    Raises:
        InvalidArgument: a key or a value is impossible.
        NotImplementedHere: the file system is none of those that are supported.
    """
    if not options:
        return Backing()
    if unknown := options.keys() - _KEYS:
        raise InvalidArgument(f'create volume: invalid option: "{min(unknown)}"')
    for given, needed in (("type", "device"), ("device", "type")):
        if given in options and needed not in options:
            raise InvalidArgument(f'create volume: missing required option: "{needed}"')
    words = tuple(word for word in options.get("o", "").split(",") if word)
    kind, device = options.get("type", ""), options.get("device", "")
    if any("\0" in text for text in (kind, device, *words)):
        raise InvalidArgument("create volume: invalid character in the options")
    flags = tuple(word for word in words if word in _FLAGS)
    rest = tuple(word for word in words if word not in _FLAGS)
    if _BINDS & set(rest) or kind == "bind":
        return _bind(device, flags, rest)
    if not kind and not device:
        return _plain(flags, rest)
    if kind == "tmpfs":
        return Backing("tmpfs", "tmpfs", flags, rest)
    if kind in _DISKS:
        return Backing(kind, _absolute(device), flags, rest)
    raise NotImplementedHere(
        f"create volume: file systems of type {kind!r} are not supported; "
        f"use o=bind, tmpfs, or one of {', '.join(sorted(_DISKS))}"
    )


def _plain(flags: tuple[str, ...], rest: tuple[str, ...]) -> Backing:
    if rest:
        raise InvalidArgument(f"create volume: option o={rest[0]} needs a type and a device")
    return Backing(flags=flags)


def _bind(device: str, flags: tuple[str, ...], rest: tuple[str, ...]) -> Backing:
    if unknown := [word for word in rest if word not in _BINDS]:
        raise InvalidArgument(f"create volume: unknown option of a bind: {unknown[0]!r}")
    return Backing("bind", _absolute(device), flags, recursive="rbind" in rest)


def _absolute(device: str) -> str:
    if not device:
        raise InvalidArgument("create volume: missing device in volume options")
    if not device.startswith("/") or ".." in device.split("/"):
        raise InvalidArgument(f"create volume: the device must be an absolute path: {device!r}")
    return device
