"""Rules of a configuration that can be checked before anything is made.

`check` refuses what is malformed, contradictory or not supported, and names the field, so that
nothing has to be undone. It is pure but for one look: settings of a namespace that is joined need
to know that it is not our own. Whether a path exists is found out later, by the operation that uses
it.
"""

from __future__ import annotations

import os

from sampan.kernel.filters import NOTIFY
from sampan.kernel.namespaces import KINDS
from sampan.kernel.rlimits import KINDS as LIMITS
from sampan.runtime.devices import KINDS as DEVICE_KINDS
from sampan.runtime.failure import InvalidConfig
from sampan.runtime.mountoptions import EXTENSIONS, PROPAGATION
from sampan.runtime.plan import RARE_LINUX, RARE_PROCESS, is_bind, is_idmapped, shares_mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EXTENDED = EXTENSIONS | {"uidMappings", "gidMappings"}
_MAX_ID = 2**32 - 2
_FILES = {"network": "net"}
_IPC_SYSCTLS = frozenset(
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax "
    "kernel.shmmni kernel.shm_rmid_forced".split()
)


def check(spec: dict[str, Any]) -> None:
    """Raises InvalidConfig when `spec` cannot become a container."""
    _need(isinstance(spec, dict), "config", "must be an object")
    version = spec.get("ociVersion")
    _need(isinstance(version, str) and version.startswith("1."), "ociVersion", "must be 1.x")
    root = spec.get("root")
    _need(isinstance(root, dict) and isinstance(root.get("path"), str), "root.path", "is missing")
    process = spec.get("process")
    _need(isinstance(process, dict), "process", "is missing")
    check_process(process or {})
    linux = spec.get("linux") or {}
    _check_namespaces(linux)
    if shares_mounts(linux):
        from sampan.runtime import sharedmounts

        sharedmounts.check(spec)
    _check_names(spec, linux)
    _check_mounts(spec, linux)
    _check_sysctls(linux, domainname=spec.get("domainname") or "")
    _check_devices(linux)
    _check_listener(linux)
    if not RARE_LINUX.isdisjoint(linux):
        from sampan.runtime import extensions

        extensions.check_linux(linux)
    if any(linux.get(key) for key in ("uidMappings", "gidMappings", "timeOffsets")) or not (
        {"user", "time"}.isdisjoint(one["type"] for one in linux.get("namespaces") or [])
    ):
        from sampan.runtime import birth, mappings

        mappings.check_container(linux)
        birth.check_offsets(linux)
    if spec.get("hooks"):
        from sampan.runtime import hooks

        _need(isinstance(spec["hooks"], dict), "hooks", "must be an object")
        hooks.check(spec["hooks"])


def check_process(process: dict[str, Any]) -> None:
    """The rules of a process, of a container's first one or of an exec."""
    arguments = process.get("args")
    good = isinstance(arguments, list) and arguments and _is_strings(arguments)
    _need(bool(good) and bool((arguments or [""])[0]), "process.args", "must name a program")
    cwd = process.get("cwd")
    _need(isinstance(cwd, str) and cwd.startswith("/"), "process.cwd", "must be absolute")
    _check_environment(process.get("env") or [])
    user = process.get("user") or {}
    ids = [user.get("uid", 0), user.get("gid", 0), *(user.get("additionalGids") or [])]
    for number in ids:
        good = isinstance(number, int) and 0 <= number <= _MAX_ID
        _need(good, "process.user", f"id {number!r} is out of range")
    for limit in process.get("rlimits") or []:
        kind = limit.get("type")
        _need(kind in LIMITS, "process.rlimits", f"unknown limit {kind!r}")
        good = limit.get("soft", 0) <= limit.get("hard", 0)
        _need(good, "process.rlimits", f"{kind}: soft is above hard")
    for name, values in (process.get("capabilities") or {}).items():
        _need(_is_strings(values), f"process.capabilities.{name}", "must be a list of names")
    score = process.get("oomScoreAdj") or 0
    _need(-1000 <= score <= 1000, "process.oomScoreAdj", f"{score} is not within -1000 to 1000")
    if not RARE_PROCESS.isdisjoint(process):
        from sampan.runtime import extensions

        extensions.check_process(process)


def _need(condition: bool, field: str, problem: str) -> None:
    if not condition:
        raise InvalidConfig(f"{field}: {problem}")


def _is_strings(values: object) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, str) and "\0" not in value for value in values
    )


def _check_environment(environment: list[str]) -> None:
    _need(_is_strings(environment), "process.env", "must be a list of strings without NUL")
    for entry in environment:
        name, equals, _ = entry.partition("=")
        _need(bool(name and equals), "process.env", f"{entry!r} is not NAME=VALUE")


def _check_namespaces(linux: dict[str, Any]) -> None:
    seen = set()
    for namespace in linux.get("namespaces") or []:
        kind = namespace.get("type")
        _need(kind in KINDS, "linux.namespaces", f"unknown namespace {kind!r}")
        _need(kind not in seen, "linux.namespaces", f"{kind} is there twice")
        path = namespace.get("path") or ""
        _need(not path or path.startswith("/"), "linux.namespaces", f"{path!r} is not absolute")
        seen.add(kind)


def _check_names(spec: dict[str, Any], linux: dict[str, Any]) -> None:
    kinds = {namespace["type"] for namespace in linux.get("namespaces") or []}
    for field in ("hostname", "domainname"):
        name = spec.get(field) or ""
        _need(not name or "uts" in kinds, field, "needs a uts namespace")
        _need(isinstance(name, str) and len(name) <= 64, field, "is longer than 64 characters")


def _check_mounts(spec: dict[str, Any], linux: dict[str, Any]) -> None:
    propagation = linux.get("rootfsPropagation") or ""
    words = {*PROPAGATION, *("r" + word for word in PROPAGATION), ""}
    _need(propagation in words, "linux.rootfsPropagation", f"unknown mode {propagation!r}")
    for index, mount in enumerate(spec.get("mounts") or []):
        field = f"mounts[{index}]"
        destination = mount.get("destination")
        good = isinstance(destination, str) and destination and "\0" not in destination
        _need(bool(good), f"{field}.destination", "must be a path")
        if not destination.startswith("/"):  # from the root, as the specification has it since 1.1
            mount["destination"] = "/" + destination
        _need(_is_strings(mount.get("options") or []), f"{field}.options", "must be strings")
        if not _EXTENDED.isdisjoint((*(mount.get("options") or []), *mount)):
            _check_extended(mount, linux, field)
    for field in ("maskedPaths", "readonlyPaths"):
        for path in linux.get(field) or []:
            _need(isinstance(path, str) and path.startswith("/"), f"linux.{field}", "not absolute")


def _check_extended(mount: dict[str, Any], linux: dict[str, Any], field: str) -> None:
    """tmpcopyup and mapped ids; their modules are loaded here, before a child is made."""
    options = mount.get("options") or []
    if "tmpcopyup" in options:
        from sampan.runtime import copyup  # noqa: F401

        _need(mount.get("type") == "tmpfs", f"{field}.options", "tmpcopyup is for tmpfs only")
    if is_idmapped(mount):
        from sampan.runtime import idmaps

        _need(is_bind(mount), field, "id-mapped mounts are only supported for bind-mounts")
        idmaps.check(mount, linux, field)


def _check_sysctls(linux: dict[str, Any], *, domainname: str) -> None:
    """runc's rules: only settings of a namespace that is the container's own."""
    given = linux.get("sysctl") or {}
    own = {one["type"] for one in (given and linux.get("namespaces")) or [] if _is_own(one)}
    for name, value in given.items():
        key = name.replace("/", ".")
        field = "linux.sysctl"
        good = all(part and part != ".." for part in key.split("."))
        _need(good and key.isascii() and key.isprintable(), field, f"{name!r} is not a setting")
        _need(isinstance(value, str) and "\n" not in value, field, f"{name}: not a plain value")
        ipc = key in _IPC_SYSCTLS or key.startswith("fs.mqueue.")
        _need(not ipc or "ipc" in own, field, f"{name} needs an ipc namespace")
        net = key.startswith("net.")
        _need(not net or "network" in own, field, f"{name} needs a network namespace")
        domain = key == "kernel.domainname"
        _need(not domain or "uts" in own, field, f"{name} needs a uts namespace")
        other = domain and domainname not in ("", value)
        _need(not other, field, f"{name} conflicts with the field domainname")
        _need(ipc or net or domain, field, f"{name} is not in a separate kernel namespace")


def _is_own(namespace: dict[str, Any]) -> bool:
    """Whether it is another namespace than ours; one that is joined may be anybody's."""
    if not namespace.get("path"):
        return True
    try:
        joined = os.stat(namespace["path"])
        ours = os.stat(f"/proc/self/ns/{_FILES.get(namespace['type'], namespace['type'])}")
    except OSError:
        return False
    return (joined.st_dev, joined.st_ino) != (ours.st_dev, ours.st_ino)


def _check_listener(linux: dict[str, Any]) -> None:
    """What SCMP_ACT_NOTIFY needs; all else is refused by the compiler of filters."""
    profile = linux.get("seccomp")
    if not isinstance(profile, dict):
        return
    rules = profile.get("syscalls") or []
    if any(isinstance(rule, dict) and rule.get("action") == NOTIFY for rule in rules):
        from sampan.runtime import listener

        listener.check(profile)


def _check_devices(linux: dict[str, Any]) -> None:
    for device in linux.get("devices") or []:
        path, kind = device.get("path"), device.get("type")
        good = isinstance(path, str) and path.startswith("/")
        _need(good, "linux.devices", f"{path!r} is not absolute")
        _need(kind in DEVICE_KINDS, "linux.devices", f"{path}: unknown type {kind!r}")
