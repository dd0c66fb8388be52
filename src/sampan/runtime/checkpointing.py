"""`sampan-oci checkpoint`: a container's processes as files, by CRIU.

CRIU is told what of the container is not inside of it: what was bound from the host (masked files
are bound from /dev/null), a network namespace that belongs to somebody else, standard streams that
were opened on the host (/dev/null), and that the other end of its terminal is elsewhere.
`descriptors.json` beside the images, as runc has it, names what the standard streams were.
"""

from __future__ import annotations

import os

from sampan.jsontext import encode
from sampan.kernel.paths import Root
from sampan.runtime import criu, criu_images, criu_words, sharedmounts, verbs
from sampan.runtime.arguments import Parsed, UsageError
from sampan.runtime.failure import RuntimeFailure
from sampan.runtime.plan import is_bind
from sampan.runtime.state import StateDirectory, status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.criu_words import Value

DESCRIPTORS = "descriptors.json"
FILE = "file["  # how CRIU's name of a file of the host begins
NETWORK = "extRootNetNS"
_NULL = "/dev/null"
_DUMP = ("leave-running", "tcp-skip-in-flight", "link-remap")


def checkpoint(root: str, container_id: str, options: Parsed) -> None:
    """Write the container's processes to `--image-path`; it ends, unless it is to go on.

    Raises:
        NoSuchContainer: there is none of that id.
        RuntimeFailure: it does not run, or CRIU cannot.
    """
    directory = StateDirectory(root, container_id)
    state = directory.load()
    status = status_of(directory, state)
    if status not in ("running", "paused"):
        raise RuntimeFailure(0, f"container cannot be checkpointed in {status} state")
    sharedmounts.refuse(state, "checkpoint")
    first = options.on("pre-dump")
    places = criu.Places(options)
    log = f"{places.work}/dump.log"
    try:
        asked = criu.shared(places, state["config"], options, log)
        asked |= {**_dump_options(options, places.images), **_described(state)}
        streams = [_stream(state["pid"], number) for number in range(3)]
        outside = dict.fromkeys(one for one in streams if one.startswith(FILE))
        asked["external"] = [*_external(state), *outside]

        def notified(notice: str, pid: int, passed: list[int]) -> None:
            if notice == "status-ready" and "status-fd" in options.flags:
                os.write(options.number("status-fd"), b"\0")
                os.close(options.number("status-fd"))

        own_pid = _own_pid(state["pid"])
        kind = criu_words.PRE_DUMP if first else criu_words.DUMP
        # Before the dump, which with lazy pages goes on until they have been restored elsewhere.
        with open(f"{places.images}/{DESCRIPTORS}", "w", encoding="utf-8") as file:
            file.write(encode(streams))
        criu.call(kind, asked, notified, options, log)
        if not first:
            criu_images.forget_parent(places.images, own_pid)
    finally:
        places.close()
    if not first and not options.on("leave-running"):
        verbs.delete(root, container_id, force=True)


def _described(state: dict[str, Any]) -> dict[str, Value]:
    """Which processes, and the cgroup that stops them while they are written."""
    found: dict[str, Value] = {"pid": state["pid"]}
    paths = state.get("cgroup_paths") or {}
    freezer = paths.get("freezer") or paths.get("")
    return {**found, "freeze_cgroup": freezer} if freezer else found


def _external(state: dict[str, Any]) -> list[str]:
    """CRIU's words for what is not the container's own."""
    spec = state["config"]
    root = os.open(state["rootfs"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        points = external_mounts(spec, root)
    finally:
        os.close(root)
    words = [f"mnt[{point}]:{point}" for point in points]
    return words + [f"net[{os.stat(path).st_ino}]:{NETWORK}" for path in network_paths(spec)]


def _dump_options(options: Parsed, images: str) -> dict[str, Value]:
    found: dict[str, Value] = {flag.replace("-", "_"): options.on(flag) for flag in _DUMP}
    if options.on("pre-dump"):
        found["track_mem"] = True
    if options.text("parent-path"):
        parent = options.text("parent-path")
        if os.path.isabs(parent) or not os.path.isdir(f"{images}/{parent}"):
            raise UsageError("--parent-path must be a directory, relative to the image path")
        found |= {"parent_img": parent, "track_mem": True}
    if options.text("page-server"):
        address, colon, port = options.text("page-server").rpartition(":")
        if not colon or not port.isdigit():
            raise UsageError("Use --page-server ADDRESS:PORT to specify page server")
        found["ps"] = criu_words.page_server(address, int(port))
    return found


def external_mounts(spec: dict[str, Any], root: int) -> dict[str, str]:
    """Mount point to source of everything that was bound from the host, in the root file system
    behind the descriptor `root`, whose links have been followed."""
    found = {}
    for mount in spec.get("mounts") or []:
        if is_bind(mount):
            found[_settled(root, mount["destination"])] = mount.get("source") or ""
        elif mount.get("type") in ("cgroup", "cgroup2"):
            found[mount["destination"]] = mount["destination"]
    linux = spec.get("linux") or {}
    for path in linux.get("maskedPaths") or []:
        if _is_file(root, path):
            found[path] = _NULL
    return found


def _is_file(root: int, path: str) -> bool:
    """Proc and sysfs look the same everywhere; what is in the root is seen there."""
    if path.startswith(("/proc/", "/sys/")):
        return os.path.exists(path) and not os.path.isdir(path)
    try:
        fd = Root(root).open_path(path)
    except OSError:
        return False
    try:
        return not os.path.isdir(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _settled(root: int, path: str) -> str:
    """`path` without the links of the root file system; its end as it is, where that is missing."""
    path = os.path.normpath(path)
    try:
        fd = Root(root).open_path(path)
    except OSError:
        above, _, name = path.rpartition("/")
        return f"{_settled(root, above or '/').rstrip('/')}/{name}" if name else path
    try:
        base, found = (os.readlink(f"/proc/self/fd/{one}") for one in (root, fd))
        return found.removeprefix(base.rstrip("/")) or "/"
    finally:
        os.close(fd)


def network_paths(spec: dict[str, Any]) -> list[str]:
    """The network namespaces of others that the container is in."""
    spaces = (spec.get("linux") or {}).get("namespaces") or []
    return [one["path"] for one in spaces if one["type"] == "network" and one.get("path")]


def _stream(pid: int, number: int) -> str:
    """What a standard stream is, "" when it is closed; CRIU's name of a file of the host's."""
    try:
        name = os.readlink(f"/proc/{pid}/fd/{number}")
        if not name.startswith("/") or _mount_of(pid, number) in _mounts(pid):
            return name
        inode = os.stat(f"/proc/{pid}/fd/{number}").st_ino
        return f"{FILE}{_mount_of(pid, number):x}:{inode:x}]"
    except FileNotFoundError:
        return ""


def _own_pid(pid: int) -> int:
    """The process's number in its own namespace."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="surrogateescape") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    return int(fields["NSpid"].split()[-1])


def _mount_of(pid: int, number: int) -> int:
    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
    return int(fields["mnt_id"])


def _mounts(pid: int) -> set[int]:
    """The mounts that the process sees."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return {int(line.partition(" ")[0]) for line in file}
