"""Checks of what a container may ask of the host, in dockerd's sentences where it has one.

Ours differs where we can do better: the smallest memory limit is 512 KiB (dockerd: 6 MiB), because
our init is charged to the container only when it is about to become the container's own program.
Docker's API keeps to dockerd's (`api/docker/conflicts.py`); pods get what they ask for.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from sampan.engine import cdi, devices, ranges, security, storage
from sampan.engine.model import BlockLimit, RestartName
from sampan.errors import Conflict, InvalidArgument
from sampan.kernel.rlimits import KINDS

if TYPE_CHECKING:
    from sampan.engine.model import HostConfig

MIN_MEMORY = 512 << 10
_CPUS = os.cpu_count() or 1
_MAX = 2**63 - 1
_OF = "container:"
_HOST_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}", re.ASCII)
_HOST_ADDRESS = re.compile(r"host-gateway|\[?[0-9A-Fa-f:.%]{2,64}\]?", re.ASCII)


def check(host: HostConfig) -> tuple[HostConfig, list[str]]:
    """`host` with what follows from it filled in, and warnings.

    Raises:
        InvalidArgument: a value cannot be granted; the message says which.
    """
    warnings: list[str] = []
    host = _check_memory(host)
    _check_cpu(host)
    _check_rest(host)
    _check_namespaces(host)
    _check_policy(host)
    _check_rights(host)
    _check_mounts(host)
    _check_hosts(host)
    return host, warnings


def _check_hosts(host: HostConfig) -> None:
    """Lines of a hosts file are made of these: nothing in them may begin another line."""
    for entry in host.extra_hosts:
        name, _, address = entry.partition(":")
        if not _HOST_NAME.fullmatch(name) or not _HOST_ADDRESS.fullmatch(address):
            raise InvalidArgument(f"bad format for add-host: {entry[:160]!r}")


def _check_memory(host: HostConfig) -> HostConfig:
    for name in ("memory", "memory_reservation"):
        value = getattr(host, name)
        if value < 0 or value > _MAX:
            raise InvalidArgument(f"invalid {name.replace('_', ' ')}: {value}")
        if 0 < value < MIN_MEMORY:
            what = "limit" if name == "memory" else "reservation"
            raise InvalidArgument(f"Minimum memory {what} allowed is {MIN_MEMORY >> 10}KB")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidArgument(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if 0 < host.memory_swap < host.memory:
        raise InvalidArgument(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if host.memory_swap < -1:
        raise InvalidArgument(f"invalid memory swap: {host.memory_swap}")
    if host.memory and host.memory_reservation > host.memory:
        raise InvalidArgument(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    swappiness = host.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidArgument(
            f"Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )
    if host.memory and not host.memory_swap:
        return replace(host, memory_swap=min(host.memory * 2, _MAX))
    return host


def _check_cpu(host: HostConfig) -> None:
    count = _CPUS
    if host.nano_cpus and (host.cpu_period or host.cpu_quota):
        which = "CPU Period" if host.cpu_period else "CPU Quota"
        raise InvalidArgument(f"Conflicting options: Nano CPUs and {which} cannot both be set")
    if host.nano_cpus and not 10**7 <= host.nano_cpus <= count * 10**9:
        raise InvalidArgument(
            f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        )
    _check_shares(host.cpu_shares)
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if host.cpu_quota and host.cpu_quota != -1 and host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    _check_set(host.cpuset_cpus, "cpus", "CPUs", "/sys/devices/system/cpu/online")
    _check_set(host.cpuset_mems, "mems", "memory nodes", "/sys/devices/system/node/online")


def _check_set(text: str, word: str, what: str, available: str) -> None:
    if not text:
        return
    wanted = parse_set(text)
    if wanted is None:
        raise InvalidArgument(f"Invalid value {text} for cpuset {word}")
    try:
        with open(available, encoding="ascii") as file:
            there = file.read().strip()
    except OSError:
        there = "0"
    if not wanted <= (parse_set(there) or frozenset()):
        raise InvalidArgument(
            f"Requested {what} are not available - requested {text}, available: {there}"
        )


def parse_set(text: str) -> frozenset[int] | None:
    """`0-2,5` as numbers, None when it is no such list."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(end.isascii() and end.isdigit() and len(end) <= 5 for end in ends):
            return None
        numbers.update(range(int(ends[0]), int(ends[1]) + 1))
    return frozenset(numbers) or None


def _check_shares(shares: int) -> None:
    """The kernel's range, in runc's words: it would take other numbers for the nearest in it."""
    if shares < 0:
        raise InvalidArgument(
            f"invalid CPU shares ({shares}): set shares: invalid argument, the range is 2 to 262144"
        )
    if shares == 1:
        raise InvalidArgument("the minimum allowed cpu-shares is 2")
    if shares > 262144:
        raise InvalidArgument("the maximum allowed cpu-shares is 262144")


def _check_rest(host: HostConfig) -> None:
    if host.pids_limit is not None and host.pids_limit < -1:
        raise InvalidArgument(f"invalid pids limit: {host.pids_limit}")
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    for limit in host.ulimits:
        if f"RLIMIT_{limit.name.upper()}" not in KINDS:
            raise InvalidArgument(f"invalid ulimit type: {limit.name}")
        if limit.soft > limit.hard >= 0 or (limit.soft < 0 <= limit.hard):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: "
                f"{limit.soft} > {limit.hard}"
            )
    storage.size_of(host.storage_opt)
    _check_devices(host)


def _check_devices(host: HostConfig) -> None:
    for text in host.device_rules:
        devices.parse_rule(text)
    for text in host.cdi_devices:
        if not cdi.NAME.fullmatch(text):
            raise InvalidArgument(f"invalid CDI device {text!r}: vendor/class=name is wanted")
    for entry in host.block_devices:
        devices.block_number(entry.path)
        if entry.limit is BlockLimit.WEIGHT and not 10 <= entry.value <= 1000:
            raise InvalidArgument("Range of blkio weight is from 10 to 1000")
        if entry.value < 0:
            raise InvalidArgument(f"invalid rate for device {entry.path}: {entry.value}")
    parent = host.cgroup_parent
    if len(parent) > 3000 or "\0" in parent or ".." in parent.split("/"):
        raise InvalidArgument(f"invalid cgroup parent {parent[:100]!r}")


def _check_namespaces(host: HostConfig) -> None:
    for name, own in (
        ("pid_mode", ("", "private")),
        ("ipc_mode", ("", "none", "private", "shareable")),
        ("uts_mode", ("", "private")),
        ("cgroupns_mode", ("", "private")),
    ):
        value = getattr(host, name)
        is_other = value.startswith(_OF) and len(value) > len(_OF) and name != "cgroupns_mode"
        if value != "host" and value not in own and not is_other:
            raise InvalidArgument(f"invalid {name.replace('_', ' ')}: {value!r}")
    ranges.check(host)


def _check_policy(host: HostConfig) -> None:
    policy = host.restart
    if policy.max_retries and policy.name is not RestartName.ON_FAILURE:
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if policy.max_retries < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if host.auto_remove and policy.name is not RestartName.NO:
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def _check_rights(host: HostConfig) -> None:
    for word, names in (("CapAdd", host.cap_add), ("CapDrop", host.cap_drop)):
        for name in names:
            try:
                security.capability_name(name)
            except InvalidArgument as error:
                raise InvalidArgument(f"invalid {word}: {error}") from None
    if host.security_opt:
        security.check_modules(host)
    for device in host.devices:
        path = device.container_path
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise InvalidArgument(f"invalid device path in the container: {path!r}")
        if not device.permissions or set(device.permissions) - set("rwm"):
            raise InvalidArgument(f"invalid device mode: {device.permissions!r}")
    for text in (*host.sysctls, *host.sysctls.values(), *host.tmpfs.values()):
        if "\0" in text or "\n" in text:
            raise InvalidArgument(f"invalid character in {text!r}")


def _check_mounts(host: HostConfig) -> None:
    seen: set[str] = set()
    for target in host.tmpfs:
        if not target.startswith("/") or ".." in target.split("/") or "\0" in target:
            raise InvalidArgument(f"invalid mount path: '{target}' mount path must be absolute")
        if not target.strip("/"):
            raise InvalidArgument("invalid specification: destination can't be '/'")
        if target.rstrip("/") in seen:
            raise Conflict(f"Duplicate mount point: {target}")
        seen.add(target.rstrip("/"))
