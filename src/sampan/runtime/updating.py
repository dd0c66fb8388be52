"""`sampan-oci update`: other limits for a container that is there.

The limits come from flags, or as an OCI `linux.resources` object from a file or standard input.
What is not named stays as it is, the rules for devices always: as in runc, a plug-in may have
changed them since. The new limits are kept in the state, so that what is recorded is what holds.
"""

from __future__ import annotations

import os

from sampan.runtime import bundle, shapes
from sampan.runtime.arguments import Parsed, UsageError
from sampan.runtime.failure import RuntimeFailure
from sampan.runtime.state import StateDirectory, cgroup_of, status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNSIGNED = {
    "cpu-burst": "burst",
    "cpu-period": "period",
    "cpu-rt-period": "realtimePeriod",
    "cpu-share": "shares",
}
_SIGNED = {"cpu-quota": "quota", "cpu-rt-runtime": "realtimeRuntime", "cpu-idle": "idle"}
_BYTES = {
    "memory": "limit",
    "memory-reservation": "reservation",
    "memory-swap": "swap",
    "kernel-memory": "kernel",
    "kernel-memory-tcp": "kernelTCP",
}
_INTEL = {
    "l3-cache-schema": "Intel RDT/CAT: l3 cache schema is not enabled",
    "mem-bw-schema": "Intel RDT/MBA: memory bandwidth schema is not enabled",
}
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_MOST = (1 << 63) - 1


def update(root: str, container_id: str, options: Parsed) -> None:
    """Set the limits that `options` name.

    Raises:
        NoSuchContainer: there is none of that id.
        UsageError: a flag has a value of the wrong kind.
        InvalidConfig, ValueError: the resources are malformed, and nothing was changed.
        OSError: the kernel refused one; nothing was changed.
    """
    directory = StateDirectory(root, container_id)
    state = directory.load()
    for flag, refusal in _INTEL.items():
        if options.text(flag):
            raise RuntimeFailure(0, refusal)
    resources = _resources(options)
    group = cgroup_of(state)
    if group is None or status_of(directory, state) == "stopped":
        raise RuntimeFailure(0, "container not running")
    known = _recorded(state)
    group.update(_complete(resources, known))
    _merge(known, resources)
    directory.save(state)


def _resources(options: Parsed) -> dict[str, Any]:
    source = options.text("resources")
    if not source:
        return from_flags(options)
    found = read(source)
    shapes.check(found, shapes.RESOURCES, "linux.resources")
    found.pop("devices", None)
    pids = found.get("pids")
    if isinstance(pids, dict) and pids.get("limit") == 0:
        del pids["limit"]  # as in runc: absent in a document, one process where a flag says it
    return found


def read(source: str) -> dict[str, Any]:
    """The resources in a file, or on standard input for "-". Raises InvalidConfig."""
    name = "standard input" if source == "-" else source
    fd = os.dup(0) if source == "-" else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    with open(fd, "rb") as stream:
        text = stream.read(bundle.MAX_CONFIG + 1)
    return bundle.parse(text, name)


def from_flags(options: Parsed) -> dict[str, Any]:
    """The resources that flags name. Raises UsageError."""
    cpu: dict[str, Any] = {}
    for table, least in ((_UNSIGNED, 0), (_SIGNED, -_MOST)):
        for flag, key in table.items():
            if options.text(flag):
                cpu[key] = _number(flag, options.text(flag), least)
    for flag, key in (("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")):
        if options.text(flag):
            cpu[key] = options.text(flag)
    memory = {
        key: parse_bytes(flag, options.text(flag))
        for flag, key in _BYTES.items()
        if options.text(flag)
    }
    resources: dict[str, Any] = {"cpu": cpu, "memory": memory}
    if options.text("pids-limit"):
        limit = _number("pids-limit", options.text("pids-limit"), -_MOST)
        resources["pids"] = {"limit": limit}
    if options.number("blkio-weight"):
        resources["blockIO"] = {"weight": options.number("blkio-weight")}
    return resources


def _number(flag: str, text: str, least: int) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or not least <= int(text) <= _MOST:
        raise UsageError(f'invalid value for {flag}: parsing "{text}": not a number in range')
    return int(text)


def parse_bytes(flag: str, text: str) -> int:
    """A size such as 512m, 1.5GiB or -1 for none, in bytes. Raises UsageError."""
    if text == "-1":
        return -1
    number = text.lower().removesuffix("b").removesuffix("i")
    unit = number[-1:] if number[-1:].isalpha() else ""
    number = number.removesuffix(unit).rstrip(" ")
    whole, _, fraction = number.partition(".")
    if unit not in _UNITS or not (number.isascii() and f"{whole}{fraction}".isdigit()):
        raise UsageError(f"invalid value for {flag}: invalid size: '{text}'")
    shift = _UNITS[unit]
    part = (int(fraction) << shift) // 10 ** len(fraction) if fraction else 0
    size = (int(whole or "0") << shift) + part
    if size > _MOST:
        raise UsageError(f"invalid value for {flag}: invalid size: '{text}'")
    return size


def _recorded(state: dict[str, Any]) -> dict[str, Any]:
    config = state.setdefault("config", {})
    linux = config.setdefault("linux", {})
    if not isinstance(linux.get("resources"), dict):
        linux["resources"] = {}
    found: dict[str, Any] = linux["resources"]
    return found


def _complete(resources: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """`resources` with what a change of one value alone must know of another.

    A limit of memory and swap together is kept by version 2 as swap alone: a new limit of memory
    needs the old sum, and a new sum the old limit.
    """
    memory = resources.get("memory")
    if not isinstance(memory, dict):
        return resources
    before = known.get("memory") or {}
    completed = dict(memory)
    limit, swap = memory.get("limit"), memory.get("swap")
    if swap and not limit and before.get("limit"):
        completed["limit"] = before["limit"]
    return {**resources, "memory": completed}


def _merge(known: dict[str, Any], resources: dict[str, Any]) -> None:
    for key, value in resources.items():
        if isinstance(value, dict) and isinstance(known.get(key), dict):
            known[key].update({name: part for name, part in value.items() if part is not None})
        elif value is not None:
            known[key] = value
