"""What the configuration says of pods: the table `[cri]` of the daemon's file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSettings:
    """`cni_config` is the directory of the pods' network, `cni_plugins` those of its programs.

    `fallback_network` is the engine's network for pods while that directory is empty; "" is none.
    `pinned` are familiar names of images (`pause:3.10`) that a kubelet must not collect. `enabled`
    says whether the socket is there at all. `pause_image` is the image of a process that every
    sandbox then has; "" is none, and sandboxes do without. Machines of the handler `vm` have the
    kernel `vm_kernel` and the modules in `vm_modules` ("": the newest that the distribution has),
    `vm_memory` MiB, and `vm_accelerator`: auto, kvm or tcg.
    """

    enabled: bool = True
    cni_config: str = "/etc/cni/net.d"
    cni_plugins: tuple[str, ...] = ("/opt/cni/bin", "/usr/lib/cni")
    fallback_network: str = "bridge"
    pinned: frozenset[str] = frozenset()
    pause_image: str = ""
    vm_kernel: str = ""
    vm_modules: str = ""
    vm_memory: int = 256
    vm_accelerator: str = "auto"

    def __post_init__(self) -> None:
        if self.vm_accelerator not in ("auto", "kvm", "tcg"):
            raise InvalidArgument(
                f"configuration: cri.vm_accelerator must be auto, kvm or tcg, not "
                f"{self.vm_accelerator!r}"
            )
        if self.vm_memory < 128:
            raise InvalidArgument(
                f"configuration: cri.vm_memory must be 128 MiB or more, not {self.vm_memory}"
            )

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> PodSettings:
        """Build from a parsed TOML table.

        Raises:
            InvalidArgument: a key is unknown or has a value of the wrong type.
        """
        defaults = cls()
        known = {entry.name for entry in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in table.items():
            if key not in known:
                raise InvalidArgument(f"configuration: unknown key 'cri.{key}'")
            values[key] = _typed(key, value, getattr(defaults, key))
        return cls(**values)


def _typed(key: str, value: Any, default: Any) -> Any:
    if isinstance(default, (tuple, frozenset)):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return type(default)(value)
        raise InvalidArgument(f"configuration: cri.{key} must be a list of strings, not {value!r}")
    if type(value) is not type(default):
        raise InvalidArgument(
            f"configuration: cri.{key} must be {type(default).__name__}, not {value!r}"
        )
    return value
