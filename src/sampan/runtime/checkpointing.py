"""`sampan-oci checkpoint` and `restore`: a container's processes as files, and back, by CRIU.

CRIU is another program, called as `criu` from PATH. It is told what of the container is not inside
of it: the root file system, what was bound from the host (masked files are bound from /dev/null),
the cgroup's directory, a network namespace that belongs to somebody else, and standard streams that
were opened on the host (/dev/null). `descriptors.json` beside the images, as runc has it, names
what the standard streams were.

A restored container is made by CRIU in a mount namespace of this process alone, so that the mount
of the root file system that it wants is gone with us. Terminals are refused: their other end is not
here.
"""

from __future__ import annotations

import os

from sampan.jsontext import decode, encode
from sampan.kernel import cgroups, mounts, namespaces
from sampan.kernel import numbers as n
from sampan.runtime import bundle, facts, launch, passing, shapes, shortcut, verbs
from sampan.runtime.arguments import Parsed, UsageError
from sampan.runtime.calling import forward_signals, wait, write_pid
from sampan.runtime.failure import RuntimeFailure
from sampan.runtime.plan import is_bind
from sampan.runtime.state import StateDirectory, status_of
from sampan.runtime.validate import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTORS = "descriptors.json"
MODES = ("soft", "full", "strict", "ignore")
_NETWORK = "extRootNetNS"
_NULL = "/dev/null"
_FILE = "file["
# Flags of ours that CRIU has too, by another name or the same, in both directions.
_COMMON = {
    "tcp-established": "--tcp-established",
    "ext-unix-sk": "--ext-unix-sk",
    "shell-job": "--shell-job",
    "file-locks": "--file-locks",
    "auto-dedup": "--auto-dedup",
    "lazy-pages": "--lazy-pages",
}
_DUMP = {
    "leave-running": "--leave-running",
    "tcp-skip-in-flight": "--skip-in-flight",
    "link-remap": "--link-remap",
}
_TOLD = 8  # lines of CRIU's log in an error


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
    spec = state["config"]
    images, work = _directories(directory, options)
    words = ["pre-dump" if options.on("pre-dump") else "dump", "--tree", str(state["pid"])]
    words += [*_shared_words(options, images, work), *_dump_words(options, images)]
    if status == "paused":
        words += ["--freeze-cgroup", _freezer(state)]  # CRIU leaves it paused as well
    _refuse_terminal(spec)
    for point in _external(spec, state["rootfs"]):
        words += ["--external", f"mnt[{point}]:{point}"]
    for path in _network_paths(spec):
        words += ["--external", f"net[{os.stat(path).st_ino}]:{_NETWORK}"]
    streams = [_stream(state["pid"], number) for number in range(3)]
    for name in dict.fromkeys(one for one in streams if one.startswith(_FILE)):
        words += ["--external", name]
    _criu(words, f"{work}/dump.log", options)
    with open(f"{images}/{DESCRIPTORS}", "w", encoding="utf-8") as file:
        file.write(encode(streams))
    if not options.on("pre-dump") and not options.on("leave-running"):
        verbs.delete(root, container_id, force=True)


def restore(root: str, container_id: str, options: Parsed) -> int:
    """Make the container of a bundle from the images; as `run`, the exit code or 0 if detached.

    Raises:
        InvalidConfig: the bundle is refused.
        RuntimeFailure: CRIU cannot; everything was undone.
    """
    where = bundle.directory(options.text("bundle"))
    spec = bundle.load(where)
    shapes.check(spec, shapes.CONFIG)
    check(spec)
    _refuse_terminal(spec)
    _refuse_scope(options)
    record = launch.first_record(spec, container_id, where, options)
    directory = StateDirectory(root, container_id)
    directory.make()
    group = cgroups.recorded(record)
    try:
        directory.save(record)
        group.create(spec["linux"].get("resources") or {})
        pid = _restored(directory, spec, where, group, options)
    except BaseException:
        group.kill()
        group.remove()
        directory.remove()
        raise
    pidfd = os.pidfd_open(pid)
    _record(directory, record, spec, pid, group)
    if options.text("pid-file"):
        write_pid(options.text("pid-file"), pid)
    if options.text("pidfd-socket"):
        passing.hand_pidfd(options.text("pidfd-socket"), pidfd)
    if options.on("detach"):
        return 0
    forward_signals(pidfd)
    code = wait(pidfd)
    verbs.delete(root, container_id, force=True)
    return code


def _restored(
    directory: StateDirectory,
    spec: dict[str, Any],
    where: str,
    group: cgroups.Cgroup,
    options: Parsed,
) -> int:
    """Have CRIU restore it; the pid of its first process, which is our child."""
    images, work = _directories(directory, options)
    rootfs = os.path.join(where, spec["root"]["path"])
    namespaces.unshare(n.CLONE_NEWNS)
    mounts.set_propagation("/", n.MS_REC | n.MS_SLAVE)
    fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = mounts.clone_tree(fd, recursive=True)
    mounts.move_mount(tree, fd)
    pid_file = f"{work}/restored.pid"
    words = ["restore", "--restore-detached", "--restore-sibling", "--pidfile", pid_file]
    words += ["--root", rootfs, *_shared_words(options, images, work)]
    sources = {**_external(spec, rootfs), **_cgroup_mounts(spec, group)}
    for point, source in sources.items():
        words += ["--external", f"mnt[{point}]:{source}"]
    for flag in ("lsm-profile", "lsm-mount-context"):
        if options.text(flag):
            words += [f"--{flag}", options.text(flag)]
    passed = _inherited(images, words)
    for path in _network_paths(spec):
        passed.append(os.open(path, os.O_RDONLY))
        words += ["--inherit-fd", f"fd[{passed[-1]}]:{_NETWORK}"]
    if os.path.exists(pid_file):
        os.unlink(pid_file)
    _criu(words, f"{work}/restore.log", options, passed)
    with open(pid_file, encoding="ascii") as file:
        pid = int(file.read())
    _move(group, pid)
    return pid


def _move(group: cgroups.Cgroup, pid: int) -> None:
    """A process and all below it into the cgroup, though they run already, and fork and end.

    What one has forked before it was moved is seen afterwards, if not in the first round.
    """
    group.join(pid)
    moved = {pid}
    while found := [one for one in _family(pid) if one not in moved]:
        for one in found:
            moved.add(one)
            try:
                group.join(one)
            except ProcessLookupError:
                continue


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        try:
            with open(f"/proc/{one}/task/{one}/children", encoding="ascii") as file:
                found += [int(word) for word in file.read().split()]
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
    return found


def _record(
    directory: StateDirectory,
    record: dict[str, Any],
    spec: dict[str, Any],
    pid: int,
    group: cgroups.Cgroup,
) -> None:
    state = {
        **record,
        **facts.record(record["id"], pid, record["bundle"], record["cgroup"], spec),
        "cgroup_paths": group.names(),
        "rootfs": os.path.join(record["bundle"], spec["root"]["path"]),
        "config": spec,
    }
    directory.save(state)
    shortcut.write(directory, state)


def _refuse_scope(options: Parsed) -> None:
    """A scope has a process from its beginning; CRIU makes it only when the cgroup is there."""
    if options.on("systemd-cgroup"):
        raise RuntimeFailure(0, "restore: a container cannot be restored into a unit of systemd")


def _refuse_terminal(spec: dict[str, Any]) -> None:
    if spec["process"].get("terminal"):
        raise RuntimeFailure(0, "a container with a terminal cannot be checkpointed or restored")


def _directories(directory: StateDirectory, options: Parsed) -> tuple[str, str]:
    """(where the images are, where CRIU writes its logs), both made."""
    images = os.path.abspath(options.text("image-path") or "checkpoint")
    work = os.path.abspath(options.text("work-path") or images)
    for path in (images, work):
        os.makedirs(path, 0o700, exist_ok=True)
    return images, work


def _shared_words(options: Parsed, images: str, work: str) -> list[str]:
    mode = options.text("manage-cgroups-mode") or "ignore"
    if mode not in MODES:
        raise UsageError("Invalid manage cgroups mode")
    words = ["--images-dir", images, "--work-dir", work, "-v4", f"--manage-cgroups={mode}"]
    words += [word for flag, word in _COMMON.items() if options.on(flag)]
    for kind in options.list("empty-ns"):
        if kind != "network":
            raise UsageError(f"namespace {kind} is not supported")
        words += ["--empty-ns", "net"]
    return words


def _dump_words(options: Parsed, images: str) -> list[str]:
    words = [word for flag, word in _DUMP.items() if options.on(flag)]
    if options.on("pre-dump"):
        words.append("--track-mem")
    if options.text("parent-path"):
        parent = options.text("parent-path")
        if os.path.isabs(parent) or not os.path.isdir(f"{images}/{parent}"):
            raise UsageError("--parent-path must be a directory, relative to the image path")
        words += ["--prev-images-dir", parent, "--track-mem"]
    if options.text("page-server"):
        address, colon, port = options.text("page-server").rpartition(":")
        if not colon or not port.isdigit():
            raise UsageError("Use --page-server ADDRESS:PORT to specify page server")
        words += ["--page-server", "--address", address, "--port", port]
    if "status-fd" in options.flags:
        words += ["--status-fd", str(options.number("status-fd"))]
    return words


def _external(spec: dict[str, Any], rootfs: str) -> dict[str, str]:
    """Mount point to source of everything that was bound from the host."""
    found = {}
    for mount in spec.get("mounts") or []:
        if is_bind(mount):
            found[mount["destination"]] = mount.get("source") or ""
        elif mount.get("type") in ("cgroup", "cgroup2"):
            found[mount["destination"]] = mount["destination"]
    linux = spec.get("linux") or {}
    for path in linux.get("maskedPaths") or []:
        # proc and sysfs look the same everywhere; what is in the root is seen there.
        real = path if path.startswith(("/proc/", "/sys/")) else rootfs + path
        if os.path.exists(real) and not os.path.isdir(real):
            found[path] = _NULL
    return found


def _cgroup_mounts(spec: dict[str, Any], group: cgroups.Cgroup) -> dict[str, str]:
    """The cgroup of version 2 is mounted as what it is for the container now."""
    names = group.names()
    kinds = ("cgroup", "cgroup2")
    points = [one["destination"] for one in spec.get("mounts") or [] if one.get("type") in kinds]
    return dict.fromkeys(points, names[""]) if "" in names else {}


def _freezer(state: dict[str, Any]) -> str:
    """The directory whose file stops the container's processes."""
    names = cgroups.recorded(state).names()
    return names.get("freezer") or names[""]


def _network_paths(spec: dict[str, Any]) -> list[str]:
    spaces = (spec.get("linux") or {}).get("namespaces") or []
    return [one["path"] for one in spaces if one["type"] == "network" and one.get("path")]


def _stream(pid: int, number: int) -> str:
    """What a standard stream is, "" when it is closed; CRIU's name of a file of the host's."""
    try:
        name = os.readlink(f"/proc/{pid}/fd/{number}")
        if not name.startswith("/") or _mount_of(pid, number) in _mounts(pid):
            return name
        inode = os.stat(f"/proc/{pid}/fd/{number}").st_ino
        return f"{_FILE}{_mount_of(pid, number):x}:{inode:x}]"
    except FileNotFoundError:
        return ""


def _mount_of(pid: int, number: int) -> int:
    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
    return int(fields["mnt_id"])


def _mounts(pid: int) -> set[int]:
    """The mounts that the process sees."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return {int(line.partition(" ")[0]) for line in file}


def _inherited(images: str, words: list[str]) -> list[int]:
    """Pipes of the standard streams are taken from ours; the descriptors to pass on."""
    try:
        with open(f"{images}/{DESCRIPTORS}", encoding="utf-8") as file:
            streams = decode(file.read())
    except FileNotFoundError:
        return []
    for number, name in enumerate(streams):
        if name.startswith(("pipe:", "socket:", _FILE)):
            words += ["--inherit-fd", f"fd[{number}]:{name}"]
    return []


def _criu(words: list[str], log: str, options: Parsed, passed: list[int] | None = None) -> None:
    """Run it to its end. Raises RuntimeFailure with the last errors of its log."""
    program = _find("criu")
    argv = [program, *words, "--log-file", os.path.basename(log)]
    extra = [options.number("status-fd")] if "status-fd" in options.flags else []
    for fd in [*(passed or []), *extra]:
        os.set_inheritable(fd, True)
    pid = os.posix_spawn(program, argv, dict(os.environ))
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        said = _last_errors(log) or f"exit status {code}"
        raise RuntimeFailure(0, f"criu failed: {said}; its log is {log}", f"{words[0]}")


def _find(name: str) -> str:
    for directory in os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").split(":"):
        path = f"{directory}/{name}"
        if directory.startswith("/") and os.access(path, os.X_OK):
            return path
    raise RuntimeFailure(0, f"{name} is not installed: checkpoint and restore are done by it")


def _last_errors(log: str) -> str:
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if "Error" in line]
    except FileNotFoundError:
        return ""
    return " | ".join(lines[-_TOLD:])
