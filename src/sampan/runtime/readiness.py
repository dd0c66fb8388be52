"""What a container-to-be does before it is told which container it becomes, as a script.

It dies with its parent, gives signals back, and makes ready in its new namespaces what most
containers want: mounts that wait as descriptors. Then it waits for its order, a script that lies at
another address and knows where the descriptors of this one are (`Ready`). What nobody took is
closed by the execve.
"""

from __future__ import annotations

import os
import stat
import struct

from sampan.kernel import loopback, machine, mounts, process
from sampan.kernel import numbers as n
from sampan.kernel.machine import SYS, Value
from sampan.kernel.paths import Root
from sampan.runtime import stock
from sampan.runtime.calls import Calls, Passed
from sampan.runtime.failure import NeedsInterpreter
from sampan.runtime.mountoptions import MountOptions
from sampan.runtime.operations import mode_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.runtime.written import Written

    Key = tuple[str, str, tuple[str, ...]]

CGROUP_OPTIONS = frozenset(("nosuid", "noexec", "nodev"))
"""As the engine writes them; read-only comes when the container's cgroups are bound."""
_MODES = frozenset(("ro", "rw", "relatime"))

# The new namespace that a file system shows; what is not here belongs to none.
_OWNERS = {"proc": "pid", "sysfs": "network", "mqueue": "ipc"}
_MAX_ORDER = 1 << 20
_SIGNALS = [number for number in range(1, 65) if number not in (9, 19)]
_SOCKET_INET, _SOCKET_DGRAM = 2, 2
_PROT_READ_WRITE = 3
_MAP_PRIVATE_FIXED = 0x12


_NAMESPACES = frozenset(("ipc", "mount", "network", "pid", "uts"))


def is_possible(kinds: frozenset[str]) -> bool:
    """Whether the machine can be the child in new namespaces of `kinds`."""
    return machine.is_available() and "mount" in kinds and kinds <= _NAMESPACES


class Ready:
    """The script of a blank, and where what it made lies.

    `mounts` are the usual ones by type, source and options; `nulls` is a read-only mount of the
    null device, `empty` one of an empty directory, `cgroups` a tmpfs with a directory for each
    hierarchy. `passed` are the descriptors that came with the order, the script itself first.
    `written` are scripts of orders that were given before.
    """

    __slots__ = (
        "cgroups",
        "dev",
        "empty",
        "image",
        "kinds",
        "mounts",
        "nulls",
        "passed",
        "written",
    )

    def __init__(
        self,
        kinds: frozenset[str],
        hierarchies: list[tuple[str, str]],
        links: list[tuple[str, str]],
    ) -> None:
        self.kinds = kinds
        self.written: Written | None = None
        self.mounts: dict[Key, Value] = {}
        self.dev: Value | None = None
        self.nulls: Value | None = None
        self.empty: Value | None = None
        self.cgroups: Value | None = None
        calls = Calls(machine.OWN_SCRIPT)
        _be_careful(calls)
        if "network" in kinds:
            bring_up_loopback(calls)
        if "mount" in kinds:
            calls.call(SYS["mount"], 0, b"/", 0, n.MS_SLAVE | n.MS_REC, 0)
            self._usual(calls)
            self._masks(calls)
            self.cgroups = cgroup_tree(calls, hierarchies, links) if hierarchies else None
        self.passed = _await_order(calls)
        self.image = machine.image(calls)

    def _usual(self, calls: Calls) -> None:
        for kind, source, options in stock.USUAL:
            owner = _OWNERS.get(kind)
            if owner is None or owner in self.kinds:
                key = kind, source, tuple(options)
                self.mounts[key] = make(calls, kind, source, options)
                if key[:2] == stock.DEV[:2]:
                    self.dev = self.mounts[key]
                    fill_dev(calls, self.dev, [])

    def _masks(self, calls: Calls) -> None:
        """Both are checked or made here; a mask is a clone of one of them."""
        self.nulls, self.empty = masks(calls)


def is_usual_cgroup(options: list[str]) -> bool:
    """Whether a cgroup mount with these options is what `cgroup_tree` makes."""
    return set(options) - _MODES == CGROUP_OPTIONS


def check_null() -> None:
    """Raises NeedsInterpreter where the host's /dev/null is not the null device."""
    found = os.stat("/dev/null")
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(1, 3):
        raise NeedsInterpreter("/dev/null of the host is not the null device")


def masks(calls: Calls) -> tuple[Value, Value | None]:
    """(a read-only mount of the null device, one of an empty directory), to be cloned.

    Where the kernel clones no detached mount, (a descriptor of the host's null device, None).
    """
    null = calls.open_host("/dev/null", os.O_PATH)
    if not mounts.clones_detached():
        return null, None
    nulls = calls.clone_tree(null)
    calls.set_attributes(nulls, on=n.MOUNT_ATTR_RDONLY)
    return nulls, _empty_directory(calls)


def mask_file(calls: Calls, nulls: Value) -> Value:
    """A mount that hides a file."""
    mount = calls.clone_tree(nulls)
    if not mounts.clones_detached():
        calls.set_attributes(mount, on=n.MOUNT_ATTR_RDONLY)
    return mount


def mask_directory(calls: Calls, empty: Value | None) -> Value:
    """A mount that hides a directory."""
    return _empty_directory(calls) if empty is None else calls.clone_tree(empty)


def _empty_directory(calls: Calls) -> Value:
    options: list[tuple[str, str | None]] = [("nr_blocks", "1"), ("nr_inodes", "1")]
    return calls.new_mount("tmpfs", [*options, ("ro", None)], "", n.MOUNT_ATTR_RDONLY)


def make(calls: Calls, kind: str, source: str, options: Iterable[str]) -> Value:
    """As `stock.make`."""
    parsed = MountOptions(list(options))
    data = list(parsed.data)
    if parsed.on & n.MOUNT_ATTR_RDONLY and kind != "tmpfs":
        data.append(("ro", None))
    return calls.new_mount(kind, data, source, parsed.on)


def fill_dev(calls: Calls, directory: Value, configured: list[str]) -> None:
    """The default devices and links in a new /dev, but for the devices that are `configured`."""
    for name, major, minor in stock.DEVICES:
        if f"/dev/{name}" not in configured:
            calls.make_node(directory, name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for name, target in stock.LINKS:
        calls.make_link(directory, name, target)


def _be_careful(calls: Calls) -> None:
    """Nobody may look into this process; it dies with its parent; signals are as they should be."""
    calls.call(SYS["fcntl"], machine.REPORT, 2, 1)  # F_SETFD, FD_CLOEXEC
    calls.prctl(n.PR_SET_DUMPABLE, 0)
    calls.prctl(n.PR_SET_PDEATHSIG, process.SIGKILL)
    calls.call(SYS["umask"], 0)
    nothing = calls.data(bytes(32))
    for number in _SIGNALS:
        calls.call(SYS["rt_sigaction"], number, nothing, 0, 8)
    calls.call(SYS["rt_sigprocmask"], 2, nothing, 0, 8)  # SIG_SETMASK


def bring_up_loopback(calls: Calls) -> None:
    """As `kernel.loopback`."""
    sock = calls.call(SYS["socket"], _SOCKET_INET, _SOCKET_DGRAM | os.O_CLOEXEC, 0)
    flags = loopback.IFF_UP | loopback.IFF_RUNNING
    request = calls.data(struct.pack("16sh22x", b"lo", flags))
    calls.call(SYS["ioctl"], sock, loopback.SIOCSIFFLAGS, request)
    calls.call(SYS["close"], sock)


def cgroup_tree(
    calls: Calls, hierarchies: list[tuple[str, str]], links: list[tuple[str, str]]
) -> Value:
    """A tmpfs with a directory for each hierarchy."""
    attributes = MountOptions(list(CGROUP_OPTIONS)).on & ~n.MOUNT_ATTR_RDONLY
    top = calls.new_mount("tmpfs", [("mode", "755")], "cgroup", attributes)
    for name, _ in hierarchies:
        calls.make_directories(top, name)
    for name, target in links:
        calls.make_link(top, name, target)
    return top


def _await_order(calls: Calls) -> Passed:
    """Take the order's descriptors, and go on with its script."""
    passed = calls.receive()
    order = machine.Label()
    order.address = machine.ORDER_BASE
    flags = _MAP_PRIVATE_FIXED
    calls.call(
        SYS["mmap"], machine.ORDER_BASE, _MAX_ORDER, _PROT_READ_WRITE, flags, passed[0], then=order
    )
    return passed


def make_mount_points(root: int, wanted: list[tuple[str, bool]]) -> None:
    """Make (path, whether it is a directory) below `root` where the root lacks it.

    Raises NeedsInterpreter: what cannot be made is not explained here.
    """
    try:
        for path, is_directory in wanted:
            make = Root(root).make_directories if is_directory else Root(root).make_file
            os.close(make(path))
    except (OSError, ValueError) as error:
        raise NeedsInterpreter(str(error)) from error


def tmpfs_mode(
    root: int, destination: str, mounted: list[str], fresh: dict[str, Value]
) -> list[str]:
    """As `operations.mode_of`, of what `root` has there, or a mount that is new and empty.

    `root` is closed. Raises NeedsInterpreter where another mount is what is covered.
    """
    path = os.path.normpath(destination)
    above = [one for one in mounted if path.startswith(one + "/")]
    try:
        if not above:
            return mode_of(Root(root), path)
    finally:
        os.close(root)
    if max(above, key=len) not in fresh:
        raise NeedsInterpreter(f"a tmpfs with the mode of {path} in another mount")
    return []
