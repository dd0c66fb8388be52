"""OCI `linux.resources` as properties of a systemd unit.

Pure. A property is (name, (D-Bus signature, value)). What systemd has no property for, or what it
can say only with less than the kernel, is left to the writes that follow (`v2_limits`, or
`v1_limits`), which are the measure; here only those stand that systemd writes itself, so that its
writes agree with ours.
"""

from __future__ import annotations

from sampan.kernel.cgroups import v1_limits, v2_limits
from sampan.kernel.cgroups.devices import ANY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups.devices import Meta, Policy

    Property = tuple[str, tuple[str, Any]]

_INFINITY = (1 << 64) - 1
_SECOND = 1_000_000  # microseconds
_STEP = 10_000  # systemd counts quotas in hundredths of a processor
_PERIOD = 100_000
_MAX_CPU = 8191
_NUMBERS = {
    "cpu.weight": "CPUWeight",
    "io.weight": "IOWeight",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.max": "MemoryMax",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
}
_OLD_NUMBERS = {  # of version 1, by their own names: systemd would convert the newer ones
    "blkio.weight": "BlockIOWeight",
    "cpu.shares": "CPUShares",
    "memory.limit_in_bytes": "MemoryLimit",
    "pids.max": "TasksMax",
}
_SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
_KINDS = {"b": "block", "c": "char"}
# Read from the unit itself, so that systemd does not turn off what a limit needs.
_ACCOUNTING = ("CPUAccounting", "IOAccounting", "MemoryAccounting", "TasksAccounting")


def of_unit(unit: str, slice_name: str, first: int) -> list[Property]:
    """What every scope has. `first` is the process that is in it from the beginning."""
    return [
        ("Description", ("s", f"container {unit.removesuffix('.scope')}")),
        ("Slice", ("s", slice_name)),
        ("PIDs", ("au", [first])),
        ("Delegate", ("b", True)),
        ("DefaultDependencies", ("b", False)),
        # Else a unit that failed stays in memory, and its name is taken.
        ("CollectMode", ("s", "inactive-or-failed")),
        *((name, ("b", True)) for name in _ACCOUNTING),
    ]


def of_resources(resources: dict[str, Any], rules: Policy | None) -> list[Property]:
    """The limits, and the rules for devices where they are given."""
    found: list[Property] = []
    for write in v2_limits.plan(resources, _look_at_nothing):
        if name := _NUMBERS.get(write.file):
            if write.value == "max" or write.value.isdigit():
                found.append((name, ("t", _number(write.value))))
        elif name := _SETS.get(write.file):
            if (bits := _bits(write.value)) is not None:
                found.append((name, ("ay", bits)))
        elif write.file == "cpu.max" and not write.field.endswith(".period"):
            found += _quota(write.value)
    return [*found, *(_devices(rules) if rules is not None else [])]


def of_old_resources(resources: dict[str, Any], rules: Policy | None) -> list[Property]:
    """As `of_resources`, on version 1."""
    found: list[Property] = []
    written = {write.file: write.value for write in v1_limits.plan(resources, _look_at_nothing)}
    for file, name in _OLD_NUMBERS.items():
        if file in written:
            value = "max" if written[file] == "-1" else written[file]
            found.append((name, ("t", _number(value))))
    if quota := written.get("cpu.cfs_quota_us"):
        period = written.get("cpu.cfs_period_us", str(_PERIOD))
        found += _quota(f"{'max' if quota == '-1' else quota} {period}")
    return [*found, *(_devices(rules) if rules is not None else [])]


def _look_at_nothing(controller: str, file: str) -> str | None:
    return None


def _number(text: str) -> int:
    return _INFINITY if text == "max" else int(text)


def _quota(text: str) -> list[Property]:
    """A quota and its period. (A period alone is left to our own write.)"""
    quota, _, period = text.partition(" ")
    if quota == "max":
        return [("CPUQuotaPerSecUSec", ("t", _INFINITY))]
    if not (quota.isdigit() and (period or "1").isdigit()):
        return []
    length = int(period or _PERIOD)
    steps = -(-int(quota) * _SECOND // (length * _STEP))
    return [
        ("CPUQuotaPeriodUSec", ("t", length)),
        ("CPUQuotaPerSecUSec", ("t", steps * _STEP)),
    ]


def _bits(text: str) -> list[int] | None:
    """A list such as 0-2,7 as bytes, the lowest number in the lowest bit; None if it is none."""
    value = 0
    for part in text.split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.isdigit() and last.isdigit()) or int(last) > _MAX_CPU:
            return None  # the kernel refuses it, in our own write
        for number in range(int(first), int(last) + 1):
            value |= 1 << number
    return list(value.to_bytes(-(-value.bit_length() // 8) or 1, "little"))


def _devices(rules: Policy) -> list[Property]:
    """A list that allows all that the rules allow: systemd's program and ours have to agree."""
    if rules.allow or any(_name(meta) is None for meta in rules.exceptions):
        return [("DevicePolicy", ("s", "auto")), ("DeviceAllow", ("a(ss)", []))]
    allowed = [
        (_name(meta), "".join(letter for letter in "rwm" if letter in access))
        for meta, access in rules.exceptions.items()
    ]
    return [("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", allowed))]


def _name(meta: Meta) -> str | None:
    """A device, or those of one major number, in systemd's words; None where it has none."""
    kind, major, minor = meta
    word = _KINDS[kind]
    if major == ANY:
        return f"{word}-*" if minor == ANY else None
    return f"{word}-{major}" if minor == ANY else f"/dev/{word}/{major}:{minor}"
