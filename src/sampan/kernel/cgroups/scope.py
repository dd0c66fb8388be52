"""A cgroup that belongs to systemd: a transient scope unit, asked for over D-Bus.

Where systemd runs it is the only writer of the tree, and a cgroup made behind its back can be
changed or removed at any reload. So it makes the directory, as a scope with `Delegate`, in a slice;
what the specification asks for is told to it as properties, and then written to the cgroup by
ourselves as in any other, because the properties are coarser (quotas count in steps) and fewer.

Words: a cgroup path `SLICE:PREFIX:NAME` is the unit `PREFIX-NAME.scope` in the slice `SLICE`;
`system.slice` is the default, `user.slice` for an ordinary user, who asks the own manager. A scope
is never empty: its first process goes into it at its birth.

With version 1 systemd has a part of the hierarchies and leaves the others alone (`scope_v1`).
"""

from __future__ import annotations

import errno
import os

from sampan.kernel import cgroups, dbus
from sampan.kernel.cgroups import applying, devices, scope_properties, v2, v2_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from sampan.kernel.cgroups.scope_properties import Property

BOOTED = "/run/systemd/system"
_SYSTEM_BUS = "/run/dbus/system_bus_socket"
_NAME = "org.freedesktop.systemd1"
_OBJECT = "/org/freedesktop/systemd1"
_MANAGER = f"{_NAME}.Manager"
_BUS = "org.freedesktop.DBus"
_BUS_OBJECT = "/org/freedesktop/DBus"
_SUFFIX = ".slice"
_NO_UNIT = f"{_NAME}.NoSuchUnit"
_UNIT_EXISTS = f"{_NAME}.UnitExists"
_MAX_NAME = 255


class Manager:
    """The systemd that may make units for this user: that of the machine, or the user's own."""

    __slots__ = ("_connection", "_name")

    def __init__(self, connection: dbus.Connection, *, is_bus: bool) -> None:
        """`is_bus` is False for systemd's own socket. The connection is ours now."""
        self._connection = connection
        self._name = _NAME if is_bus else ""
        if is_bus:
            # A bus gives a name, and signals only to those who ask; the other end just talks.
            rule = f"type='signal',interface='{_MANAGER}',member='JobRemoved',path='{_OBJECT}'"
            connection.call(_BUS, _BUS_OBJECT, f"{_BUS}.Hello")
            connection.call(_BUS, _BUS_OBJECT, f"{_BUS}.AddMatch", "s", rule)
            self._call("Subscribe")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _call(self, name: str, signature: str = "", *values: Any) -> list[Any]:
        return self._connection.call(self._name, _OBJECT, f"{_MANAGER}.{name}", signature, *values)

    def start(self, unit: str, properties: list[Property]) -> None:
        """Make a transient unit and wait until it is there.

        Raises:
            FileExistsError: there is such a unit, with processes.
            OSError: systemd refused, or the job failed.
        """
        try:
            self._job("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "replace", properties, [])
        except dbus.Refused as error:
            if error.name != _UNIT_EXISTS:
                raise
            message = f"container's cgroup is not empty: the unit {unit} is there"
            raise FileExistsError(errno.EEXIST, message) from error

    def stop(self, unit: str) -> None:
        """Stop a unit and wait until it has gone; one that is gone is fine."""
        try:
            self._job("StopUnit", "ss", unit, "replace")
        except dbus.Refused as error:
            if error.name != _NO_UNIT:
                raise

    def set_properties(self, unit: str, properties: list[Property]) -> None:
        """Change a unit until the next boot. Raises OSError, and has changed nothing then."""
        self._call("SetUnitProperties", "sba(sv)", unit, True, properties)

    def control_group(self) -> str:
        """The cgroup below which this manager makes its units, "" for the root."""
        found = self._connection.call(
            self._name, _OBJECT, f"{_BUS}.Properties.Get", "ss", _MANAGER, "ControlGroup"
        )
        return str(found[0][1]).rstrip("/")

    def _job(self, name: str, signature: str, *values: Any) -> None:
        (job,) = self._call(name, signature, *values)
        ended = self._connection.await_signal("JobRemoved", 1, job)
        if ended[3] != "done":
            raise OSError(errno.EIO, f"{name} {values[0]}: systemd says the job {ended[3]}")


def connect() -> Manager:
    """The systemd that makes units for this user. Raises OSError with the reasons."""
    refusals = []
    for path, is_bus in _sockets():
        try:
            return Manager(dbus.Connection(path), is_bus=is_bus)
        except OSError as error:
            refusals.append(f"{path}: {(error.strerror or str(error)).lower()}")
    why = "; ".join(refusals) or "XDG_RUNTIME_DIR is not set"
    raise OSError(errno.ECONNREFUSED, f"reach systemd over D-Bus: {why}")


def _sockets() -> list[tuple[str, bool]]:
    """Where systemd may be reached, and whether that is a bus: its own socket is the fall-back."""
    if os.geteuid() == 0:
        return [(_SYSTEM_BUS, True), ("/run/systemd/private", False)]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    found = []
    address = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    if address.startswith("unix:path="):
        path = address.removeprefix("unix:path=").partition(",")[0].partition(";")[0]
        found.append((path, True))
    if runtime:
        found += [(f"{runtime}/bus", True), (f"{runtime}/systemd/private", False)]
    return list(dict.fromkeys(found))


def place(text: str, container_id: str) -> tuple[str, str]:
    """(cgroup path, unit) of a configuration's `SLICE:PREFIX:NAME`, or of one that names none.

    Raises:
        ValueError: it has another form.
        OSError: systemd does not run, or cannot be reached.
    """
    if not os.path.isdir(BOOTED):
        raise OSError(
            errno.ENOTSUP,
            f"--systemd-cgroup: systemd does not run on this host (no {BOOTED}): leave the flag "
            "out, so that cgroups are made without it",
        )
    is_root = os.geteuid() == 0
    if not is_root and cgroups.mode() != "unified":
        raise OSError(
            errno.ENOTSUP,
            "--systemd-cgroup: this host has cgroup version 1, where systemd gives an ordinary "
            "user's units no limits: leave the flag out",
        )
    slice_name, prefix, name = "", "sampan", container_id
    if text:
        words = text.split(":")
        if len(words) != 3 or not words[2]:
            raise ValueError(
                "linux.cgroupsPath: expected cgroupsPath to be of format "
                f'"slice:prefix:name" for systemd cgroups, got "{text}" instead'
            )
        slice_name, prefix, name = words
    slice_name = slice_name or ("system.slice" if is_root else "user.slice")
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    _check_unit(unit)
    base = ""
    if not is_root:
        with connect() as manager:
            base = manager.control_group()
    return f"{base}{expand(slice_name)}/{unit}", unit


def _check_unit(unit: str) -> None:
    good = all(char.isascii() and (char.isalnum() or char in ":-_.\\@") for char in unit)
    if not good or len(unit) > _MAX_NAME:
        raise ValueError(f"linux.cgroupsPath: {unit!r} is not the name of a unit")


def expand(slice_name: str) -> str:
    """The path of a slice: `a-b.slice` lies in `a.slice`. Raises ValueError."""
    stem = slice_name.removesuffix(_SUFFIX)
    if stem == "-" and stem != slice_name:
        return ""
    parts = stem.split("-")
    if stem == slice_name or "" in parts or "/" in stem:
        raise ValueError(f"linux.cgroupsPath: invalid slice name: {slice_name}")
    _check_unit(slice_name)
    names = ["-".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return "".join(f"/{name}{_SUFFIX}" for name in names)


def slice_of(path: str) -> str:
    """The slice of the unit whose cgroup is at `path`."""
    name = path.split("/")[-2]
    return name if name.endswith(_SUFFIX) else f"-{_SUFFIX}"


class Scope(v2.Cgroup):
    """The cgroup of one scope unit: {"unit": its name, "properties": those asked for by name}.

    The last directory of the path but one is the slice.
    """

    __slots__ = ("extra", "unit")

    def __init__(self, path: str, scope: dict[str, Any]) -> None:
        super().__init__(path)
        self.unit: str = scope["unit"]
        self.extra: list[Property] = scope["properties"]

    def create(self, resources: dict[str, Any], first: int = 0) -> None:
        """Have the unit made around the process `first`; raises as `v2.Cgroup.create`."""
        rules = self.check(resources)
        properties = [
            *scope_properties.of_unit(self.unit, slice_of(self.path), first),
            *scope_properties.of_resources(resources, rules),
            *self.extra,
        ]
        with connect() as manager:
            manager.start(self.unit, properties)
        try:
            self._delegate()
            self.limit(resources, rules)
        except BaseException:
            self.kill()  # systemd would ask the processes first, and wait for their answer
            self.remove()
            raise

    def update(self, resources: dict[str, Any]) -> None:
        """As `v2.Cgroup.update`, and systemd is told, so that its next reload does not undo it."""
        writes = v2_limits.plan(resources, self.look)
        before = applying.change(writes, self._write, self.look)
        rules = None
        if resources.get("devices") is not None:
            rules = devices.policy(resources["devices"])
        try:
            with connect() as manager:
                told = scope_properties.of_resources(resources, rules)
                manager.set_properties(self.unit, told)
        except OSError:
            applying.take_back(before, self._write)
            raise
        # It has just written what it was told, in its own steps.
        applying.apply(writes, self._write)
        if rules is not None:
            self._set_devices(rules)

    def remove(self) -> None:
        """End the unit; what is left of the directory goes too. Raises as `v2.Cgroup.remove`."""
        with connect() as manager:
            manager.stop(self.unit)
        super().remove()
