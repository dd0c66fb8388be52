"""The operations that make what a container sees, as calls of a script (`assembly`): namespaces,
names, mounts, devices, covers, and the pivot.
"""

from __future__ import annotations

import errno
import os

from sampan.kernel import namespaces
from sampan.kernel import numbers as n
from sampan.kernel.machine import SYS, Label
from sampan.runtime import devices as d
from sampan.runtime import operations as o
from sampan.runtime import readiness
from sampan.runtime.calls import BENEATH, MISSING
from sampan.runtime.failure import NeedsInterpreter
from sampan.runtime.mountoptions import MountOptions
from sampan.runtime.unified import OwnCgroupMount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.runtime.assembly import Assembly, Writers


def _join(a: Assembly, one: o.JoinNamespace) -> None:
    a.calls.call(SYS["setns"], a.joins[one.kind], namespaces.KINDS[one.kind][0])


def _hostname(a: Assembly, one: o.Hostname) -> None:
    raw = os.fsencode(one.name)
    a.calls.call(SYS["sethostname"], raw, len(raw))


def _domainname(a: Assembly, one: o.Domainname) -> None:
    raw = os.fsencode(one.name)
    a.calls.call(SYS["setdomainname"], raw, len(raw))


def _sysctl(a: Assembly, one: o.Sysctl) -> None:
    fd = a.calls.open_host("/proc/sys/" + one.key.replace(".", "/"), os.O_WRONLY)
    raw = one.value.encode()
    a.calls.call(SYS["write"], fd, raw, len(raw))


def _propagation(a: Assembly, one: o.Propagation) -> None:
    (option,) = MountOptions([one.mode]).propagation
    if one.mode != "rslave":  # the blank has done that
        flags = option[0] | (n.MS_REC if option[1] else 0)
        a.calls.call(SYS["mount"], 0, b"/", 0, flags, 0)


def _attach_root(a: Assembly, one: o.AttachRoot) -> None:
    target = a.calls.open_host(one.at, os.O_PATH | os.O_DIRECTORY)
    a.calls.move_mount(a.root, target)
    a.calls.call(SYS["close"], target)  # a way to the host
    a.calls.set_attributes(a.root, propagation=one.own_propagation)


def _mount(a: Assembly, one: o.Mount) -> None:
    if MountOptions(one.options).propagation:
        raise NeedsInterpreter("propagation of a new file system")
    options = one.options
    if one.kind == "tmpfs" and not o.has_mode(options):
        mode = readiness.tmpfs_mode(a.open_root(), one.destination, a.mounted, a.fresh)
        options = [*mode, *options]
    mount = a.usual(one, options)
    if mount is None:
        mount = readiness.make(a.calls, one.kind, one.source, options)
    a.place(mount, one.destination, directory=True, fresh=one.kind == "tmpfs")


def _bind(a: Assembly, one: o.BindMount) -> None:
    mount, directory = a.source(one)
    options = MountOptions(one.options)
    private, *others = options.propagation or [(n.MS_PRIVATE, options.bind == "rbind")]
    if others or private[0] != n.MS_PRIVATE or options.recursive_on | options.recursive_off:
        raise NeedsInterpreter("a bind mount with recursive options or propagation")
    recursive = private[1]
    on, off = options.of_bind()
    if recursive and options.changes_attributes:
        a.calls.set_attributes(mount, on=on, off=off)
        a.calls.set_attributes(mount, propagation=n.MS_PRIVATE, recursive=True)
    else:
        a.calls.set_attributes(mount, on=on, off=off, propagation=n.MS_PRIVATE, recursive=recursive)
    a.place(mount, one.destination, directory=directory, fresh=False)


def _cgroup_mount(a: Assembly, one: o.CgroupMount) -> None:
    a.await_cgroup()
    top = a.cgroup_tree(one)
    a.place(top, one.destination, directory=True, fresh=False)
    for name, source in one.hierarchies:
        mount = a.calls.clone_tree(n.AT_FDCWD, source)
        a.calls.move_mount(mount, top, name)
    on = MountOptions(one.options).on
    a.calls.set_attributes(top, on=on, propagation=n.MS_PRIVATE, recursive=True)


def _own_cgroup(a: Assembly, one: OwnCgroupMount) -> None:
    a.await_cgroup()
    options = MountOptions(one.options)
    mount = a.calls.clone_tree(n.AT_FDCWD, one.directory)
    a.calls.set_attributes(mount, on=options.on, off=options.off, propagation=n.MS_PRIVATE)
    a.place(mount, one.destination, directory=True, fresh=False)


def _mask(a: Assembly, one: o.MaskPath) -> None:
    null, empty = a.masks()
    file, end = Label(), Label()
    flags = os.O_PATH | os.O_DIRECTORY
    target = a.calls.open(a.root, one.path, flags, BENEATH, tolerate=MISSING, at=file)
    a.calls.move_mount(readiness.mask_directory(a.calls, empty), target, then=end)
    a.calls.place(file)
    target = a.calls.open(a.root, one.path, os.O_PATH, BENEATH, tolerate=MISSING, at=end)
    a.calls.move_mount(readiness.mask_file(a.calls, null), target)
    a.calls.place(end)


def _read_only_path(a: Assembly, one: o.ReadonlyPath) -> None:
    end = Label()
    target = a.calls.open(a.root, one.path, os.O_PATH, BENEATH, tolerate=MISSING, at=end)
    mount = a.calls.clone_tree(target, recursive=True)
    a.calls.set_attributes(mount, on=n.MOUNT_ATTR_RDONLY, recursive=True)
    a.calls.move_mount(mount, target)
    a.calls.place(end)


def _read_only_root(a: Assembly, _one: o.ReadonlyRoot) -> None:
    a.calls.set_attributes(a.root, on=n.MOUNT_ATTR_RDONLY)


def _default_devices(a: Assembly, one: d.DefaultDevices) -> None:
    dev = a.fresh.get("/dev")
    if dev is None:
        raise NeedsInterpreter("a /dev that is not new")
    if not a.has_dev():
        readiness.fill_dev(a.calls, dev, one.configured)
        return
    for path in one.configured:
        a.calls.call(SYS["unlinkat"], dev, _name_in_dev(path).encode(), 0, tolerate=(errno.ENOENT,))


def _device(a: Assembly, one: d.Device) -> None:
    dev = a.fresh.get("/dev")
    if dev is None:
        raise NeedsInterpreter("a /dev that is not new")
    name = _name_in_dev(one.path)
    mode = d.KINDS[one.kind] | one.mode
    a.calls.make_node(dev, name, mode, os.makedev(one.major, one.minor))
    if one.uid or one.gid:
        flags = n.AT_SYMLINK_NOFOLLOW
        a.calls.call(SYS["fchownat"], dev, name.encode(), one.uid, one.gid, flags)


def _name_in_dev(path: str) -> str:
    head, _, name = path.rpartition("/")
    if head != "/dev" or name in ("", ".", ".."):
        raise NeedsInterpreter(f"a device at {path}")
    return name


def _pivot(a: Assembly, one: o.Pivot) -> None:
    a.calls.call(SYS["fchdir"], a.root)
    a.calls.call(SYS["pivot_root"], b".", b".")
    a.calls.call(SYS["umount2"], b".", n.MNT_DETACH)
    a.calls.call(SYS["fchdir"], a.root)
    if one.propagation:
        (option,) = MountOptions([one.propagation]).propagation
        flags = option[0] | (n.MS_REC if option[1] else 0)
        a.calls.call(SYS["mount"], 0, b"/", 0, flags, 0)


def _nothing(_a: Assembly, _one: o.Operation) -> None:
    """The blank has done it, or the machine needs it not."""


WRITERS: Writers = {
    OwnCgroupMount: _own_cgroup,
    d.DefaultDevices: _default_devices,
    d.Device: _device,
    d.ReadonlyMount: lambda a, one: a.calls.make_read_only(a.root, one.destination),
    o.AttachRoot: _attach_root,
    o.BindMount: _bind,
    o.CgroupMount: _cgroup_mount,
    o.Domainname: _domainname,
    o.Hostname: _hostname,
    o.JoinNamespace: _join,
    o.Loopback: _nothing,
    o.MaskPath: _mask,
    o.Mount: _mount,
    o.Pivot: _pivot,
    o.Propagation: _propagation,
    o.ReadonlyPath: _read_only_path,
    o.ReadonlyRoot: _read_only_root,
    o.Sysctl: _sysctl,
}
