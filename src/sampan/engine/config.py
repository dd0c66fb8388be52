"""The engine's configuration: frozen, checked once, passed by argument.

The daemon reads `/etc/sampan/config.toml` and hands the table to `EngineConfig.from_table`; a
program that embeds the engine builds one itself. Unknown keys are refused, so that a misspelt limit
is not silently none. `fault` is a test seam: it names a step at which this process kills itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from sampan.errors import InvalidArgument
from sampan.registry.settings import Settings, from_table

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_ROOT = "/var/lib/sampan"
DEFAULT_STATE = "/run/sampan"
DEFAULT_POLICY = "/etc/sampan/policy.json"
DEFAULT_DIRECTORIES = ("/etc/sampan/certs.d", "/etc/docker/certs.d", "/etc/containerd/certs.d")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Where the engine lives and what it gives to containers that do not say.

    `cgroup_parent` starts with a slash. `no_new_privileges` is on by default, as containerd has it
    and dockerd has not; `--security-opt no-new-privileges=false` and `--privileged` turn it off.
    `bridge` is the interface of the default network ("": sampan0 for the default root, else one of
    its own), `bridge_subnet` its subnet ("": one that is free); `publish_address` is where ports
    without an address are published.
    `insecure_registries` are `host:port` that may be spoken to without TLS; loopback always may.
    `runtimes` are further OCI runtimes with runc's command line, by name.
    `registries` has more for each registry, see `registry.settings`, and `registry_directories` are
    looked at for certificates and hosts files. The four of images are the policy of
    `images.retention`: seconds, bytes, bytes, and patterns of names; the two of the build cache are
    its bounds, seconds and bytes. `trust_policy` is the file of
    `images.policy`; another than the default must be there, and "" is none. `snapshotter` is
    overlay, native, or auto: what works where the root is. `init_path` is the static program of
    `--init`, "" one that is found. `cdi_directories` have the files of
    the Container Device Interface, the later ones winning, and `hooks_directories` those of
    oci-hooks(5), see `hookfiles`.
    """

    root: str = DEFAULT_ROOT
    state: str = DEFAULT_STATE
    cgroup_parent: str = "/sampan"
    no_new_privileges: bool = True
    log_driver: str = "json-file"
    log_max_size: int = 20 << 20
    log_max_file: int = 3
    stop_timeout: int = 10
    shm_size: int = 64 << 20
    bridge: str = ""
    bridge_subnet: str = ""
    publish_address: str = "0.0.0.0"  # noqa: S104 - as Docker has it; 127.0.0.1 is the careful one
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    registries: Mapping[str, Settings] = field(default_factory=dict)
    runtimes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    registry_directories: tuple[str, ...] = DEFAULT_DIRECTORIES
    trust_policy: str = DEFAULT_POLICY
    init_path: str = ""
    cdi_directories: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    hooks_directories: tuple[str, ...] = ()
    build_cache_unused_for: int = 0
    build_cache_max_size: int = 0
    image_unused_for: int = 0
    image_max_size: int = 0
    image_min_free: int = 0
    image_keep: tuple[str, ...] = ()
    snapshotter: str = "auto"
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    fault: str = ""

    def __post_init__(self) -> None:
        for name in ("root", "state", "cgroup_parent"):
            value = getattr(self, name)
            if not value.startswith("/") or ".." in value.split("/") or "\0" in value:
                raise InvalidArgument(f"configuration: {name} must be an absolute path: {value!r}")

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> EngineConfig:
        """Build from a parsed TOML table.

        Raises:
            InvalidArgument: a key is unknown or has a value of the wrong type.
        """
        defaults = cls()
        values: dict[str, Any] = {}
        known = {entry.name for entry in fields(cls)} - {"fault"}
        for key, value in table.items():
            if key not in known:
                raise InvalidArgument(f"configuration: unknown key {key!r}")
            if key == "registries":
                values[key] = _registries(value)
            elif key == "runtimes":
                values[key] = _runtimes(value)
            else:
                values[key] = _typed(key, value, getattr(defaults, key))
        return cls(**values)


def _registries(value: Any) -> dict[str, Settings]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"configuration: registries must be a table, not {value!r}")
    return {str(name): from_table(str(name), table) for name, table in value.items()}


def _runtimes(value: Any) -> dict[str, tuple[str, ...]]:
    """`runc = "/usr/sbin/runc"`, or with first words `x = ["/usr/bin/x", "--flag"]`."""
    if not isinstance(value, dict):
        raise InvalidArgument(f"configuration: runtimes must be a table, not {value!r}")
    found = {}
    for name, said in value.items():
        words = [said] if isinstance(said, str) else said
        is_list = isinstance(words, list) and all(isinstance(word, str) for word in words)
        if not is_list or not words or not words[0].startswith("/"):
            raise InvalidArgument(
                f"configuration: runtimes.{name} must be an absolute path, or a list that begins "
                f"with one, not {said!r}"
            )
        found[str(name)] = tuple(words)
    return found


def _typed(key: str, value: Any, default: Any) -> Any:
    """`value` in the type of `default`, or InvalidArgument."""
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(str(item) for item in value)
    if isinstance(default, dict) and isinstance(value, dict):
        return {str(name): tuple(str(item) for item in items) for name, items in value.items()}
    if type(value) is not type(default):
        raise InvalidArgument(
            f"configuration: {key} must be {type(default).__name__}, not {value!r}"
        )
    return value


def reach(config: EngineConfig, step: str) -> None:
    """Die by SIGKILL when the configuration names this step. Only tests configure one."""
    if config.fault == step:
        os.kill(os.getpid(), 9)
