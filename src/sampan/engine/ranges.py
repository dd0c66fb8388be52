"""User namespaces of containers: which ids of the host a container's ids are.

`--userns auto` gives a container SIZE ids that no other container has, from FIRST on: above what
people and /etc/subuid use, below what a signed number holds. Files stay as the image has them; they
are shown with other ids (`snapshots.base.mapped`), so nothing is changed owner of. Pure, but for
the containers that are looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.engine.model import Container, HostConfig

AUTO = "auto"
FIRST = 1 << 30
END = (1 << 31) - 1
SIZE = 1 << 16


def size_of(mode: str) -> int:
    """How many ids `auto` or `auto:size=N` asks for; 0 where no namespace is asked for.

    Raises:
        InvalidArgument: it is no mode that is here.
    """
    if mode in ("", "host"):
        return 0
    word, colon, option = mode.partition(":")
    name, _, number = option.partition("=")
    if word != AUTO or (colon and name != "size"):
        raise InvalidArgument(
            f"invalid userns mode {mode!r}: use host, auto or auto:size=N (a number of ids)"
        )
    if not colon:
        return SIZE
    if not (number.isascii() and number.isdigit()) or not 1 <= int(number[:12]) <= END - FIRST:
        raise InvalidArgument(f"invalid userns mode {mode!r}: the size is not a number of ids")
    return int(number)


def choose(size: int, containers: Iterable[Container]) -> int:
    """The first id of a range that no container has.

    Raises:
        ResourceExhausted: there is none left.
    """
    taken = sorted((one.ids[0], sum(one.ids)) for one in containers if one.ids)
    start = FIRST
    for first, end in taken:
        if first - start >= size:
            break
        start = max(start, end)
    if start + size > END:
        raise ResourceExhausted(f"userns: no range of {size} ids is left")
    return start


def mappings(container: Container) -> list[dict[str, int]]:
    """The container's mappings as the OCI's config.json has them; none without a namespace."""
    if not container.ids:
        return []
    first, size = container.ids
    return [{"containerID": 0, "hostID": first, "size": size}]


def check(host: HostConfig) -> None:
    """Refuse what a user namespace cannot go with.

    Raises:
        InvalidArgument: it is not possible, with the reason.
    """
    if not size_of(host.userns_mode):
        return
    if host.privileged:
        raise InvalidArgument("privileged mode is incompatible with user namespaces")
    for what in ("pid", "ipc", "uts"):
        mode = getattr(host, f"{what}_mode")
        if mode == "host" or mode.startswith("container:"):
            raise InvalidArgument(
                f"--userns {host.userns_mode}: cannot share the {what} namespace, because it "
                "belongs to another user namespace"
            )
