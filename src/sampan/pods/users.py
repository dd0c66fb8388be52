"""User namespaces of pods: the ids that a kubelet has chosen for one.

Each container of such a pod gets a user namespace of its own with the pod's mapping, unless it
shares processes: then it is in the one that these belong to, for nobody else could mount their
/proc. Network, IPC and host name are shared as ever, and belong to the node's. So root of a
container has no rights over the pod's network; ports below 1024 are open to everybody in it
instead. A kubelet gives one mapping, and critest wants two refused.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument
from sampan.pods.model import Mode

if TYPE_CHECKING:
    from sampan.pods.model import SandboxConfig

SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}
"""What makes up for the rights over the network that nobody in such a pod has."""

_KERNEL = (5, 19)  # overlays that are shown with other ids


def are_possible() -> bool:
    """Whether this kernel can show a container's files with other ids."""
    release = os.uname().release.split(".")
    numbers = [int("".join(filter(str.isdigit, word[:3])) or 0) for word in release[:2]]
    return tuple(numbers) >= _KERNEL


def ids(config: SandboxConfig) -> tuple[int, ...]:
    """(first id of the node, how many) of a pod's user namespace; () without one."""
    if not config.namespaces.uids:
        return ()
    one = config.namespaces.uids[0]
    return one.host, one.length


def check(config: SandboxConfig) -> None:
    """Refuse what a user namespace cannot be, or cannot go with.

    Raises:
        InvalidArgument: the message says what.
    """
    asked = config.namespaces
    if not asked.uids and not asked.gids:
        return
    if len(asked.uids) != 1 or asked.uids != asked.gids or asked.uids[0].container != 0:
        raise InvalidArgument(
            "user namespace: one mapping from id 0 on is supported, the same for users and groups"
        )
    if not asked.uids[0].length or asked.uids[0].host + asked.uids[0].length > 1 << 32:
        raise InvalidArgument("user namespace: the mapping is empty or ends beyond the last id")
    if config.security.privileged:
        raise InvalidArgument("user namespace: a privileged pod has none")
    for what in ("network", "pid", "ipc"):
        if getattr(asked, what) is Mode.NODE:
            raise InvalidArgument(f"user namespace: the pod cannot share the node's {what}")
