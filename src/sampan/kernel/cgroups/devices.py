"""Device rules of the OCI specification, normalised, and as a program for version 2.

The rules of a container are applied in their order to a state that denies everything, as the
kernel's version 1 controller does it; what is left is a *policy*: the default and the exceptions
from it. Version 1 writes the exceptions to files, version 2 has them compiled into a
BPF_PROG_TYPE_CGROUP_DEVICE program.

A list of rules never opens a device by being a list of denials only: nothing is allowed that no
rule allows. The devices every container has under runc are always added.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Meta = tuple[str, int, int]  # type, major, minor; -1 is any

ANY = -1
_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
_MAX_NUMBER = 0xFFFFFFFF

# What runc appends to every list: making any node, the harmless character devices, pseudo
# terminals and tun.
ALWAYS: tuple[tuple[Meta, str], ...] = (
    (("c", ANY, ANY), "m"),
    (("b", ANY, ANY), "m"),
    (("c", 1, 3), "rwm"),
    (("c", 1, 5), "rwm"),
    (("c", 1, 7), "rwm"),
    (("c", 1, 8), "rwm"),
    (("c", 1, 9), "rwm"),
    (("c", 5, 0), "rwm"),
    (("c", 5, 2), "rwm"),
    (("c", 136, ANY), "rwm"),
    (("c", 10, 200), "rwm"),
)


class Policy:
    """What devices a cgroup may use: a default, and the accesses excepted from it."""

    __slots__ = ("allow", "exceptions")

    def __init__(self) -> None:
        self.allow = False
        self.exceptions: dict[Meta, set[str]] = {}

    def apply(self, allow: bool, meta: Meta, access: str) -> None:
        """Take one rule into account, with the kernel's version 1 semantics."""
        if meta[0] == "a":
            self.allow = allow
            self.exceptions.clear()
        elif allow != self.allow:
            self.exceptions.setdefault(meta, set()).update(access)
        else:
            self._remove(meta, access)

    def _remove(self, meta: Meta, access: str) -> None:
        kind, major, minor = meta
        for wider in ((kind, ANY, minor), (kind, major, ANY), (kind, ANY, ANY)):
            # The kernel would ignore such a rule silently: refuse rather than leave open.
            if wider != meta and not self.allow and self.exceptions.get(wider, set()) & set(access):
                raise ValueError(
                    f"linux.resources.devices: cannot deny {_text(meta, access)} "
                    f"inside of the allowed {_text(wider, self.exceptions[wider])}"
                )
        left = self.exceptions.get(meta, set()) - set(access)
        self.exceptions.pop(meta, None)
        if left:
            self.exceptions[meta] = left

    def lines(self) -> list[str]:
        """The exceptions as the lines of version 1's devices.allow and devices.deny."""
        return [_text(meta, access) for meta, access in self.exceptions.items()]


def policy(rules: list[dict[str, Any]] | None) -> Policy:
    """The policy of OCI `linux.resources.devices`; raises ValueError for a malformed rule."""
    result = Policy()
    for index, rule in enumerate(rules or ()):
        result.apply(*_parse(rule, f"linux.resources.devices[{index}]"))
    for meta, access in ALWAYS:
        result.apply(True, meta, access)
    return result


def parse_list(text: str) -> Policy:
    """The policy that version 1's devices.list shows."""
    result = Policy()
    for line in text.split("\n"):
        kind, _, rest = line.partition(" ")
        if kind == "a":
            result.apply(True, ("a", ANY, ANY), "rwm")
        elif rest:
            numbers, _, access = rest.partition(" ")
            major, _, minor = numbers.partition(":")
            first, second = (ANY if n == "*" else int(n) for n in (major, minor))
            result.exceptions[kind, first, second] = set(access)
    return result


def _parse(rule: dict[str, Any], field: str) -> tuple[bool, Meta, str]:
    allow, kind = rule.get("allow", False), rule.get("type") or "a"
    access = rule.get("access") or "rwm"
    if not isinstance(allow, bool) or kind not in {"a", "b", "c", "u", "p"}:
        raise ValueError(f"{field}: unknown type or allow value")
    if kind == "p":
        raise ValueError(f"{field}: a fifo is no device")
    if not isinstance(access, str) or not set(access) <= {*_ACCESS, "a"}:
        raise ValueError(f"{field}: access {access!r} is not made of r, w and m")
    if "a" in access:  # all, as the kernel has it for a kind
        access = "rwm"
    major, minor = (_number(rule.get(key), f"{field}.{key}") for key in ("major", "minor"))
    return allow, ({"u": "c"}.get(kind, kind), major, minor), access


def _number(value: object, field: str) -> int:
    if value is None:
        return ANY
    if not isinstance(value, int) or isinstance(value, bool) or not -1 <= value <= _MAX_NUMBER:
        raise ValueError(f"{field}: {value!r} is not a device number")
    return value


def _text(meta: Meta, access: set[str] | str) -> str:
    kind, major, minor = meta
    numbers = ":".join("*" if number == ANY else str(number) for number in (major, minor))
    return f"{kind} {numbers} {''.join(letter for letter in 'rwm' if letter in access)}"


def difference(current: Policy, wanted: Policy) -> tuple[list[str], list[str]]:
    """The exceptions to add to and to take from `current`, whose default is the same."""
    more, less = Policy(), Policy()
    for meta in {**current.exceptions, **wanted.exceptions}:
        old, new = (rules.exceptions.get(meta, set()) for rules in (current, wanted))
        if new - old:
            more.exceptions[meta] = new - old
        if old - new:
            less.exceptions[meta] = old - new
    return more.lines(), less.lines()
