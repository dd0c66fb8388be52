"""OCI runtimes besides our own: programs with runc's command line, by the names of handlers.

What Debian installs is known without configuration; the configuration adds to it, or names another
path for the same name.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

KNOWN = {
    "runc": (),
    "crun": (),
    # Debian's takes every network namespace of a new kernel for the host's, and refuses to run its
    # own network stack there. So it uses the kernel's, in the pod's namespace.
    "runsc": ("--network=host",),
}
OWN = frozenset(("", "sampan-oci", "runc", "io.containerd.runc.v2"))
"""Names by which clients of Docker ask for the runtime that is usual; ours is."""

_PLACES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")


def find(configured: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The path and first words of every runtime that is configured or installed, by its name.

    Raises:
        InvalidArgument: one that is configured cannot be executed.
    """
    found = {}
    for name, words in KNOWN.items():
        paths = (f"{place}/{name}" for place in _PLACES)
        path = next((one for one in paths if _is_program(one)), "")
        if path:
            found[name] = (path, *words)
    for name, words in configured.items():
        if not _is_program(words[0]):
            raise InvalidArgument(f"configuration: runtimes.{name}: {words[0]} is no program")
        found[name] = words
    return found


def program(name: str, configured: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The path and first words of the runtime of a container; () is our own.

    Raises:
        InvalidArgument: there is none of that name.
    """
    if name in OWN and name not in configured:
        return ()
    found = find(configured)
    if name not in found:
        raise InvalidArgument(
            f"unknown or invalid runtime name: {name}: known are sampan-oci, "
            + ", ".join(sorted(found))
        )
    return found[name]


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)
