"""Plain processes in the place of containers, behind the same functions as the runtime's.

It runs inside the spawner of a test: standard library and the kernel room only. A blank is a fork
of the shim that waits for its order on a socket, as the real one does.
"""

from __future__ import annotations

import marshal
import os
import pty
import signal
import socket

from sampan.kernel import fds as descriptors
from sampan.kernel import process, terminal
from sampan.kernel.identity import start_time
from sampan.runtime.failure import RuntimeFailure
from sampan.shim.launch import Runtime

_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


class FakeCgroup:
    """The processes of init's session play the cgroup."""

    def __init__(self, session: int) -> None:
        self._session = session

    def pids(self) -> list[int]:
        with open("/proc/loadavg", "rb") as stream:
            last = int(stream.read().split()[4])
        return [pid for pid in range(self._session, last + 1) if self._holds(pid)]

    def _holds(self, pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            return False
        return int(fields[3]) == self._session and fields[0] != b"Z"

    def kill(self) -> None:
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        while self.pids():
            os.sched_yield()

    def oom_kills(self) -> int:
        return 0

    def remove(self) -> None:
        pass


class FakeBlank:
    """A child that waits for its order."""

    def __init__(self, pid: int, pidfd: int, sync: socket.socket) -> None:
        self.pid, self.pidfd, self.sync = pid, pidfd, sync


class FakeCreated:
    """A blank that has its order."""

    def __init__(self, blank: FakeBlank, wish: dict, stdio, die_with_parent, use_gate) -> None:
        self.pid, self.pidfd, self._sync = blank.pid, blank.pidfd, blank.sync
        self.master = self._gate = -1
        self.program = wish["args"][0]
        self._is_ready = False
        ends, peer = list(stdio), -1
        if wish.get("terminal"):
            self.master, peer = pty.openpty()
            os.set_inheritable(self.master, False)
            ends = [peer, peer, peer]
            size = wish.get("consoleSize") or {"height": 0, "width": 0}
            terminal.set_size(self.master, size["height"], size["width"])
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        gate_read, self._gate = os.pipe2(os.O_CLOEXEC)
        order = (wish["args"], bool(wish.get("terminal")), die_with_parent)
        passed = [*(end if end >= 0 else null for end in ends), gate_read]
        descriptors.send(self._sync, marshal.dumps(order), passed)
        for fd in (gate_read, null, *([peer] if peer >= 0 else [])):
            os.close(fd)
        if not use_gate:
            os.write(self._gate, b"1")
        self.state = {"pid": self.pid, "start_time": start_time(self.pid)}

    def step(self) -> bool:
        message = self._sync.recv(64)
        if message == b"R":
            self._is_ready = True
            return True
        if message:
            raise _failed(message, self.program)
        if not self._is_ready:
            raise RuntimeFailure(0, "the process ended before it was ready")
        return False

    def fileno(self) -> int:
        return self._sync.fileno()

    def give_up_gate(self) -> tuple[int, int]:
        return self._gate, self._sync.fileno()

    def release(self) -> None:
        self._sync.close()
        os.close(self._gate)

    def abort(self) -> None:
        self.release()
        try:
            process.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.close(self.pidfd)


class FakeExeced:
    """A process that an exec made."""

    def __init__(self, args, stdio, terminal) -> None:
        self.master = -1
        peer = -1
        if terminal:
            self.master, peer = pty.openpty()
            os.set_inheritable(self.master, False)
            stdio = (peer, peer, peer)
        report, report_write = os.pipe2(os.O_CLOEXEC)
        self.pid, self.pidfd = process.clone3(0)
        if self.pid == 0:
            try:
                _execute(args, stdio, terminal)
            except OSError as error:
                os.write(report_write, str(error.errno).encode())
            finally:
                os._exit(127)
        os.close(report_write)
        if peer >= 0:
            os.close(peer)
        code = os.read(report, 16)
        os.close(report)
        if code:
            process.wait_pidfd(self.pidfd)
            os.close(self.pidfd)
            raise RuntimeFailure(int(code), f'exec: "{args[0]}": it failed')


def _failed(message: bytes, program: str) -> RuntimeFailure:
    return RuntimeFailure(int(message), f'exec: "{program}": it failed')


def _execute(args, stdio, terminal):
    for number, fd in enumerate(stdio):
        os.dup2(fd, number)
    if terminal:
        import fcntl
        import termios

        if os.getsid(0) != os.getpid():
            os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    process.reset_signals()
    os.execve(args[0], args, _ENV)


def _live(sync: socket.socket) -> None:
    process.set_parent_death_signal(signal.SIGKILL)
    os.setsid()
    data, fds = descriptors.receive(sync, 1 << 16)
    if not data:
        os._exit(0)
    args, terminal, die_with_parent = marshal.loads(data)
    if not die_with_parent:
        process.set_parent_death_signal(0)
    sync.send(b"R")
    if os.read(fds[3], 1):
        try:
            _execute(args, fds[:3], terminal)
        except OSError as error:
            sync.send(str(error.errno).encode())
    os._exit(127)


def _prepare(_kinds, pid_namespace, _interpreted):
    assert not pid_namespace
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid, pidfd = process.clone3(0)
    if pid == 0:
        try:
            ours.close()
            _live(theirs)
        finally:
            os._exit(1)
    theirs.close()
    return FakeBlank(pid, pidfd, ours)


def _adopt(_kinds, pid, pidfd, sync, _is_machine):
    return FakeBlank(pid, pidfd, socket.socket(-1, -1, -1, sync))


def _begin(
    container_id, spec, *, stdio, root, attach_at, filter_program, use_gate, die_with_parent, blank
):
    assert container_id
    assert attach_at
    return FakeCreated(blank, spec["process"], stdio, die_with_parent, use_gate)


def _resume(gate, messages, program):
    sync = socket.socket(-1, -1, -1, messages)
    os.write(gate, b"1")
    os.close(gate)
    with sync:
        message = sync.recv(64)
    if message:
        raise _failed(message, program)


def _spawn(state, process_spec, *, pidfd, stdio, filter_program=None):
    assert state["pid"]
    return FakeExeced(process_spec["args"], stdio, process_spec.get("terminal"))


def _mount(word):
    return os.open(word["source"], os.O_PATH | os.O_CLOEXEC)


def runtime():
    return Runtime(
        adopt=_adopt,
        begin=_begin,
        cgroup=lambda state: FakeCgroup(state["pid"]),
        kinds=lambda _spec: ([], ""),
        mount=_mount,
        prepare=_prepare,
        resume=_resume,
        spawn=_spawn,
    )
