"""One port of the serial line, as the machine has it: a container, or one more process in one.

Our own runtime makes them, driven as the shim drives it on the node. The root of a container is
what the node shares, with memory above it; all of it goes when its first process has ended.
"""

from __future__ import annotations

import os
import select
import sys
from functools import partial
from json import dumps

from sampan.kernel import cgroups, mounts, process, terminal
from sampan.shim.program import Program
from sampan.vm import guestnet
from sampan.vm.frames import PIECE, Splitter, document, pack, read_document

HOME = "/lib/sampan"
SHARE = "/share"
CONTAINERS = "/run/containers"
MAX_PENDING = 1 << 20
_RUNTIME = (
    f"import sys, os; sys.path.insert(0, {HOME!r}); "
    "from sampan.runtime.__main__ import main; os._exit(main())"
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.shim.program import Process
    from sampan.vm.agent import Agent


class Conversation:
    """One port: at most one process at a time."""

    everyone: list[Conversation] = []  # noqa: RUF012 - the machine's

    def __init__(self, agent: Agent, port: int) -> None:
        self._agent, self._port = agent, port
        self._splitter = Splitter()
        self._pending = bytearray()
        self._container = ""  # the one that is ours to remove
        self._program: Program | None = None
        self._process: Process | None = None
        self._outputs: dict[int, str] = {}
        self._stdin = -1
        self._input = bytearray()
        self._input_ends = False
        self._status: int | None = None
        self.pid = 0
        self.everyone.append(self)

    def ready(self, _events: int) -> None:
        """The port can be read or written, or the node has gone."""
        self._flush()
        while len(self._input) <= MAX_PENDING:  # else the node waits until it is taken
            try:
                data = os.read(self._port, PIECE)
            except BlockingIOError:
                return
            if not data:
                self._end()
                return
            for letter, content in self._splitter.feed(data):
                self._take(letter, content)

    def _take(self, letter: str, content: bytes) -> None:
        try:
            if letter == "C":
                self._say(document("R", **self._call(read_document(content))))
            elif letter == "I" and self._stdin >= 0:
                self._input += content
                self._feed()
            elif letter == "E":
                self._input_ends = True
                self._feed()
            elif letter == "S":
                self._signal(int(read_document(content)["sig"]))
            elif letter == "W" and self._process is not None and self._process.master >= 0:
                size = read_document(content)
                terminal.set_size(self._process.master, int(size["height"]), int(size["width"]))
        except (OSError, ValueError, KeyError) as error:
            if letter == "C":
                code = getattr(error, "errno", None) or 0
                text = getattr(error, "strerror", None) or str(error)
                self._say(document("R", error=str(text), errno=code))

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        word = call["op"]
        if word in ("create", "exec"):
            self._end()  # whoever was here before has not been seen leaving
            return self._make(call)
        if word == "start" and self._program is not None:
            _at(f"{CONTAINERS}/{self._container}", self._program.start)
            return {}
        if word == "machine":
            guestnet.configure(call)
            return {"release": os.uname().release}
        if word == "counters":
            return _counters(str(call["cgroup"]))
        raise ValueError(f"unknown call {word!r}")

    # processes

    def _make(self, call: dict[str, Any]) -> dict[str, Any]:
        name, is_new = str(call["id"]), call["op"] == "create"
        place = f"{CONTAINERS}/{name}"
        if is_new:
            _make_place(place, name, call["config"])
            self._container = name
        os.chdir(place)
        self._program = Program([sys.executable, "-I", "-S", "-c", _RUNTIME], name)
        has_terminal = bool(call.get("terminal"))
        ends, ours = (-1, -1, -1), (-1, -1, -1)
        if not has_terminal:
            ends, ours = _pipes(stdin=bool(call.get("stdin")))
        try:
            if is_new:
                made = self._program.create(ends, terminal=has_terminal)
            else:
                made = self._program.spawn(call["process"], ends)
        except OSError as error:
            said = _last_words(ours[2])
            _close(ours)
            self._clear()
            if said:
                raise OSError(error.errno or 5, f"{error.strerror or error}: {said}") from error
            raise
        finally:
            _close(ends)
            os.chdir("/")
        self._adopt(made, ours)
        return {"pid": made.pid}

    def _adopt(self, made: Process, ours: tuple[int, int, int]) -> None:
        self._process, self.pid, self._status = made, made.pid, None
        if made.master >= 0:
            self._stdin, self._outputs = made.master, {made.master: "O"}
        else:
            self._stdin, self._outputs = ours[0], {ours[1]: "O", ours[2]: "X"}
        for fd in self._outputs:
            os.set_blocking(fd, False)
            self._agent.watch(fd, partial(self._busy, fd))
        if self._stdin >= 0 and self._stdin not in self._outputs:
            os.set_blocking(self._stdin, False)
            self._agent.watch(self._stdin, self._stdin_ready, 0)
        self._agent.watch(made.pidfd, self._ended)

    def _busy(self, fd: int, events: int) -> None:
        if events & select.EPOLLOUT:
            self._feed()
        if fd in self._outputs and events & ~select.EPOLLOUT:
            self._said(fd)

    def _stdin_ready(self, events: int) -> None:
        if events & select.EPOLLERR:  # nobody reads it any more
            self._close_stdin()
        else:
            self._feed()

    def _feed(self) -> None:
        """Give what the node has sent to the process, as far as it takes it."""
        was_full = len(self._input) > MAX_PENDING
        while self._input and self._stdin >= 0:
            try:
                del self._input[: os.write(self._stdin, self._input[:PIECE])]
            except BlockingIOError:
                break
            except OSError:
                self._input.clear()  # it does not read any more
        if self._stdin >= 0:
            self._agent.want(self._stdin, out=bool(self._input), into=self._stdin in self._outputs)
        if self._input_ends and not self._input:
            self._close_stdin()
        if was_full and len(self._input) <= MAX_PENDING:
            self.ready(0)

    def _said(self, fd: int) -> None:
        try:
            data = os.read(fd, PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a terminal whose processes are gone
        if data:
            self._say(pack(self._outputs[fd], data))
            return
        self._close_output(fd)
        self._finish()

    def _ended(self, _events: int) -> None:
        assert self._process is not None
        found = process.wait_pidfd(self._process.pidfd, block=False)
        if found is None:
            return
        self._agent.forget(self._process.pidfd)
        self._status = found[0]
        for fd in tuple(self._outputs):
            self._drain(fd)
        self._finish()

    def _drain(self, fd: int) -> None:
        """What it said last; whoever keeps the pipe open is not waited for."""
        while fd in self._outputs:
            try:
                data = os.read(fd, PIECE)
            except OSError:
                data = b""
            if not data:
                self._close_output(fd)
                return
            self._say(pack(self._outputs[fd], data))

    def _finish(self) -> None:
        """Tell the end when there is nothing more to say."""
        if self._status is None or self._outputs or self._process is None:
            return
        status = self._status
        os.close(self._process.pidfd)
        self._process, self.pid, self._status = None, 0, None
        self._close_stdin()
        self._clear()
        self._say(document("Q", code=status))

    def _signal(self, number: int) -> None:
        program = self._program
        if self._process is None or program is None:
            return
        if self._container:
            _at(f"{CONTAINERS}/{self._container}", lambda: program.kill(number))
        else:
            process.pidfd_send_signal(self._process.pidfd, number)

    def _clear(self) -> None:
        """Remove the container, if it is ours."""
        name, self._container = self._container, ""
        if not name:
            return
        place = f"{CONTAINERS}/{name}"
        if self._program is not None:
            try:
                _at(place, self._program.delete)
            except OSError as error:
                print(f"delete {name}: {error}", flush=True)  # noqa: T201 - the console
        _unmake_place(place)

    def _end(self) -> None:
        """The node has left: what it called for ends."""
        self._pending.clear()
        self._splitter = Splitter()
        if self._process is None:
            return
        try:
            process.pidfd_send_signal(self._process.pidfd, process.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait_pidfd(self._process.pidfd)
        self._agent.forget(self._process.pidfd)
        for fd in tuple(self._outputs):
            self._close_output(fd)
        self._status = 137
        self._finish()
        self._pending.clear()

    def _close_output(self, fd: int) -> None:
        self._agent.forget(fd)
        del self._outputs[fd]
        if fd == self._stdin:
            self._stdin = -1
        os.close(fd)

    def _close_stdin(self) -> None:
        self._input.clear()
        self._input_ends = False
        if self._stdin >= 0 and self._stdin not in self._outputs:
            self._agent.forget(self._stdin)
            os.close(self._stdin)
            self._stdin = -1

    # words

    def _say(self, data: bytes) -> None:
        self._pending += data
        self._flush()
        if len(self._pending) > MAX_PENDING:
            for fd in self._outputs:
                self._agent.want(fd, out=False, into=False)

    def _flush(self) -> None:
        was_full = len(self._pending) > MAX_PENDING
        while self._pending:
            try:
                sent = os.write(self._port, self._pending[:PIECE])
            except BlockingIOError:
                break
            except OSError:
                self._pending.clear()  # nobody listens
                break
            del self._pending[:sent]
        if was_full and len(self._pending) <= MAX_PENDING:
            for fd in self._outputs:
                self._agent.want(fd, out=bool(self._input) and fd == self._stdin, into=True)


def _counters(name: str) -> dict[str, Any]:
    """Those of a cgroup; where it has no limit of its own, the machine's memory is one."""
    found = cgroups.manager(name).stats()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found["memory"]["limit"] = min(found["memory"]["limit"], memory)
    return found


def _at(place: str, work: Callable[[], None]) -> None:
    """Do it where the runtime keeps what it knows of a container: beside its bundle."""
    os.chdir(place)
    try:
        work()
    finally:
        os.chdir("/")


def _make_place(place: str, name: str, config: dict[str, Any]) -> None:
    """The bundle: the shared root with memory above it, and the configuration."""
    for part in ("", "/upper", "/work", "/rootfs", "/runtime"):
        os.mkdir(place + part)
    layers = f"lowerdir={SHARE}/{name}/rootfs,upperdir={place}/upper,workdir={place}/work"
    mounts.mount_with_data("overlay", f"{place}/rootfs", layers)
    for mount in config.get("mounts") or ():
        if mount.get("type") == "bind":
            mount["source"] = f"{SHARE}/{name}/{mount['source']}"
    with open(f"{place}/config.json", "w", encoding="utf-8") as file:
        file.write(dumps(config))


def _unmake_place(place: str) -> None:
    mounts.unmount(f"{place}/rootfs")
    for above, directories, files in os.walk(place, topdown=False):
        for name in files:
            os.unlink(f"{above}/{name}")
        for name in directories:
            path = f"{above}/{name}"
            if os.path.islink(path):
                os.unlink(path)
            else:
                os.rmdir(path)
    os.rmdir(place)


def _pipes(*, stdin: bool) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(theirs, ours) of stdin, stdout, stderr."""
    zero, one = os.pipe() if stdin else (-1, -1)
    out, into_out = os.pipe()
    err, into_err = os.pipe()
    return (zero, into_out, into_err), (one, out, err)


def _last_words(fd: int) -> str:
    """What the runtime said on stderr, in place of a log."""
    if fd < 0:
        return ""
    os.set_blocking(fd, False)
    try:
        return os.read(fd, 2000).decode("utf-8", "replace").strip()
    except BlockingIOError:
        return ""


def _close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)
