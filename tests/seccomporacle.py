"""What an OCI seccomp profile means, as plainly as it can be said: the judge of our compiler.

No program, no tree: for one call each rule is looked at. For x86_64 without sub-architectures.
"""

from __future__ import annotations

from sampan.kernel import seccomp

_COMPARE = {
    "NE": lambda arg, value, other: arg != value,
    "LT": lambda arg, value, other: arg < value,
    "LE": lambda arg, value, other: arg <= value,
    "EQ": lambda arg, value, other: arg == value,
    "GE": lambda arg, value, other: arg >= value,
    "GT": lambda arg, value, other: arg > value,
    "MASKED_EQ": lambda arg, value, other: arg & value == other,
}


def returns(entry: dict[str, object], key: str = "action", number: str = "errnoRet") -> int:
    """The kernel's return value for the action of a rule."""
    action = seccomp.ACTIONS[str(entry[key])]
    if action in (seccomp.ERRNO, seccomp.TRACE):
        action |= int(str(entry.get(number, 1)))
    return action


def matches(condition, args) -> bool:
    """Whether one condition of a rule holds."""
    compare = _COMPARE[condition["op"].removeprefix("SCMP_CMP_")]
    return compare(args[condition["index"]], condition["value"], condition.get("valueTwo", 0))


def judge(profile, name: str, args) -> int:
    """What the filter must return for the call `name`."""
    plain = []
    for rule in profile["syscalls"]:
        conditions = rule.get("args") or []
        if name not in rule["names"]:
            continue
        if not conditions:
            plain.append(returns(rule))
            continue
        twice = len({c["index"] for c in conditions}) < len(conditions)
        if (any if twice else all)(matches(condition, args) for condition in conditions):
            return returns(rule)
    if plain:
        order = list(seccomp._ORDER)
        return min(plain, key=lambda value: order.index(value & 0xFFFF0000))
    return returns(profile, "defaultAction", "defaultErrnoRet")
