"""What a container may do: capabilities, no_new_privs, seccomp, masked paths, devices.

Everything is computed from the host configuration alone; an image has no say. An option that is
not understood is refused: an unknown word must never mean a weaker sandbox.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sampan.engine import devices, profiles
from sampan.errors import FailedPrecondition, InvalidArgument
from sampan.kernel.capabilities import NAMES
from sampan.runtime import labels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.engine.model import HostConfig

ALL: tuple[str, ...] = tuple(NAMES)
_ALL = frozenset(ALL)
_TRUE = frozenset(("", "true", "1"))
_FALSE = frozenset(("false", "0"))


@dataclass(frozen=True, slots=True)
class Options:
    """`security_opt`, parsed. None: not said. `seccomp` is "unconfined" or a profile as JSON.

    `apparmor` is a profile's name; `label` has the parts of an SELinux label that are not usual.
    """

    no_new_privileges: bool | None = None
    seccomp: str | None = None
    unmask_paths: bool = False
    apparmor: str = ""
    label: Mapping[str, str] = field(default_factory=dict)


_NOTHING = Options()
_LABEL = {"user": "system_u", "role": "system_r", "type": "container_t", "level": "s0"}


def parse_options(words: tuple[str, ...]) -> Options:
    """Read `security_opt`.

    Raises:
        InvalidArgument: an option is unknown or has an impossible value.
    """
    if not words:
        return _NOTHING
    quiet: bool | None = None
    seccomp: str | None = None
    unmask = False
    apparmor, label = "", {}
    for word in words:
        key, value = _split(word)
        if key == "no-new-privileges":
            quiet = _boolean(word, value)
        elif key == "seccomp":
            seccomp = _seccomp(value)
        elif word in ("systempaths=unconfined", "systempaths:unconfined"):
            unmask = True
        elif key == "apparmor" and _is_name(value):
            apparmor = "" if value == "unconfined" else value
        elif key == "label":
            label.update(_label(word, value))
        else:
            raise InvalidArgument(f"invalid --security-opt: {word!r}")
    if "disable" in label:
        label = {}
    return Options(quiet, seccomp, unmask, apparmor, label)


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


def _is_name(value: str) -> bool:
    return bool(value) and value.isascii() and value.isprintable()


def _label(word: str, value: str) -> dict[str, str]:
    """One part of a label: `type:container_t`, or `disable`."""
    part, colon, text = value.partition(":")
    if value == "disable":
        return {"disable": ""}
    if part not in (*_LABEL, "filetype") or not colon or not _is_name(text):
        raise InvalidArgument(f"invalid --security-opt: {word!r}")
    return {part: text}


def check_modules(host: HostConfig) -> None:
    """Raises FailedPrecondition where a label is asked for that this kernel would not heed."""
    if apparmor_profile(host) and not labels.has_apparmor():
        raise FailedPrecondition(
            f"--security-opt apparmor={apparmor_profile(host)}: this kernel has no AppArmor"
        )
    if selinux_labels(host)[0] and not labels.has_selinux():
        raise FailedPrecondition("--security-opt label: this kernel has no SELinux")


def apparmor_profile(host: HostConfig) -> str:
    """The profile that was asked for, "" for none. A kernel without AppArmor refuses it."""
    return parse_options(host.security_opt).apparmor


def selinux_labels(host: HostConfig) -> tuple[str, str]:
    """(of the process, of its files); "" and "" unless a part was asked for, as with dockerd where
    SELinux is off. A kernel without SELinux refuses them."""
    asked = parse_options(host.security_opt).label
    if not asked:
        return "", ""
    parts = {**_LABEL, **asked}
    files = asked.get("filetype", "container_file_t")
    process = ":".join(parts[name] for name in _LABEL)
    return process, f"{parts['user']}:object_r:{files}:{parts['level']}"


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
