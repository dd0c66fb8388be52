"""Pure: an OCI configuration becomes the ordered operations that make the container.

No privilege, no file and no system call takes part here, so a plan can be printed (`sampan-oci
plan`) and tested anywhere. Facts of the machine that a plan needs come in by `Facts`.

The order is the security of the container: namespaces of others, cgroup, settings of the new
namespaces, mounts below the attached root, masks, pivot, session, gate, then limits, user,
capabilities, seccomp, execve.
"""

from __future__ import annotations

from sampan.kernel.namespaces import KINDS
from sampan.runtime import credentials as c
from sampan.runtime import devices as d
from sampan.runtime import operations as o

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Packed = tuple[list[tuple[str, list[object]]], list[tuple[str, list[object]]]]

# Fields that few configurations have; their rules and operations are in `extensions`.
RARE_PROCESS = frozenset(
    ("apparmorProfile", "selinuxLabel", "scheduler", "ioPriority", "execCPUAffinity")
)
RARE_LINUX = frozenset(("intelRdt", "memoryPolicy", "mountLabel", "netDevices", "personality"))
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_UMASK = 0o022


class Facts:
    """What the machine adds to a plan.

    `attach_at`: a directory of the host on which the root is attached, inside the new mount
    namespace. `hierarchies`, `cgroup_links`: see CgroupMount. `unified`: the cgroup of v2, or "".
    `die_with_parent`: whether the container must not outlive the process that starts it.
    `root_path`: of the root file system, where the container binds it, and the sources of its other
    bind mounts, itself. `has_score`: whether oom_score_adj was set at birth.
    `described`: the OCI state that hooks inside read, where there are any.
    `listener`: (the number of the connection to a seccomp agent among the sources, what it is
    told), where there is one.
    """

    __slots__ = (
        "attach_at",
        "cgroup",
        "cgroup_links",
        "described",
        "die_with_parent",
        "has_score",
        "hierarchies",
        "listener",
        "root_path",
        "sealed",
        "unified",
    )

    def __init__(self, attach_at: str, cgroup: str = "") -> None:
        self.attach_at = attach_at
        self.cgroup = cgroup
        self.hierarchies: list[tuple[str, str]] = []
        self.cgroup_links: list[tuple[str, str]] = []
        self.unified = ""
        self.die_with_parent = False
        self.sealed = True
        self.root_path = ""
        self.has_score = False
        self.described: dict[str, Any] = {}
        self.listener: tuple[int, str] | None = None

    def plain(self) -> list[object]:
        """All of it, to compare."""
        return [getattr(self, name) for name in self.__slots__]


class Plan:
    """The operations before and after the start gate."""

    __slots__ = ("after_gate", "before_gate")

    def __init__(self) -> None:
        self.before_gate: list[o.Operation] = []
        self.after_gate: list[o.Operation] = []

    def pack(self) -> Packed:
        """As plain data, for the child: what it need not build costs it nothing."""
        return _pack(self.before_gate), _pack(self.after_gate)

    @classmethod
    def unpack(cls, packed: Packed) -> Plan:
        """The inverse of `pack`."""
        plan = cls()
        plan.before_gate, plan.after_gate = map(_unpack, packed)
        return plan


def _pack(operations: list[o.Operation]) -> list[tuple[str, list[object]]]:
    packed: list[tuple[str, list[object]]] = []
    for one in operations:
        slots: tuple[str, ...] = type(one).__slots__
        packed.append((type(one).__name__, [getattr(one, slot) for slot in slots]))
    return packed


def _unpack(packed: list[tuple[str, list[object]]]) -> list[o.Operation]:
    operations = []
    for name, values in packed:
        kind = o.OPERATIONS[name]
        one = kind.__new__(kind)
        slots: tuple[str, ...] = kind.__slots__
        for slot, value in zip(slots, values, strict=True):
            setattr(one, slot, value)
        operations.append(one)
    return operations


def namespaces(spec: dict[str, Any]) -> tuple[list[str], list[tuple[str, str]]]:
    """(kinds that are made new, (kind, path) of those that are joined)."""
    new, join = [], []
    for namespace in (spec.get("linux") or {}).get("namespaces") or []:
        if namespace.get("path"):
            join.append((namespace["type"], namespace["path"]))
        else:
            new.append(namespace["type"])
    return new, join


def shares_mounts(linux: dict[str, Any]) -> bool:
    """Whether the mounts of the container are among the caller's: it has no mount namespace."""
    return not any(one["type"] == "mount" for one in linux.get("namespaces") or [])


def clone_flags(kinds: list[str]) -> int:
    """The flags of clone3 for new namespaces; a new cgroup namespace comes after joining."""
    flags = 0
    for kind in kinds:
        if kind != "cgroup":
            flags |= KINDS[kind][0]
    return flags


def build(spec: dict[str, Any], facts: Facts) -> Plan:
    """The plan of `spec`, which `validate.check` has accepted."""
    plan = Plan()
    linux = spec.get("linux") or {}
    new, join = namespaces(spec)
    before = plan.before_gate
    before += [o.JoinNamespace(kind, path) for kind, path in _join_order(join)]
    if "user" in new or any(kind == "user" for kind, _ in join):
        before += _own_users(spec, linux, new, facts)
    before += _settings(spec, linux, new, facts)
    early, late = rare_operations(spec["process"], linux, is_exec=False)
    before += early
    before += _mounts(spec, linux, facts)
    group = [o.JoinCgroup(facts.cgroup, unshare="cgroup" in new)] if facts.cgroup else []
    if spec.get("hooks"):
        before += [*group, *_hooks_inside(spec, facts), *_covers(spec, linux)]
    else:
        before += [*_covers(spec, linux), *group]
    terminal = bool(spec["process"].get("terminal"))
    before.append(c.Session(terminal=terminal))
    before += late
    before += locate(spec["process"], create_directory=True)
    plan.after_gate = become(spec["process"], linux, die_with_parent=facts.die_with_parent)
    if not facts.sealed:
        plan.after_gate.insert(0, c.Trampoline(spec["process"].get("preserveFds") or 0))
    if spec.get("hooks"):
        plan.after_gate[-1:-1] = _start_hooks(spec, facts)
    if facts.listener is not None:
        from sampan.runtime import listener

        listener.put(before, plan.after_gate, *facts.listener)
    return plan


def is_rare(process: dict[str, Any], linux: dict[str, Any]) -> bool:
    """Whether there is a field that few configurations have."""
    return not (RARE_PROCESS.isdisjoint(process) and RARE_LINUX.isdisjoint(linux))


def rare_operations(
    process: dict[str, Any], linux: dict[str, Any], *, is_exec: bool
) -> tuple[list[o.Operation], list[o.Operation]]:
    """What the rarer fields ask for: while /proc is the host's, and once the cgroup is joined."""
    if not is_rare(process, linux):
        return [], []
    from sampan.runtime import extensions

    return extensions.operations(process, linux, is_exec=is_exec)


def _hooks_inside(spec: dict[str, Any], facts: Facts) -> list[o.Operation]:
    """The hooks at the point where everything is mounted and the host's tree still there.

    The cgroup is joined before, so that it holds what the hooks start inside; covers come after,
    because a hook may still have files to put into the root.
    """
    from sampan.runtime import hooks as h

    found = spec["hooks"]
    operations: list[o.Operation] = []
    if found.get("prestart") or found.get("createRuntime"):
        operations.append(h.RuntimeHooks())
    if found.get("createContainer"):
        state = {**facts.described, "status": "creating"}
        operations.append(h.ContainerHooks("createContainer", found["createContainer"], state, []))
    return operations


def _start_hooks(spec: dict[str, Any], facts: Facts) -> list[o.Operation]:
    """startContainer hooks: inside, with the credentials and the environment of the command."""
    from sampan.runtime import hooks as h

    found = spec["hooks"].get("startContainer")
    if not found:
        return []
    environment = with_home(spec["process"].get("env") or [], spec["process"].get("user") or {})
    state = {**facts.described, "status": "created"}
    return [h.ContainerHooks("startContainer", found, state, environment)]


def _join_order(join: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Mount comes last: the paths of the others were opened by the parent, but /proc goes with it.

    The pid namespace is joined by the parent, because it takes effect on children only.
    """
    order = ("user", "network", "ipc", "uts", "cgroup", "time", "mount")
    ranked = [entry for entry in join if entry[0] in order]
    return sorted(ranked, key=lambda entry: order.index(entry[0]))


def _own_users(
    spec: dict[str, Any], linux: dict[str, Any], new: list[str], facts: Facts
) -> list[o.Operation]:
    from sampan.runtime import mappings

    maps = [linux.get(key) or [] for key in ("uidMappings", "gidMappings")]
    operations: list[o.Operation] = []
    if facts.root_path:  # while we may still walk to it
        operations.append(mappings.BindRoot(facts.root_path))
    operations.append(mappings.BecomeRoot(*(maps if "user" in new else [[], []])))
    return operations


def _settings(
    spec: dict[str, Any], linux: dict[str, Any], new: list[str], facts: Facts
) -> list[o.Operation]:
    """Settings of the new namespaces, made while /proc is the host's."""
    operations: list[o.Operation] = []
    if "network" in new:
        operations.append(o.Loopback())
    if spec.get("hostname") and "uts" in new:
        operations.append(o.Hostname(spec["hostname"]))
    if spec.get("domainname") and "uts" in new:
        operations.append(o.Domainname(spec["domainname"]))
    for key, value in (linux.get("sysctl") or {}).items():
        operations.append(o.Sysctl(key.replace("/", "."), value))
    if spec["process"].get("oomScoreAdj") is not None and not facts.has_score:
        operations.append(c.OomScore(spec["process"]["oomScoreAdj"]))
    return operations


def _mounts(spec: dict[str, Any], linux: dict[str, Any], facts: Facts) -> list[o.Operation]:
    """What is put into the mount namespace.

    What is mounted on a read-only tmpfs needs its place there: that is made read-only at last.
    """
    propagation = linux.get("rootfsPropagation") or ""
    mode = "rprivate" if propagation in ("private", "rprivate") else "rslave"
    operations: list[o.Operation] = [] if shares_mounts(linux) else [o.Propagation(mode)]
    operations.append(o.AttachRoot(facts.attach_at, propagation))
    binds = 0
    finished: list[o.Operation] = []
    for mount in spec.get("mounts") or []:
        if is_read_only_tmpfs(mount):
            options = [word for word in mount["options"] if word != "ro"]
            operations += _mount({**mount, "options": options}, linux, facts)
            finished.append(d.ReadonlyMount(mount["destination"]))
        elif is_bind(mount):
            is_locked = any(one["type"] == "user" for one in linux.get("namespaces") or [])
            operations.append(_bind(mount, -1 if facts.root_path else binds, is_locked=is_locked))
            binds += 1
        else:
            operations += _mount(mount, linux, facts)
    return [*operations, *_devices(spec, linux), *finished]


def is_read_only_tmpfs(mount: dict[str, Any]) -> bool:
    """Whether a tmpfs is read-only in the end; one with a copy sees to that itself."""
    options = mount.get("options") or []
    return mount.get("type") == "tmpfs" and "ro" in options and "tmpcopyup" not in options


def _covers(spec: dict[str, Any], linux: dict[str, Any]) -> list[o.Operation]:
    """What is taken from the container's view afterwards, and the pivot."""
    operations: list[o.Operation] = [
        o.ReadonlyPath(path) for path in linux.get("readonlyPaths") or []
    ]
    operations += [o.MaskPath(path) for path in dict.fromkeys(linux.get("maskedPaths") or [])]
    if spec["root"].get("readonly"):
        operations.append(o.ReadonlyRoot(spec["process"].get("cwd") or "/"))
    if shares_mounts(linux):
        from sampan.runtime.sharedmounts import ChangeRoot

        operations.append(ChangeRoot())
    elif spec["root"].get("noPivot"):
        from sampan.runtime.variants import MoveRoot

        operations.append(MoveRoot())
    else:
        operations.append(o.Pivot(linux.get("rootfsPropagation") or ""))
    return operations


def is_bind(mount: dict[str, Any]) -> bool:
    """Whether an entry of `mounts` is a bind mount: by its type, or by its options."""
    options = mount.get("options") or []
    return (mount.get("type") or "bind") == "bind" or "bind" in options or "rbind" in options


def is_idmapped(mount: dict[str, Any]) -> bool:
    """Whether the mount shows other owners than its source has."""
    options = mount.get("options") or []
    return (
        "uidMappings" in mount
        or "gidMappings" in mount
        or "idmap" in options
        or "ridmap" in options
    )


def _bind(mount: dict[str, Any], index: int, *, is_locked: bool) -> o.Operation:
    options = list(mount.get("options") or [])
    if "bind" not in options and "rbind" not in options:
        options.append("bind")
    if is_idmapped(mount) and "ridmap" not in options:
        options.append("idmap")  # mappings say so without the word
    source, destination = mount.get("source") or "", mount["destination"]
    return o.BindMount(source, destination, options, index, is_locked=is_locked)


def _mount(mount: dict[str, Any], linux: dict[str, Any], facts: Facts) -> list[o.Operation]:
    options = list(mount.get("options") or [])
    kind, destination = mount.get("type") or "bind", mount["destination"]
    source = mount.get("source") or ""
    if kind == "cgroup" and not facts.unified:
        links = facts.cgroup_links
        return [o.CgroupMount(destination, options, facts.hierarchies, links)]
    if kind in ("cgroup", "cgroup2"):
        kind = "cgroup2"
        if facts.unified and _is_new("cgroup", linux):
            from sampan.runtime.unified import OwnCgroupMount

            return [OwnCgroupMount(destination, options, facts.unified)]
    if linux.get("mountLabel"):
        from sampan.runtime import labels

        options = labels.mount_options(kind, options, linux["mountLabel"])
    if kind == "tmpfs" and "tmpcopyup" in options:
        from sampan.runtime.copyup import CopiedUpTmpfs

        return [CopiedUpTmpfs(source, destination, options)]
    return [o.Mount(kind, source, destination, options)]


def _is_new(kind: str, linux: dict[str, Any]) -> bool:
    spaces = linux.get("namespaces") or []
    return any(space["type"] == kind and not space.get("path") for space in spaces)


def _devices(spec: dict[str, Any], linux: dict[str, Any]) -> list[o.Operation]:
    """Nodes and links, unless /dev itself is a bind mount of the host's."""
    for mount in spec.get("mounts") or []:
        if mount["destination"].rstrip("/") == "/dev" and is_bind(mount):
            return []
    # ptmx is always the link to the container's own devpts, as under runc.
    configured = [one for one in linux.get("devices") or [] if one["path"] != "/dev/ptmx"]
    operations: list[o.Operation] = [d.DefaultDevices([device["path"] for device in configured])]
    for device in configured:
        node = d.Device(
            device["path"],
            device["type"],
            device.get("major", 0),
            device.get("minor", 0),
            device.get("fileMode", 0o666) & 0o7777,
            device.get("uid") or 0,
            device.get("gid") or 0,
        )
        operations.append(node)
    if spec["process"].get("terminal"):
        relayed = bool(spec["process"].get("relayed"))
        operations.append(d.Console(console_size(spec["process"]), relayed=relayed))
    return operations


def console_size(process: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) of the terminal, or None where the process names none."""
    size = process.get("consoleSize") or {}
    if not size.get("height") and not size.get("width"):
        return None
    return size.get("height", 0), size.get("width", 0)


def locate(process: dict[str, Any], *, create_directory: bool) -> list[o.Operation]:
    """The working directory and the program, which must exist before the start."""
    search = DEFAULT_PATH
    for entry in process.get("env") or []:
        if entry.startswith("PATH="):
            search = entry[5:]
    operations: list[o.Operation] = []
    if process.get("keyring"):
        from sampan.runtime.variants import SessionKeyring

        operations.append(SessionKeyring(process["keyring"]))
    return [
        *operations,
        c.Directory(process.get("cwd") or "/", create=create_directory),
        c.FindProgram(process["args"][0], search.split(":")),
    ]


def become(
    process: dict[str, Any], linux: dict[str, Any], *, die_with_parent: bool
) -> list[o.Operation]:
    """From the start gate to execve: the same for the first process and for every exec.

    Without no_new_privs a filter can be loaded only by CAP_SYS_ADMIN, so it is loaded before the
    capabilities are cut; with it, as late as possible.
    """
    user = process.get("user") or {}
    sets = process.get("capabilities") or {}
    quiet = bool(process.get("noNewPrivileges"))
    operations = _limits_and_user(process, user, sets)
    final: o.Operation = c.Capabilities(
        sets.get("effective") or [],
        sets.get("permitted") or [],
        sets.get("inheritable") or [],
        sets.get("ambient") or [],
    )
    filtered: list[o.Operation] = [c.Seccomp()] if linux.get("seccomp") else []
    if quiet:
        operations += [final, c.NoNewPrivileges()]
    else:
        operations += [*filtered, final]
        filtered = []
    if die_with_parent:
        operations.append(c.DieWithParent())
    operations += filtered
    environment = with_home(process.get("env") or [], user)
    operations.append(c.Execute(process["args"], environment, process.get("preserveFds") or 0))
    return operations


def _limits_and_user(
    process: dict[str, Any], user: dict[str, Any], sets: dict[str, Any]
) -> list[o.Operation]:
    umask = DEFAULT_UMASK if user.get("umask") is None else user["umask"]
    groups = list(user.get("additionalGids") or [])
    return [
        *(
            c.Limit(limit["type"], limit.get("soft", 0), limit.get("hard", 0))
            for limit in process.get("rlimits") or []
        ),
        c.Bounding(sets.get("bounding") or []),
        c.User(user.get("uid") or 0, user.get("gid") or 0, groups, umask),
        c.KeepCapabilities(),
        c.LetGo(process.get("preserveFds") or 0),
    ]


def with_home(environment: list[str], user: dict[str, Any]) -> list[str]:
    """The environment, with the HOME that the parent found for the user where none is named."""
    homes = [entry for entry in environment if entry.startswith("HOME=")]
    if homes and homes[-1] != "HOME=":  # of several the last counts, an empty one is none
        return environment
    others = [entry for entry in environment if not entry.startswith("HOME=")]
    return [*others, "HOME=" + (user.get("home") or "/")]
