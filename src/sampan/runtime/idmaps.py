"""Idmapped bind mounts: files of the host that show other owners inside (mount_setattr(2)).

The words `idmap` and `ridmap` (with what is mounted below), or mappings of the mount's own. Without
those the mappings of the container's user namespace count. Imported only where a mount asks.
"""

from __future__ import annotations

import os

from sampan.kernel import mounts
from sampan.runtime import mappings
from sampan.runtime.failure import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KINDS = ("uidMappings", "gidMappings")


def check(mount: dict[str, Any], linux: dict[str, Any], field: str) -> None:
    """The rules of such a mount. Raises InvalidConfig."""
    own = [mount.get(kind) or [] for kind in _KINDS]
    for kind, entries in zip(_KINDS, own, strict=True):
        mappings.check(entries, f"{field}.{kind}")
        if any(own) and not entries:
            raise InvalidConfig(f"{field}.{kind}: uidMappings and gidMappings go together")
    if not any(own) and _user_namespace(linux) is None:
        problem = "no mappings, and no user namespace whose mappings could count"
        raise InvalidConfig(f"{field}: mount uses idmap option but there are {problem}")


def _user_namespace(linux: dict[str, Any]) -> str | None:
    """The path of the container's user namespace, "" for a new one."""
    for one in linux.get("namespaces") or []:
        if one.get("type") == "user":
            return one.get("path") or ""
    return None


def apply(fd: int, mount: dict[str, Any], linux: dict[str, Any]) -> None:
    """Map the ids of a detached mount."""
    own = [mount.get(kind) or [] for kind in _KINDS]
    path = _user_namespace(linux)
    if any(own):
        namespace = mappings.namespace_of(*own)
    elif path:
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    else:
        namespace = mappings.namespace_of(*(linux.get(kind) or [] for kind in _KINDS))
    try:
        mounts.map_ids(fd, namespace, recursive="ridmap" in (mount.get("options") or []))
    finally:
        os.close(namespace)
