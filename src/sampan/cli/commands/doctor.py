"""`sampan doctor`: is this host fit, and is anything left behind? Looks, and changes nothing.

A finding is (level, subject, sentence); levels are ok, note and bad. The command ends with 1 when
something is bad.
"""

from __future__ import annotations

import os

from sampan.cli.session import Command, Failed, Refused, Session
from sampan.client import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.cli.flags import Values

    Finding = tuple[str, str, str]

_OLDEST = (5, 12)  # mount_setattr(2)
_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
_LOW = 1 << 30
_V1 = "/sys/fs/cgroup"


def examine(session: Session, _: Values, __: list[str]) -> int:
    bad = 0
    for level, subject, sentence in findings(session):
        session.out(f"{level:<5} {subject:<12} {sentence}")
        bad += level == "bad"
    return 1 if bad else 0


def findings(session: Session) -> Iterator[Finding]:
    """Everything that was looked at."""
    yield _kernel()
    yield _cgroups()
    yield _file_system("overlay")
    yield _seccomp()
    yield _user()
    yield from _disks(session)
    yield from _daemon(session)
    yield from _ports()


def _kernel() -> Finding:
    release = os.uname().release
    numbers = [int(word) for word in release.split("-")[0].split(".")[:2] if word.isdigit()]
    if tuple(numbers) < _OLDEST:
        return "bad", "kernel", f"Linux {release} is too old: 5.12 is needed for mounts"
    return "ok", "kernel", f"Linux {release}"


def _cgroups() -> Finding:
    unified = _read(f"{_V1}/cgroup.controllers").split()
    found = unified or [name for name in _CONTROLLERS if os.path.isdir(f"{_V1}/{name}")]
    version = "2" if unified else "1"
    if missing := [name for name in _CONTROLLERS if name not in found]:
        return "bad", "cgroups", f"version {version} without {', '.join(missing)}: limits will fail"
    return "ok", "cgroups", f"version {version} with {', '.join(_CONTROLLERS)}"


def _file_system(name: str) -> Finding:
    words = _read("/proc/filesystems").split()
    if name not in words:
        return "bad", name, f"the kernel has no {name}: load its module (modprobe {name})"
    return "ok", name, "the kernel has it"


def _seccomp() -> Finding:
    if "Seccomp:" not in _read("/proc/self/status"):
        return "bad", "seccomp", "the kernel was built without it: containers cannot be filtered"
    return "ok", "seccomp", "the kernel has it"


def _user() -> Finding:
    if os.geteuid():
        return "note", "user", "not root: containers without limits and without networks"
    return "ok", "user", "root"


def _disks(session: Session) -> Iterator[Finding]:
    for path in (session.address.root or "/var/lib/sampan", _state(session)):
        place = path
        while not os.path.exists(place) and place != "/":
            place = os.path.dirname(place)
        found = os.statvfs(place)
        free = found.f_bavail * found.f_frsize
        nodes = found.f_files == 0 or found.f_favail > 10_000
        if free < _LOW or not nodes:
            what = "inodes" if free >= _LOW else "space"
            yield (
                "bad",
                "disk",
                f"{place} is short of {what}: `sampan system prune` gives some back",
            )
        else:
            yield "ok", "disk", f"{place} has {free >> 30} GiB free"


def _state(session: Session) -> str:
    return session.address.state or "/run/sampan"


def _daemon(session: Session) -> Iterator[Finding]:
    try:
        info = session.call(calls.info())
        known = {one["Id"] for one in session.call(calls.containers(everything=True))}
    except (Failed, Refused, OSError) as error:
        yield "bad", "daemon", str(error)
        return
    running = info["ContainersRunning"]
    yield "ok", "daemon", f"version {info['ServerVersion']}, {running} containers run"
    for warning in info.get("Warnings") or ():
        yield "note", "daemon", warning
    strays = [name for name in _listed(f"{_state(session)}/shims") if name not in known]
    if strays:
        text = ", ".join(name[:12] for name in strays)
        yield (
            "note",
            "leftovers",
            f"records of containers that are gone: {text}; restart the daemon",
        )
    else:
        yield "ok", "leftovers", "none"


def _ports() -> Iterator[Finding]:
    if _read("/proc/sys/net/ipv4/ip_forward").strip() == "1":
        yield "ok", "network", "forwarding is on"
    else:
        yield "note", "network", "forwarding is off; it is turned on with the first bridge"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


DOCTOR = Command(examine, "", "Check this host, the daemon, and what was left behind", most=0)
