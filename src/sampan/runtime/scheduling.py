"""Fields that say how the kernel serves a process: `process.scheduler`, `process.ioPriority`,
`process.execCPUAffinity`, `linux.memoryPolicy`, `linux.personality`.

Imported only where a configuration has one of them (`extensions`).
"""

from __future__ import annotations

import errno
import os

from sampan.kernel import scheduling as k
from sampan.runtime.failure import InvalidConfig
from sampan.runtime.operations import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.stage import Stage

_REAL_TIME = ("SCHED_FIFO", "SCHED_RR")
_TIMES = ("runtime", "deadline", "period")  # nanoseconds
_LEAST_RUNTIME = 1024  # nanoseconds, the kernel's DL_SCALE
_MOST_RUNTIME = 1 << 63
_WITHOUT_NODES = ("MPOL_DEFAULT", "MPOL_LOCAL")
_MAX_CPU = 8191  # NR_CPUS of the largest kernels


def _need(condition: object, field: str, problem: str) -> None:
    if not condition:
        raise InvalidConfig(f"{field}: {problem}")


def _names(value: object, field: str, known: dict[str, int], what: str) -> list[str]:
    words = value if value is not None else []
    _need(isinstance(words, list), field, "must be a list of names")
    assert isinstance(words, list)
    for word in words:
        _need(isinstance(word, str) and word in known, field, f"invalid {what} {word!r}")
    return words


def _integer(document: dict[str, Any], key: str, field: str) -> int:
    value = document.get(key) or 0
    _need(type(value) is int and -(2**63) <= value < 2**64, f"{field}.{key}", "must be a number")
    return int(value)


def check_scheduler(scheduler: object) -> None:
    """The rules of `process.scheduler`, which are sched_setattr(2)'s. Raises InvalidConfig."""
    field = "process.scheduler"
    _need(isinstance(scheduler, dict), field, "must be an object")
    assert isinstance(scheduler, dict)
    policy = scheduler.get("policy")
    _need(policy in k.POLICIES, f"{field}.policy", f"scheduler policy {policy!r} is not known")
    _names(scheduler.get("flags"), f"{field}.flags", k.SCHEDULER_FLAGS, "scheduler flag")
    nice, priority = (_integer(scheduler, key, field) for key in ("nice", "priority"))
    _need(-20 <= nice <= 19, f"{field}.nice", f"invalid scheduler.nice: {nice}")
    real_time = policy in _REAL_TIME
    _need(
        real_time or not priority,
        f"{field}.priority",
        "scheduler.priority can only be specified for SchedFIFO or SchedRR policy",
    )
    _need(not real_time or 1 <= priority <= 99, f"{field}.priority", "must be 1 to 99")
    times = [_integer(scheduler, key, field) for key in _TIMES]
    _need(min(times) >= 0, field, "scheduler runtime/deadline/period must not be negative")
    _need(
        policy == "SCHED_DEADLINE" or not any(times),
        field,
        "scheduler runtime/deadline/period can only be specified for SchedDeadline policy",
    )
    if policy == "SCHED_DEADLINE":
        _check_deadline(scheduler, *times)


def _check_deadline(scheduler: dict[str, Any], runtime: int, deadline: int, period: int) -> None:
    """The kernel says no more than "invalid argument"; crun's words, which its callers know."""
    field, what = "process.scheduler", "sched_setattr: `SCHED_DEADLINE`"
    for key in ("runtime", "deadline"):
        _need(scheduler.get(key) is not None, f"{field}.{key}", f"{what} requires `{key}`")
    _need(runtime > 0, f"{field}.runtime", f"{what} runtime must be greater than 0")
    good = _LEAST_RUNTIME <= runtime < _MOST_RUNTIME
    problem = f"{what} runtime ({runtime}) must be between {_LEAST_RUNTIME} and 2^63 - 1"
    _need(good, f"{field}.runtime", problem)
    for name, value, limit, most in (
        ("runtime", runtime, "deadline", deadline),
        ("deadline", deadline, "period", period or deadline),
    ):
        problem = f"{what} {name} ({value}) must be <= {limit} ({most})"
        _need(value <= most, f"{field}.{name}", problem)


def check_io_priority(wanted: object) -> None:
    """The rules of `process.ioPriority`. Raises InvalidConfig."""
    field = "process.ioPriority"
    _need(isinstance(wanted, dict), field, "must be an object")
    assert isinstance(wanted, dict)
    kind = wanted.get("class")
    _need(kind in k.IO_CLASSES, f"{field}.class", f"invalid ioPriority.Class: {kind!r}")
    priority = _integer(wanted, "priority", field)
    good = 0 <= priority <= 7
    _need(good, f"{field}.priority", f"invalid ioPriority.Priority: {priority}")


def check_affinity(affinity: object) -> None:
    """The rules of `process.execCPUAffinity`. Raises InvalidConfig."""
    field = "process.execCPUAffinity"
    _need(isinstance(affinity, dict), field, "must be an object")
    assert isinstance(affinity, dict)
    for key in ("initial", "final"):
        text = affinity.get(key) or ""
        _need(isinstance(text, str), f"{field}.{key}", "must be a list of CPUs")
        try:
            numbers(text, _MAX_CPU)
        except ValueError as error:
            raise InvalidConfig(f"{field}.{key}: {error}") from error


def check_memory_policy(policy: object) -> None:
    """The rules of `linux.memoryPolicy`. Raises InvalidConfig."""
    field = "linux.memoryPolicy"
    _need(isinstance(policy, dict), field, "invalid memory policy: must be an object")
    assert isinstance(policy, dict)
    mode = policy.get("mode") or ""
    _need(mode in k.MEMORY_MODES, f"{field}.mode", f"invalid memory policy mode {mode!r}")
    _names(policy.get("flags"), f"{field}.flags", k.MEMORY_FLAGS, "memory policy flag")
    try:
        nodes = numbers(policy.get("nodes") or "", k.MAX_NODES - 1)
    except (ValueError, AttributeError) as error:
        raise InvalidConfig(f"{field}.nodes: invalid memory policy nodes: {error}") from error
    if mode in _WITHOUT_NODES:
        problem = f"memory policy mode requires 0 nodes but got {len(nodes)}"
        _need(not nodes, f"{field}.nodes", problem)
    elif mode != "MPOL_PREFERRED":
        problem = "memory policy mode requires at least one node but got 0"
        _need(nodes, f"{field}.nodes", problem)


def check_personality(personality: object) -> None:
    """The rules of `linux.personality`. Raises InvalidConfig.

    The specification names no flag, so any is refused; runc ignores them.
    """
    field = "linux.personality"
    _need(isinstance(personality, dict), field, "must be an object")
    assert isinstance(personality, dict)
    domain = personality.get("domain")
    _need(domain in k.DOMAINS, f"{field}.domain", f"invalid personality domain {domain!r}")
    _need(not personality.get("flags"), f"{field}.flags", "no flag is defined")


def numbers(text: str, most: int) -> list[int]:
    """`0-3,7` as numbers, sorted. Raises ValueError for what is no such list, or beyond `most`."""
    found: set[int] = set()
    for part in text.split(",") if text.strip() else []:
        first, dash, last = part.strip().partition("-")
        if not first.isascii() or not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"{part!r} is not a number or a range")
        low, high = int(first), int(last) if dash else int(first)
        if low > high or high > most:
            raise ValueError(f"{part!r} is not a range up to {most}")
        found.update(range(low, high + 1))
    return sorted(found)


class Scheduler(Operation):
    """Set the scheduling policy."""

    __slots__ = ("wanted",)

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted

    def execute(self, stage: Stage) -> None:
        wanted = self.wanted
        flags = sum(k.SCHEDULER_FLAGS[name] for name in set(wanted.get("flags") or []))
        runtime, deadline, period = (wanted.get(key) or 0 for key in _TIMES)
        nice, priority = wanted.get("nice") or 0, wanted.get("priority") or 0
        policy = k.POLICIES[wanted["policy"]]
        try:
            k.set_scheduler(policy, flags, nice, priority, (runtime, deadline, period))
        except PermissionError as error:
            if wanted["policy"] == "SCHED_DEADLINE" and _lacks_cpus():
                said = "operation not permitted: process scheduler can't be used together with"
                raise OSError(errno.EPERM, f"{said} AllowedCPUs, a set of CPUs") from error
            if wanted["policy"] not in _REAL_TIME:
                raise
            hint = "; where cgroups of version 1 share out real time, it needs a part of it"
            field = "linux.resources.cpu.realtimeRuntime"
            said = f"operation not permitted{hint} ({field})"
            raise OSError(errno.EPERM, said) from error

    def describe(self) -> str:
        return f"set the scheduler {self.wanted['policy']}"


def _lacks_cpus() -> bool:
    """Whether we may run on some of the machine's CPUs only (sched_setattr(2), EPERM)."""
    return len(os.sched_getaffinity(0)) < (os.cpu_count() or 1)


class IoPriority(Operation):
    """Set the class and priority of input and output."""

    __slots__ = ("kind", "priority")

    def __init__(self, kind: str, priority: int) -> None:
        self.kind, self.priority = kind, priority

    def execute(self, stage: Stage) -> None:
        k.set_io_priority(k.IO_CLASSES[self.kind], self.priority)

    def describe(self) -> str:
        return f"set the I/O priority {self.kind} {self.priority}"


class Affinity(Operation):
    """Run on these CPUs only."""

    __slots__ = ("cpus",)

    def __init__(self, cpus: list[int]) -> None:
        self.cpus = cpus

    def execute(self, stage: Stage) -> None:
        os.sched_setaffinity(0, self.cpus)

    def describe(self) -> str:
        return f"run on the CPUs {','.join(map(str, self.cpus))}"


class MemoryPolicy(Operation):
    """Set from which nodes memory is taken."""

    __slots__ = ("flags", "mode", "nodes")

    def __init__(self, mode: str, flags: list[str], nodes: list[int]) -> None:
        self.mode, self.flags, self.nodes = mode, flags, nodes

    def execute(self, stage: Stage) -> None:
        mode = k.MEMORY_MODES[self.mode]
        for name in self.flags:
            mode |= k.MEMORY_FLAGS[name]
        k.set_memory_policy(mode, self.nodes)

    def describe(self) -> str:
        words = [self.mode, *self.flags, *map(str, self.nodes)]
        return f"set the memory policy {' '.join(words)}"


class Personality(Operation):
    """Set the execution domain."""

    __slots__ = ("domain",)

    def __init__(self, domain: str) -> None:
        self.domain = domain

    def execute(self, stage: Stage) -> None:
        k.set_personality(k.DOMAINS[self.domain])

    def describe(self) -> str:
        return f"set the personality {self.domain}"


def operations(process: dict[str, Any], linux: dict[str, Any]) -> list[Operation]:
    """What is set once the cgroup is joined."""
    found: list[Operation] = []
    if process.get("scheduler"):
        found.append(Scheduler(process["scheduler"]))
    if process.get("ioPriority"):
        wanted = process["ioPriority"]
        found.append(IoPriority(wanted["class"], wanted.get("priority") or 0))
    if linux.get("memoryPolicy"):
        policy = linux["memoryPolicy"]
        nodes = numbers(policy.get("nodes") or "", k.MAX_NODES - 1)
        flags = list(policy.get("flags") or [])
        found.append(MemoryPolicy(policy["mode"], flags, nodes))
    if linux.get("personality"):
        found.append(Personality(linux["personality"]["domain"]))
    return found


def affinity(process: dict[str, Any], key: str) -> list[Operation]:
    """`initial`: before the cgroup is joined; `final`: after."""
    text = (process.get("execCPUAffinity") or {}).get(key) or ""
    cpus = numbers(text, _MAX_CPU)
    return [Affinity(cpus)] if cpus else []
