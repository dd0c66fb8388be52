"""The shim of a container that a foreign OCI runtime makes: the same monitor, another way in.

Such a shim is a process of its own, not a fork of the spawner: what a foreign program takes its
time for must not hold up the launches of others. It gets the launch message that the spawner would
have got, mounts the root where only it and its children see it, lets the program create and start
the container, and becomes its monitor. All that the program keeps lies in the shim's directory.

The program's own clean-up comes before the exit is told, for after that the same container may be
started again.
"""

from __future__ import annotations

import _socket
import os
from json import dumps
from time import time_ns

from sampan.kernel import capabilities, cgroups, identity, mounts, process
from sampan.kernel import fds as descriptors
from sampan.kernel import namespaces as kernel
from sampan.kernel import numbers as n
from sampan.kernel.paths import Root
from sampan.kernel.signals import signal_fd
from sampan.runtime import rootfs
from sampan.runtime.users import resolve_user
from sampan.shim.control import SOCKET, failure, listen, parse
from sampan.shim.exits import STATE, encode, write_record
from sampan.shim.launch import checked_log
from sampan.shim.loop import complain
from sampan.shim.monitor import Monitor
from sampan.shim.program import Program
from sampan.shim.stdio import close_ends, make_pipes

LARGEST = 4 << 20
_TREES = "/sys/fs/cgroup"
_SEND = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from sampan.kernel.cgroups import Cgroup
    from sampan.shim.program import Process

    Message = dict[str, Any]


def main(orders: int) -> NoReturn:
    """Serve the one launch message that comes on the descriptor `orders`, then exit."""
    status = 1
    try:
        process.set_name("sampan-shim")
        os.umask(0o022)  # the daemon's is for its own files; cgroups are seen from inside
        process.set_child_subreaper()
        process.set_not_dumpable()
        sock = _socket.socket(-1, -1, -1, orders)
        data, fds = descriptors.receive(sock, LARGEST)
        sock.close()
        _Shim(fds).run(data)
        status = 0
    except BaseException as error:
        complain(f"shim: {type(error).__name__}: {error}")
    finally:
        os._exit(status)


class _Shim:
    """One container's shim, and what the monitor needs of a runtime."""

    def __init__(self, fds: list[int]) -> None:
        self._control = _socket.socket(-1, -1, -1, fds.pop(0))
        self._attached = fds
        self._fds: dict[str, int] = {}
        self._program: Program
        self._cgroup: Cgroup
        self._root = -1

    def run(self, data: bytes) -> None:
        """From the message to the end of the container."""
        signals = signal_fd(process.SIGCHLD)
        try:
            facts = self._launch(parse(data))
        except Exception as error:
            # One of the edges: whatever it is, the engine must hear of it.
            self._fail(error)
            return
        names = [*self._fds, "control"]
        fds = [*self._fds.values(), self._control.detach()]
        runtime: Any = self
        Monitor(signals, runtime).run(facts, names, [*fds, *self._attached])

    # the monitor asks

    def spawn(self, *, process_spec: Message, stdio: tuple[int, int, int], **_: object) -> Process:
        """An exec."""
        return self._program.spawn(self._settled(dict(process_spec)), stdio)

    def signal(self, pidfd: int, number: int) -> None:
        """A signal for the first process, which may be inside of a kernel that only the program
        knows."""
        try:
            self._program.kill(number)
        except OSError:
            if number != process.SIGKILL:
                raise
            process.pidfd_send_signal(pidfd, number)

    def cgroup(self, _state: Message) -> _Shim:
        """The container's cgroup: ourselves, for its removal is more than that."""
        return self

    def pids(self) -> list[int]:
        """Who is in it."""
        return self._cgroup.pids()

    def kill(self) -> None:
        """End all of them."""
        self._cgroup.kill()

    def oom_kills(self) -> int:
        """How often memory ran out."""
        return self._cgroup.oom_kills()

    def remove(self) -> None:
        """Let the program clean up, and then remove the cgroup."""
        try:
            self._program.delete()
        except OSError as error:
            complain(f"delete: {error}")
        if self._cgroup.exists():
            self._cgroup.kill()  # helpers of the program's own, such as a kernel in user space
            self._cgroup.remove()

    # the launch

    def _launch(self, request: Message) -> Message:
        directory, spec = request["dir"], request["spec"]
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fds["directory"] = os.open(directory, flags)
        wishes = request.get("attach") or []
        if len(wishes) != len(self._attached):
            raise ValueError("attach: not as many descriptors as entries")
        log = checked_log(request.get("log") or {})
        self._fds["listener"] = listen(self._fds["directory"])
        self._cgroup = cgroups.manager(spec["linux"]["cgroupsPath"])
        handler = str(request.get("handler") or "")
        self._enter(directory, request["rootfs"], is_ours=bool(handler))
        self._program = Program(request["program"], str(request["id"]), handler)
        made = self._create(request, spec)
        return {
            "id": str(request["id"]),
            "log": log,
            "seccomp_flags": 0,
            "attach": wishes,
            "stdin_once": bool(request.get("stdin_once")),
            "stdin": bool(request.get("stdin")),
            "start": True,
            "started": self._start(made, request),
            "pid": made.pid,
            "state": {},
            "program": "",
        }

    def _enter(self, directory: str, word: Message, *, is_ours: bool) -> None:
        """A mount namespace in which the root is mounted; the directory becomes the current one."""
        os.chdir(directory)
        kernel.unshare(n.CLONE_NEWNS)
        mounts.set_propagation("/", n.MS_REC | n.MS_SLAVE)
        if os.path.ismount(f"{_TREES}/memory") and not is_ours:
            _own_trees()
        os.mkdir("rootfs", 0o755)
        os.mkdir("runtime", 0o700)
        _attach(rootfs.mount(word), "rootfs")
        self._root = os.open("rootfs", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _create(self, request: Message, spec: Message) -> Process:
        terminal = bool(spec["process"].get("terminal"))
        spec["process"] = self._settled(spec["process"])
        with open("config.json", "w", encoding="utf-8") as file:
            file.write(dumps(spec))
        ends = ours = (-1, -1, -1)
        if not terminal:
            ends, ours = make_pipes(stdin=bool(request.get("stdin")), stdout=True, stderr=True)
        try:
            if images := request.get("restore"):
                made = self._program.restore(str(images), ends)
            else:
                made = self._program.create(ends, terminal=terminal)
        finally:
            close_ends(ends)
            for name, fd in zip(("stdin", "stdout", "stderr"), ours, strict=True):
                if fd >= 0:
                    self._fds[name] = fd
        self._fds["pidfd"] = made.pidfd
        if made.master >= 0:
            self._fds["master"] = made.master
        return made

    def _start(self, made: Process, request: Message) -> int:
        """Execute the command, unless it runs again by now; write it down, tell the engine."""
        state = {
            "v": 1,
            "id": str(request["id"]),
            "pid": made.pid,
            "start_time": identity.start_time(made.pid),
            "shim_pid": os.getpid(),
            "shim_start_time": identity.start_time(os.getpid()),
            "runtime": {"cgroup": request["spec"]["linux"]["cgroupsPath"]},
        }
        write_record(self._fds["directory"], STATE, state, sync=False)
        if not request.get("restore"):
            self._program.start()
        started = time_ns()
        self._tell({"event": "started", "pid": made.pid, "time": started})
        return started

    def _settled(self, process_spec: Message) -> Message:
        """The process with numbers for names, and nothing that we may not give ourselves."""
        resolve_user(Root(self._root), process_spec)
        user = process_spec["user"]
        home = user.pop("home", "")
        env = process_spec.get("env") or []
        if home and not any(entry.startswith("HOME=") for entry in env):
            process_spec["env"] = [*env, f"HOME={home}"]
        held = capabilities.get()[1]
        for kind, names in (process_spec.get("capabilities") or {}).items():
            # runc fails on what we do not hold ourselves; ours leaves it out.
            process_spec["capabilities"][kind] = [
                name for name in names if held & capabilities.mask([name])
            ]
        score = process_spec.get("oomScoreAdj")
        if score is not None and not held & capabilities.mask(["CAP_SYS_RESOURCE"]):
            with open("/proc/self/oom_score_adj", encoding="ascii") as file:
                process_spec["oomScoreAdj"] = max(score, int(file.read(16)))
        return process_spec

    def _fail(self, error: Exception) -> None:
        """Undo, and tell the engine."""
        calls: list[Callable[[], object]] = [self._kill, self.remove]
        calls += [lambda: os.unlink(STATE), lambda: os.unlink(SOCKET)]
        for call in calls:
            try:
                call()
            except FileNotFoundError:
                continue
            except (OSError, AttributeError) as problem:
                complain(f"undo launch: {problem}")
        self._tell({"event": "start-failed", **failure(error)})

    def _kill(self) -> None:
        if "pidfd" in self._fds:
            process.pidfd_send_signal(self._fds["pidfd"], process.SIGKILL)
            process.wait_pidfd(self._fds["pidfd"])

    def _tell(self, event: Message) -> None:
        try:
            self._control.send(encode(event).encode("ascii"), _SEND)
        except OSError:
            pass  # it is gone; the state on disk says the same


def _own_trees() -> None:
    """A directory of cgroup hierarchies of our own, with those of version 1.

    crun refuses one that is half of version 2, and runsc makes directories for hierarchies that are
    not mounted, which would stay on the node.
    """
    names = [name for name in os.listdir(_TREES) if name != "unified"]
    links = {name: os.readlink(f"{_TREES}/{name}") for name in names if _is_link(name)}
    found = [name for name in names if name not in links and os.path.ismount(f"{_TREES}/{name}")]
    trees = {name: _clone(f"{_TREES}/{name}") for name in found}
    attributes = n.MOUNT_ATTR_NOSUID | n.MOUNT_ATTR_NODEV | n.MOUNT_ATTR_NOEXEC
    own = mounts.new_mount("tmpfs", [("mode", "755")], source="tmpfs", attributes=attributes)
    _attach(own, _TREES)
    for name, tree in trees.items():
        os.mkdir(f"{_TREES}/{name}")
        _attach(tree, f"{_TREES}/{name}")
    for name, target in links.items():
        os.symlink(target, f"{_TREES}/{name}")


def _is_link(name: str) -> bool:
    return os.path.islink(f"{_TREES}/{name}")


def _clone(path: str) -> int:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return mounts.clone_tree(fd, recursive=False)
    finally:
        os.close(fd)


def _attach(mount: int, path: str) -> None:
    """Attach a detached mount, and close it."""
    target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mounts.move_mount(mount, target)
    finally:
        os.close(target)
        os.close(mount)
