"""Pure: a container of a pod becomes an OCI configuration.

The engine's own generator gives process, capabilities, devices and masks; what differs in a pod is
said here: whose namespaces, which files below /etc, the kubelet's mounts and limits. Nothing is
read and nothing is decided that was not decided at create.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sampan.engine import cdi, specgen
from sampan.pods.keeper import PROGRAM
from sampan.pods.model import Mode, Propagation
from sampan.version import OCI_RUNTIME_SPEC_VERSION

if TYPE_CHECKING:
    from sampan.engine.model import Container
    from sampan.pods.model import IdMapping, Mount, Notes, Resources, Sandbox

_RANKS = {Propagation.PRIVATE: 0, Propagation.HOST_TO_CONTAINER: 1, Propagation.BIDIRECTIONAL: 2}
_NOBODY = 65534
_SYS = ["rbind", "rprivate", "nosuid", "noexec", "nodev", "ro"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a container's sandbox is: pinned namespaces, files, and whose pid namespace (the
    directory of a process below /proc, "" for a new one or the node's)."""

    pinned: str
    files: str
    shared_processes: str = ""
    has_hugepages: bool = True
    edits: cdi.Edits = field(default_factory=cdi.Edits)


def generate(
    container: Container,
    cgroup: str,
    notes: Notes,
    sandbox: Sandbox,
    place: Place,
    trees: tuple[dict[str, Any], ...] = (),
) -> dict[str, Any]:
    """The configuration of one start of a container of `sandbox`; `trees` are mounts of images."""
    request = notes.request
    facts = specgen.Facts(
        cgroups_path=cgroup, host_devices=place_devices(container), edits=place.edits
    )
    spec = specgen.generate(container, facts)
    for word in ("hostname", "domainname"):
        spec.pop(word, None)
    spec["mounts"] = _mounts(spec["mounts"], notes, sandbox, place, trees)
    linux = spec["linux"]
    linux["namespaces"] = namespaces(notes, sandbox, place)
    linux["resources"] = {
        **linux["resources"],
        **resources(request.resources, has_hugepages=place.has_hugepages),
    }
    widest = max((_RANKS[mount.propagation] for mount in request.mounts), default=0)
    if widest:
        linux["rootfsPropagation"] = "rshared" if widest == 2 else "rslave"
    process = spec["process"]
    process["oomScoreAdj"] = request.resources.oom_score_adj
    _add_ambient(process, request.security.ambient)
    return spec


def keeper(cgroup: str, sandbox: Sandbox, place: Place) -> dict[str, Any]:
    """The configuration of the process that keeps the pod's pid namespace."""
    joined = [
        {"type": kind, "path": f"{place.pinned}/{name}"}
        for kind, name in _shared(sandbox)
        if kind != "uts"
    ]
    maps = ids(sandbox.config.namespaces.uids)
    users = [{"type": "user"}] if maps else []
    return {
        "ociVersion": OCI_RUNTIME_SPEC_VERSION,
        "root": {"path": "rootfs", "readonly": True},
        "process": {
            "terminal": False,
            "user": {"uid": _NOBODY, "gid": _NOBODY},
            "args": [PROGRAM],
            "env": [],
            "cwd": "/",
            "capabilities": {},
            "noNewPrivileges": True,
            "oomScoreAdj": -998,
        },
        "mounts": [
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "noexec", "mode=755", "size=64k"],
            }
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, *users, *joined],
            **({"uidMappings": maps, "gidMappings": maps} if maps else {}),
            "cgroupsPath": cgroup,
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }


def place_devices(container: Container) -> tuple[dict[str, Any], ...]:
    """Every device of the host for a privileged container."""
    from sampan.engine import devices

    return devices.host_devices() if container.host.privileged else ()


def _shared(sandbox: Sandbox) -> list[tuple[str, str]]:
    """(kind, pinned name) of the namespaces that the sandbox has."""
    asked = sandbox.config.namespaces
    found = []
    if asked.network is not Mode.NODE:
        found += [("network", "net"), ("uts", "uts")]
    if asked.ipc is not Mode.NODE:
        found.append(("ipc", "ipc"))
    return found


def pinned_kinds(sandbox: Sandbox) -> list[str]:
    """The names of the namespaces that are pinned for a sandbox."""
    return [name for _, name in _shared(sandbox)]


def namespaces(notes: Notes, sandbox: Sandbox, place: Place) -> list[dict[str, str]]:
    """The pod's namespaces by path, new ones for the rest, none where the node's are meant."""
    found: list[dict[str, str]] = [{"type": "mount"}]
    joined = place.shared_processes
    if sandbox.config.namespaces.uids:
        # A pid namespace's /proc is mounted only from within the user namespace that it belongs to.
        found.append({"type": "user", "path": f"{joined}/ns/user"} if joined else {"type": "user"})
    found += [{"type": kind, "path": f"{place.pinned}/{name}"} for kind, name in _shared(sandbox)]
    asked = notes.request.security.namespaces
    if joined:
        found.append({"type": "pid", "path": f"{joined}/ns/pid"})
    elif asked.pid is not Mode.NODE:
        found.append({"type": "pid"})
    if not notes.request.security.privileged:
        found.append({"type": "cgroup"})
    return found


def _mounts(
    defaults: list[dict[str, Any]],
    notes: Notes,
    sandbox: Sandbox,
    place: Place,
    trees: tuple[dict[str, Any], ...],
) -> list[dict[str, Any]]:
    """The engine's default mounts, the pod's files, and then what was asked for."""
    own = [_mount(mount) for mount in notes.request.mounts if mount.image is None]
    own += trees
    # Parents come before children; the sort keeps the order of the request otherwise.
    own.sort(key=lambda mount: mount["destination"].rstrip("/").count("/"))
    shm = "/dev/shm" if sandbox.config.namespaces.ipc is Mode.NODE else f"{place.pinned}/shm"
    shared = [
        _bind(shm, "/dev/shm"),
        _bind(f"{place.files}/hostname", "/etc/hostname"),
        _bind(f"{place.files}/hosts", "/etc/hosts"),
        _bind(f"{place.files}/resolv.conf", "/etc/resolv.conf"),
    ]
    replaced = {mount["destination"].rstrip("/") for mount in own}
    dropped = {"/dev/shm"}
    if sandbox.config.namespaces.uids:
        # New ones need rights over namespaces that are the pod's, not the container's.
        dropped |= {"/dev/mqueue", "/sys"}
        shared.insert(0, {**_bind("/sys", "/sys"), "options": _SYS})
    kept = [mount for mount in defaults if mount["destination"] not in dropped]
    kept += shared
    # /sys comes before what lies in it.
    kept.sort(key=lambda mount: mount["destination"] == "/sys/fs/cgroup")
    return [mount for mount in kept if mount["destination"] not in replaced] + own


def _bind(source: str, destination: str) -> dict[str, Any]:
    return {
        "destination": destination,
        "type": "bind",
        "source": source,
        "options": ["rbind", "rprivate"],
    }


def _mount(mount: Mount) -> dict[str, Any]:
    options = ["rbind", "rprivate"]
    if mount.propagation is not Propagation.PRIVATE:
        options = ["rbind", str(mount.propagation)]
    if mount.recursive_read_only:
        options.append("rro")
    elif mount.read_only:
        options.append("ro")
    content: dict[str, Any] = {
        "destination": mount.target,
        "type": "bind",
        "source": mount.source,
        "options": options,
    }
    if mount.uids:
        content["options"] = [*options, "idmap"]
        content["uidMappings"], content["gidMappings"] = map(ids, (mount.uids, mount.gids))
    return content


def ids(entries: tuple[IdMapping, ...]) -> list[dict[str, int]]:
    """Mappings in the words of the runtime specification."""
    return [
        {"containerID": one.container, "hostID": one.host, "size": one.length} for one in entries
    ]


def resources(limits: Resources, *, has_hugepages: bool = True) -> dict[str, Any]:
    """Limits in the words of the runtime specification; what is not set stays out."""
    found: dict[str, Any] = {}
    memory = {"limit": limits.memory, "swap": limits.memory_swap}
    cpu: dict[str, Any] = {
        "shares": limits.cpu_shares,
        "quota": limits.cpu_quota,
        "period": limits.cpu_period,
        "cpus": limits.cpuset_cpus,
        "mems": limits.cpuset_mems,
    }
    for name, group in (("memory", memory), ("cpu", cpu)):
        said = {key: value for key, value in group.items() if value}
        if said:
            found[name] = said
    if limits.hugepages and has_hugepages:
        found["hugepageLimits"] = [
            {"pageSize": size, "limit": limit} for size, limit in limits.hugepages.items()
        ]
    if limits.unified:
        found["unified"] = dict(limits.unified)
    return found


def _add_ambient(process: dict[str, Any], names: tuple[str, ...]) -> None:
    """Ambient capabilities must be inheritable, permitted and bounding, too (capabilities(7))."""
    if not names:
        return
    wanted = [name if name.startswith("CAP_") else f"CAP_{name}" for name in map(str.upper, names)]
    sets = process["capabilities"]
    for kind in ("bounding", "effective", "permitted"):
        sets[kind] = list(dict.fromkeys([*sets[kind], *wanted]))
    sets["inheritable"] = sets["ambient"] = wanted
