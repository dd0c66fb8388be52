"""The types of config.json: what is no configuration at all is refused with the name of the field.

The rules of single fields (`validate`) then meet only values of the right type. A member that is
null is as good as absent, and is taken out; a member that is not known here is left alone, as the
specification wants it. Only what comes from outside is looked at: the engine's own configurations
have the right types.
"""

from __future__ import annotations

from sampan.runtime.failure import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # A type is a name of _PLAIN, a list with the type of its elements, or the members of an object;
    # "*" stands for any name.
    Shape = str | list["Shape"] | dict[str, "Shape"]

_PLAIN = {
    "text": "must be a string",
    "truth": "must be true or false",
    "number": "must be a whole number",
    "count": "must be a whole number, not below zero",
}
_LEAST = {"number": -(1 << 63), "count": 0}
_WORDS: Shape = ["text"]
_ENTRIES: Shape = {"*": "text"}
_MAPS: Shape = [{"containerID": "count", "hostID": "count", "size": "count"}]
_HOOKS: Shape = [{"path": "text", "args": _WORDS, "env": _WORDS, "timeout": "number"}]
_RATES: Shape = [{"major": "number", "minor": "number", "rate": "count"}]
PROCESS: dict[str, Shape] = {
    "terminal": "truth",
    "consoleSize": {"height": "count", "width": "count"},
    "user": {"uid": "count", "gid": "count", "umask": "count", "additionalGids": ["count"]},
    "args": _WORDS,
    "env": _WORDS,
    "cwd": "text",
    "capabilities": {"*": _WORDS},
    "rlimits": [{"type": "text", "hard": "count", "soft": "count"}],
    "noNewPrivileges": "truth",
    "apparmorProfile": "text",
    "oomScoreAdj": "number",
    "scheduler": {
        **dict.fromkeys(("nice", "priority"), "number"),
        **dict.fromkeys(("runtime", "deadline", "period"), "count"),
        "policy": "text",
        "flags": _WORDS,
    },
    "selinuxLabel": "text",
    "ioPriority": {"class": "text", "priority": "number"},
    "execCPUAffinity": {"initial": "text", "final": "text"},
}
_SECCOMP: Shape = {
    "defaultAction": "text",
    "defaultErrnoRet": "count",
    "architectures": _WORDS,
    "flags": _WORDS,
    "listenerPath": "text",
    "listenerMetadata": "text",
    "syscalls": [
        {
            "names": _WORDS,
            "action": "text",
            "errnoRet": "count",
            "args": [{"index": "count", "value": "count", "valueTwo": "count", "op": "text"}],
        }
    ],
}
RESOURCES: dict[str, Shape] = {
    "devices": [
        {"allow": "truth", "type": "text", "major": "number", "minor": "number", "access": "text"}
    ],
    "memory": {
        **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), "number"),
        **dict.fromkeys(("disableOOMKiller", "useHierarchy", "checkBeforeUpdate"), "truth"),
        "swappiness": "count",
    },
    "cpu": {
        **dict.fromkeys(("shares", "burst", "period", "realtimePeriod"), "count"),
        **dict.fromkeys(("quota", "realtimeRuntime", "idle"), "number"),
        **dict.fromkeys(("cpus", "mems"), "text"),
    },
    "pids": {"limit": "number"},
    "blockIO": {
        "weight": "count",
        "leafWeight": "count",
        "weightDevice": [
            {"major": "number", "minor": "number", "weight": "count", "leafWeight": "count"}
        ],
        "throttleReadBpsDevice": _RATES,
        "throttleWriteBpsDevice": _RATES,
        "throttleReadIOPSDevice": _RATES,
        "throttleWriteIOPSDevice": _RATES,
    },
    "hugepageLimits": [{"pageSize": "text", "limit": "count"}],
    "network": {"classID": "count", "priorities": [{"name": "text", "priority": "count"}]},
    "rdma": {"*": {"hcaHandles": "count", "hcaObjects": "count"}},
    "unified": _ENTRIES,
}
_LINUX: Shape = {
    "uidMappings": _MAPS,
    "gidMappings": _MAPS,
    "sysctl": _ENTRIES,
    "resources": RESOURCES,
    "cgroupsPath": "text",
    "namespaces": [{"type": "text", "path": "text"}],
    "devices": [
        {
            **dict.fromkeys(("path", "type"), "text"),
            **dict.fromkeys(("major", "minor"), "number"),
            **dict.fromkeys(("fileMode", "uid", "gid"), "count"),
        }
    ],
    "netDevices": {"*": {"name": "text"}},
    "seccomp": _SECCOMP,
    "rootfsPropagation": "text",
    "maskedPaths": _WORDS,
    "readonlyPaths": _WORDS,
    "mountLabel": "text",
    "memoryPolicy": {"mode": "text", "nodes": "text", "flags": _WORDS},
    "personality": {"domain": "text", "flags": _WORDS},
    "timeOffsets": {"*": {"secs": "number", "nanosecs": "count"}},
}
CONFIG: dict[str, Shape] = {
    "ociVersion": "text",
    "process": PROCESS,
    "root": {"path": "text", "readonly": "truth"},
    "hostname": "text",
    "domainname": "text",
    "mounts": [
        {
            **dict.fromkeys(("destination", "type", "source"), "text"),
            "options": _WORDS,
            "uidMappings": _MAPS,
            "gidMappings": _MAPS,
        }
    ],
    "hooks": {"*": _HOOKS},
    "annotations": _ENTRIES,
    "linux": _LINUX,
}


def check(document: dict[str, Any], shape: dict[str, Shape], place: str = "") -> None:
    """Raises InvalidConfig for a member of another type; members that are null are taken out."""
    if None in document.values():
        for name in [name for name, value in document.items() if value is None]:
            del document[name]
    every = shape.get("*")
    for name, value in document.items():
        wanted = shape.get(name, every)
        if wanted is not None:
            _check(value, wanted, f"{place}.{name}" if place else name)


def _check(value: Any, wanted: Shape, place: str) -> None:
    kind = type(value)
    if type(wanted) is str:
        if wanted == "text":
            good = kind is str and "\0" not in value
        elif wanted == "truth":
            good = kind is bool
        else:
            good = kind is int and _LEAST[wanted] <= value < 1 << 64
        if not good:
            raise InvalidConfig(f"{place}: {_PLAIN[wanted]}")
    elif type(wanted) is list:
        if kind is not list:
            raise InvalidConfig(f"{place}: must be a list")
        for index, one in enumerate(value):
            _check(one, wanted[0], f"{place}[{index}]")
    else:
        if kind is not dict:
            raise InvalidConfig(f"{place}: must be an object")
        assert type(wanted) is dict
        check(value, wanted, place)
