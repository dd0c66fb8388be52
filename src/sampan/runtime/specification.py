"""`sampan-oci spec`: the example configuration, the same that runc writes."""

from __future__ import annotations

import os

from sampan.jsontext import encode
from sampan.runtime.failure import RuntimeFailure
from sampan.version import OCI_RUNTIME_SPEC_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_HARDENED = ["nosuid", "noexec", "nodev"]
MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def write(directory: str, *, rootless: bool) -> None:
    """Write `config.json` in `directory`. Raises RuntimeFailure when one is there."""
    path = os.path.join(directory, "config.json")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError as error:
        message = "File config.json exists. Remove it first"
        raise RuntimeFailure(error.errno or 0, message) from error
    with open(fd, "w", encoding="utf-8") as file:
        file.write(encode(_for_user(example()) if rootless else _for_host(example()), "\t"))


def _for_host(spec: dict[str, Any]) -> dict[str, Any]:
    """The example without a cgroup namespace where cgroups are of version 1, as runc's."""
    from sampan.kernel import cgroups

    if cgroups.mode() != "unified":
        linux = spec["linux"]
        linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "cgroup"]
    return spec


def _for_user(spec: dict[str, Any]) -> dict[str, Any]:
    """The example for an ordinary user, as runc's: the host's network and /sys, no limits."""
    linux = spec["linux"]
    del linux["resources"]
    kinds = [one for one in linux["namespaces"] if one["type"] != "network"]
    linux["namespaces"] = [*kinds, {"type": "user"}]
    for field, own in (("uidMappings", os.geteuid()), ("gidMappings", os.getegid())):
        linux[field] = [{"containerID": 0, "hostID": own, "size": 1}]
    mounts = []
    for mount in spec["mounts"]:
        if mount["type"] == "cgroup":
            continue
        if mount["destination"] == "/sys":
            options = ["rbind", "nosuid", "noexec", "nodev", "ro"]
            mount = _mount("/sys", "none", "/sys", options)  # noqa: PLW2901
        if "gid=5" in mount.get("options", []):
            mount["options"].remove("gid=5")
        mounts.append(mount)
    return {**spec, "mounts": mounts}


def example() -> dict[str, Any]:
    """A shell with a terminal in a read-only root, without network."""
    return {
        "ociVersion": OCI_RUNTIME_SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {
                kind: list(_CAPABILITIES) for kind in ("bounding", "effective", "permitted")
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "sampan",
        "mounts": [
            _mount("/proc", "proc", "proc", []),
            _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            _mount(
                "/dev/pts",
                "devpts",
                "devpts",
                ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            _mount("/dev/shm", "tmpfs", "shm", [*_HARDENED, "mode=1777", "size=65536k"]),
            _mount("/dev/mqueue", "mqueue", "mqueue", _HARDENED),
            _mount("/sys", "sysfs", "sysfs", [*_HARDENED, "ro"]),
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*_HARDENED, "relatime", "ro"]),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [
                {"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")
            ],
            "maskedPaths": MASKED,
            "readonlyPaths": READONLY,
        },
    }


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    mount: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
    if options:
        mount["options"] = list(options)
    return mount
