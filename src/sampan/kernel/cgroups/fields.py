"""Typed reading of OCI `linux.resources`, and the write that a limit becomes.

The JSON comes from a caller we do not trust to have checked it: a number that is a string, a
boolean or out of its range, and a name that holds a blank or a newline, are a ValueError naming
the field, before any directory is made.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DIGITS = frozenset("0123456789")
_LOW, _HIGH = -(1 << 63), (1 << 64) - 1

# OCI name -> (version 1 file, version 2 key of io.max)
DEVICE_THROTTLES = {
    "throttleReadBpsDevice": ("read_bps_device", "rbps"),
    "throttleWriteBpsDevice": ("write_bps_device", "wbps"),
    "throttleReadIOPSDevice": ("read_iops_device", "riops"),
    "throttleWriteIOPSDevice": ("write_iops_device", "wiops"),
}


class Write:
    """One value for one cgroup file, and the field of the specification that asks for it.

    again: the kernel may refuse it (EINVAL) until later writes are done. optional: a kernel
    without the file is none the worse.
    """

    __slots__ = ("again", "controller", "field", "file", "optional", "value")

    def __init__(
        self, controller: str, file: str, value: str, field: str, again: bool, optional: bool
    ) -> None:
        self.controller = controller
        self.file = file
        self.value = value
        self.field = field
        self.again = again
        self.optional = optional

    def __repr__(self) -> str:
        return f"<{self.field}: {self.file} = {self.value}>"


class Fields:
    """One JSON object of the resources, with its place in the document for messages."""

    __slots__ = ("_values", "place")

    def __init__(self, values: dict[str, Any], place: str) -> None:
        self._values = values
        self.place = place

    def name(self, key: str) -> str:
        """The full name of a field."""
        return f"linux.resources{self.place}.{key}"

    def members(self) -> list[str]:
        """The names of the members, for objects that are maps."""
        return list(self._values)

    def object(self, key: str) -> Fields:
        """A member that is an object; an absent one reads as empty."""
        value = self._values.get(key)
        if value is not None and not isinstance(value, dict):
            raise ValueError(f"{self.name(key)}: not an object")
        return Fields(value or {}, f"{self.place}.{key}")

    def objects(self, key: str) -> list[Fields]:
        """A member that is a list of objects; an absent one reads as empty."""
        value = self._values.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise ValueError(f"{self.name(key)}: not a list of objects")
        return [Fields(item, f"{self.place}.{key}[{index}]") for index, item in enumerate(value)]

    def maybe(self, key: str, low: int = _LOW, high: int = _HIGH) -> int | None:
        """A whole number, or None when it is not given."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{self.name(key)}: {value!r} is not a number in range")
        return value

    def integer(self, key: str) -> int:
        """A whole number for which zero and absence are the same."""
        return self.maybe(key) or 0

    def flag(self, key: str) -> bool:
        """A truth value, absent is false."""
        value = self._values.get(key, False)
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"{self.name(key)}: {value!r} is not true or false")
        return bool(value)

    def text(self, key: str) -> str:
        """A string without NUL; absent is empty."""
        value = self._values.get(key)
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise ValueError(f"{self.name(key)}: {value!r} is not a string")
        return value or ""

    def numbers(self, key: str) -> str:
        """A list of processors or memory nodes, such as 0-2,7."""
        value = self.text(key)
        if value and not set(value) <= _DIGITS | {",", "-"}:
            raise ValueError(f"{self.name(key)}: {value!r} is not a list of numbers")
        return value

    def write(
        self,
        controller: str,
        file: str,
        value: int | str,
        key: str,
        *,
        again: bool = False,
        optional: bool = False,
    ) -> Write:
        """The write of `value` that the member `key` asks for."""
        return Write(controller, file, str(value), self.name(key), again, optional)


def device_of(entry: Fields) -> str:
    """major:minor of a block device entry."""
    return ":".join(str(entry.maybe(key, 0, 0xFFFFFFFF) or 0) for key in ("major", "minor"))


def word(entry: Fields, key: str) -> str:
    """A name that may stand in a cgroup file before a blank."""
    value = entry.text(key)
    if not value or value.split() != [value] or "/" in value:
        raise ValueError(f"{entry.name(key)}: {value!r} is not a name")
    return value


def huge_pages(entry: Fields) -> tuple[str, int]:
    """The page size, as it stands in file names, and the limit of a hugepageLimits entry."""
    size = entry.text("pageSize")
    if size[-2:] not in {"KB", "MB", "GB"} or not size[:-2] or not set(size[:-2]) <= _DIGITS:
        raise ValueError(f"{entry.name('pageSize')}: {size!r} is not a page size such as 2MB")
    return size, entry.maybe("limit", 0) or 0


def rdma_line(rdma: Fields, name: str) -> str:
    """The line of rdma.max for one device."""
    entry = rdma.object(name)
    if not name or name.split() != [name]:
        raise ValueError(f"{rdma.name(name)}: not a device name")
    keys = (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
    limits = [(word, entry.maybe(key, 0, 0xFFFFFFFF)) for key, word in keys]
    return " ".join([name, *(f"{word}={limit}" for word, limit in limits if limit is not None)])
