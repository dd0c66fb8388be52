"""What a container may do: capabilities, no_new_privs, seccomp, masked paths, devices.

Everything is computed from the host configuration alone; an image has no say. An option that is
not understood is refused: an unknown word must never mean a weaker sandbox.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sampan.engine import devices, profiles
from sampan.errors import InvalidArgument, NotImplementedHere
from sampan.kernel.capabilities import NAMES

if TYPE_CHECKING:
    from sampan.engine.model import HostConfig

ALL: tuple[str, ...] = tuple(NAMES)
_ALL = frozenset(ALL)
_TRUE = frozenset(("", "true", "1"))
_FALSE = frozenset(("false", "0"))


@dataclass(frozen=True, slots=True)
class Options:
    """`security_opt`, parsed. None: not said. `seccomp` is "unconfined" or a profile as JSON."""

    no_new_privileges: bool | None = None
    seccomp: str | None = None
    unmask_paths: bool = False


_NOTHING = Options()


def parse_options(words: tuple[str, ...]) -> Options:
    """Read `security_opt`.

    Raises:
        InvalidArgument: an option is unknown or has an impossible value.
        NotImplementedHere: a label or profile of a security module that is not supported.
    """
    if not words:
        return _NOTHING
    quiet: bool | None = None
    seccomp: str | None = None
    unmask = False
    for word in words:
        key, value = _split(word)
        if key == "no-new-privileges":
            quiet = _boolean(word, value)
        elif key == "seccomp":
            seccomp = _seccomp(value)
        elif word in ("systempaths=unconfined", "systempaths:unconfined"):
            unmask = True
        else:
            _refuse(word, key, value)
    return Options(quiet, seccomp, unmask)


def _split(word: str) -> tuple[str, str]:
    for separator in ("=", ":"):
        key, found, value = word.partition(separator)
        if found:
            return key, value
    return word, ""


def _boolean(word: str, value: str) -> bool:
    if value in _TRUE or value in _FALSE:
        return value in _TRUE
    raise InvalidArgument(f"invalid --security-opt: {word!r}")


def _seccomp(value: str) -> str | None:
    if not value.strip():
        raise InvalidArgument("invalid --security-opt: an empty seccomp profile")
    return None if value == "builtin" else value


def _refuse(word: str, key: str, value: str) -> None:
    if key == "apparmor" and value == "unconfined":
        return  # nothing is confined by AppArmor here
    if key == "label" and value == "disable":
        return
    if key in ("apparmor", "label"):
        raise NotImplementedHere(f"--security-opt {word}: {key} is not supported yet")
    raise InvalidArgument(f"invalid --security-opt: {word!r}")


def no_new_privileges(host: HostConfig, default: bool) -> bool:
    """Whether set-user-id programs gain nothing. An explicit option wins over privileged."""
    said = parse_options(host.security_opt).no_new_privileges
    if said is not None:
        return said
    return default and not host.privileged


def capability_name(text: str) -> str:
    """`net_admin`, `CAP_NET_ADMIN` -> `CAP_NET_ADMIN`; `ALL` stays.

    Raises:
        InvalidArgument: the kernel has no such capability.
    """
    name = text.upper()
    if name in ("ALL", "CAP_ALL"):
        return "ALL"
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in _ALL:
        raise InvalidArgument(f'unknown capability: "{text}"')
    return name


def capabilities(host: HostConfig) -> tuple[str, ...]:
    """The bounding set, in the kernel's order."""
    if host.privileged:
        return ALL
    if not host.cap_add and not host.cap_drop:
        return profiles.DEFAULT_CAPABILITIES
    added = {capability_name(name) for name in host.cap_add}
    dropped = {capability_name(name) for name in host.cap_drop}
    if "ALL" in added:
        kept = _ALL - dropped
    elif "ALL" in dropped:
        kept = frozenset(added)
    else:
        kept = (frozenset(profiles.DEFAULT_CAPABILITIES) - dropped) | added
    return tuple(name for name in ALL if name in kept)


def masked_paths(host: HostConfig) -> list[str]:
    """Paths that read as empty."""
    if host.privileged or parse_options(host.security_opt).unmask_paths:
        return []
    return list(profiles.MASKED_PATHS if host.masked_paths is None else host.masked_paths)


def readonly_paths(host: HostConfig) -> list[str]:
    """Paths that cannot be written."""
    if host.privileged or parse_options(host.security_opt).unmask_paths:
        return []
    return list(profiles.READONLY_PATHS if host.readonly_paths is None else host.readonly_paths)


def device_rules(host: HostConfig) -> list[dict[str, Any]]:
    """Rules of the device cgroup, deny first."""
    if host.privileged:
        return devices.EVERYTHING
    if not host.devices and not host.device_rules:
        return devices.DEFAULT_RULES
    asked = [devices.parse_rule(text) for text in host.device_rules]
    return [*devices.DEFAULT_RULES, *(devices.rule(entry) for entry in host.devices), *asked]


def seccomp_key(host: HostConfig) -> tuple[str, tuple[str, ...]] | None:
    """What decides the filter: the profile ("" for the default) and the capabilities.

    None: no filter, for privileged containers and where that was asked for.
    """
    said = parse_options(host.security_opt).seccomp
    if said == "unconfined" or (said is None and host.privileged):
        return None
    return said or "", capabilities(host)
