"""`-v source:target[:options]` as a typed record. Only directories and files of the host so far."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any

from sampan.errors import InvalidArgument, NotImplementedHere

_PROPAGATION = frozenset("private rprivate shared rshared slave rslave".split())
_OTHER = frozenset("ro rw z Z nocopy bind rbind noexec exec nosuid suid nodev dev".split())
_IGNORED = frozenset("rw z Z nocopy bind rbind".split())  # labels need SELinux


@dataclass(frozen=True, slots=True)
class Bind:
    """A path of the host that is seen at `target`."""

    source: str
    target: str
    options: tuple[str, ...]

    @property
    def read_only(self) -> bool:
        """Whether the container may only read it."""
        return "ro" in self.options

    @property
    def propagation(self) -> str:
        """How mounts travel; rprivate unless stated."""
        return next((word for word in self.options if word in _PROPAGATION), "rprivate")

    def mount(self) -> dict[str, Any]:
        """The mount of the OCI configuration."""
        words = [word for word in self.options if word not in _IGNORED | _PROPAGATION]
        kind = "bind" if "bind" in self.options else "rbind"
        return {
            "destination": self.target,
            "type": "bind",
            "source": self.source,
            "options": [kind, self.propagation, *words],
        }


def parse(text: str) -> Bind:
    """Parse one bind.

    Raises:
        InvalidArgument: it is malformed.
        NotImplementedHere: it names a volume.
    """
    parts = text.split(":")
    if not 2 <= len(parts) <= 3 or not all(parts) or "\0" in text:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    source, target = parts[0], parts[1]
    options = tuple(parts[2].split(",")) if len(parts) == 3 else ()
    if not source.startswith("/"):
        raise NotImplementedHere(
            f"invalid volume specification: '{text}': named volumes are not supported yet, "
            "give an absolute path"
        )
    if not target.startswith("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount path: '{target}' "
            "mount path must be absolute"
        )
    target = posixpath.normpath("/" + target.lstrip("/"))
    if target == "/" or ".." in parts[1].split("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid specification: "
            "destination can't be '/'"
        )
    if unknown := [word for word in options if word not in _PROPAGATION | _OTHER]:
        raise InvalidArgument(f"invalid volume specification: '{text}': invalid mode: {unknown[0]}")
    return Bind(posixpath.normpath(source), target, options)
