"""Pure: everything that a request says about mounts becomes one list, each target once.

Docker's order, where a later one takes the place of an earlier one at the same target: the mounts
of other containers (`volumes_from`), `-v`, `--mount`, and for the image's own volumes a new
volume wherever nothing else is mounted. Two of the same kind at one target are refused.

`words` translates a decided list into the mounts of an OCI configuration.
"""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sampan.engine import binds
from sampan.engine.model import Mount, MountType
from sampan.errors import Conflict, InvalidArgument
from sampan.ids import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sampan.engine.model import Container, ContainerConfig, HostConfig
    from sampan.volumes.options import Backing


def plan(
    config: ContainerConfig, host: HostConfig, find: Callable[[str], Container]
) -> tuple[Mount, ...]:
    """The mounts of a container, by target, before volumes have names.

    `find` resolves a reference of `volumes_from`.

    Raises:
        InvalidArgument: one of them is impossible. Conflict: a target is there twice.
        ContainerNotFound: `volumes_from` names none.
    """
    if not (host.binds or host.mounts or host.volumes_from or config.volumes):
        return ()
    decided = {mount.target: mount for mount in _inherited(host.volumes_from, find)}
    asked: dict[str, Mount] = {}
    for mount in (*map(binds.parse, host.binds), *map(check, host.mounts)):
        if mount.target in asked or mount.target in host.tmpfs:
            raise Conflict(f"Duplicate mount point: {mount.target}")
        asked[mount.target] = mount
    decided |= asked
    for path in config.volumes:
        target = target_of(path, path)
        if target not in decided and target not in host.tmpfs:
            decided[target] = Mount(type=MountType.VOLUME, target=target)
    return tuple(decided.values())


def _inherited(
    refs: Sequence[str], find: Callable[[str], Container]
) -> Iterable[Mount]:  # fmt: skip
    for text in refs:
        ref, colon, mode = text.partition(":")
        if not ref:
            raise InvalidArgument(f"invalid specification for --volumes-from: '{text}'")
        if colon and mode not in ("ro", "rw", "z", "Z"):
            raise InvalidArgument(f"invalid specification for --volumes-from: invalid mode: {mode}")
        for mount in find(ref).mounts:
            # What another container has is not filled again, nor made where it is missing.
            taken = replace(mount, copy=False, make_source=False)
            yield replace(taken, read_only=True) if mode == "ro" else taken


def check(mount: Mount) -> Mount:
    """A `--mount` with its target in order.

    Raises:
        InvalidArgument: a field is missing, impossible, or not of this type.
    """
    kind = f'invalid mount config for type "{mount.type}"'
    _check_given(kind, mount)
    target = target_of(mount.target, kind)
    if any("\0" in text for text in (mount.source, mount.subpath)):
        raise InvalidArgument(f"{kind}: invalid character in the source")
    if mount.type is MountType.BIND:
        if not mount.source.startswith("/"):
            raise InvalidArgument(f"{kind}: mount path must be absolute: {mount.source!r}")
        if mount.propagation and mount.propagation not in binds.PROPAGATION:
            raise InvalidArgument(f"{kind}: invalid propagation: {mount.propagation!r}")
    elif mount.type is MountType.VOLUME and mount.source:
        check_name(mount.source, "volume")
    _check_subpath(kind, mount.subpath)
    return replace(mount, target=target)


def _check_given(kind: str, mount: Mount) -> None:
    if not mount.target:
        raise InvalidArgument(f"{kind}: field Target must not be empty")
    if mount.type in (MountType.BIND, MountType.IMAGE) and not mount.source:
        raise InvalidArgument(f"{kind}: field Source must not be empty")
    if mount.type is MountType.TMPFS and mount.source:
        raise InvalidArgument(f"{kind}: field Source must not be specified")


def _check_subpath(kind: str, subpath: str) -> None:
    if subpath and (subpath.startswith("/") or ".." in subpath.split("/")):
        raise InvalidArgument(f"{kind}: subpath must be a relative path within the volume")


def target_of(path: str, what: str) -> str:
    """A mount point in its normal form. Raises InvalidArgument."""
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"{what}: invalid mount path: '{path}' mount path must be absolute")
    target = posixpath.normpath("/" + path.lstrip("/"))
    if target == "/" or ".." in path.split("/"):
        raise InvalidArgument(f"{what}: invalid specification: destination can't be '/'")
    return target


def wants_copy(mounts: Iterable[Mount]) -> bool:
    """Whether a volume among them may have to be filled from the image."""
    return any(m.type is MountType.VOLUME and m.copy and not m.subpath for m in mounts)


def names(mounts: Iterable[Mount]) -> list[str]:
    """The names of the volumes among `mounts`, each once."""
    return list(
        dict.fromkeys(m.source for m in mounts if m.type is MountType.VOLUME and m.source)
    )  # fmt: skip


def named_by(host: HostConfig) -> list[str]:
    """The names of the volumes that a request itself names."""
    return names((*map(binds.parse, host.binds), *host.mounts))


def words(mount: Mount) -> dict[str, Any]:
    """A bind or tmpfs mount in the words of the OCI configuration."""
    if mount.type is MountType.TMPFS:
        return tmpfs_words(mount.target, _tmpfs_options(mount))
    kind = "rbind" if mount.recursive else "bind"
    return {
        "destination": mount.target,
        "type": "bind",
        "source": mount.source,
        "options": [kind, mount.propagation or "rprivate", *_flags(mount)],
    }


def volume_words(mount: Mount, path: str, backing: Backing) -> dict[str, Any]:
    """A volume's mount. A path within it is resolved by the runtime, below the volume."""
    kind = "rbind" if backing.recursive else "bind"
    flags = [word for word in backing.flags if word != "rw"]
    if "ro" in flags or mount.read_only:
        flags = [*(word for word in flags if word != "ro"), "ro"]
    content: dict[str, Any] = {
        "destination": mount.target,
        "type": "bind",
        "source": backing.device if backing.kind == "bind" else path,
        "options": [kind, mount.propagation or "rprivate", *flags, *_extra(mount)],
    }
    if mount.subpath:
        content["subpath"] = mount.subpath
    return content


def image_words(mount: Mount, tree: Any) -> dict[str, Any]:
    """The read-only file system of an image, or what is at a path in it."""
    content: dict[str, Any] = {
        "destination": mount.target,
        "type": "bind",
        "source": mount.source,
        "options": ["rbind", "rprivate", "ro", "nodev", "nosuid"],
        "tree": tree,
    }
    if mount.subpath:
        content["subpath"] = mount.subpath
    return content


def tmpfs_words(target: str, options: str) -> dict[str, Any]:
    """A tmpfs: nothing is executed, no rights or devices are honoured, unless it says so."""
    given = [word for word in options.split(",") if word]
    base = [word for word in ("noexec", "nosuid", "nodev") if word[2:] not in given]
    return {
        "destination": target,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": [*base, *(word for word in given if word not in base)],
    }


def _tmpfs_options(mount: Mount) -> str:
    options = list(mount.words)
    if mount.read_only:
        options.append("ro")
    if mount.size:
        options.append(f"size={mount.size}")
    if mount.mode is not None:
        options.append(f"mode={mount.mode:o}")
    return ",".join(options)


def _flags(mount: Mount) -> list[str]:
    if not mount.read_only:
        return _extra(mount)
    return ["rro" if mount.read_only_recursive and mount.recursive else "ro", *_extra(mount)]


def _extra(mount: Mount) -> list[str]:
    return [word for word in mount.words if word in binds.FLAGS]
