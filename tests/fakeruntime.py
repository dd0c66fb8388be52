"""Plain processes in the place of containers, behind the same functions as the runtime's.

It runs inside the spawner of a test: standard library and the kernel room only.
"""

from __future__ import annotations

import os
import pty
import signal

from sampan.kernel import numbers as n
from sampan.kernel import process
from sampan.runtime.failure import RuntimeFailure
from sampan.shim.launch import Runtime


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


class FakeProcess:
    """Created and Execed in one."""

    def __init__(self, args, stdio, terminal, session, die_with_parent, env):
        self.master = -1
        if terminal:
            self.master, peer = pty.openpty()
            os.set_inheritable(self.master, False)
            stdio = (peer, peer, peer)
        gate_read, self._gate = os.pipe2(os.O_CLOEXEC)
        self._report, report_write = os.pipe2(os.O_CLOEXEC)
        # With CLONE_PARENT as the real runtime has it: the helper's sibling is the shim's child.
        self.pid, self.pidfd = process.clone3(n.CLONE_PARENT if session else 0)
        if self.pid == 0:
            try:
                os.close(self._gate)
                _become(args, stdio, terminal, gate_read, die_with_parent, env, session)
            except OSError as error:
                os.write(report_write, str(error.errno).encode())
            finally:
                os._exit(127)
        os.close(gate_read)
        os.close(report_write)
        if terminal:
            os.close(peer)
        self.state = {"pid": self.pid, "start_time": process.start_time(self.pid)}
        self._args = args

    def start(self):
        os.write(self._gate, b"1")
        os.close(self._gate)
        code = os.read(self._report, 16)
        os.close(self._report)
        if code:
            raise RuntimeFailure(int(code), f'exec: "{self._args[0]}": it failed')

    def abort(self):
        try:
            process.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            process.wait_pidfd(self.pidfd)
        except (ChildProcessError, ProcessLookupError):
            pass
        os.close(self.pidfd)


def _become(args, stdio, terminal, gate, die_with_parent, env, session):
    if die_with_parent:
        process.set_parent_death_signal(signal.SIGKILL)
    if session:
        os.setsid()
    for number, fd in enumerate(stdio):
        os.dup2(fd, number)
    if terminal:
        import fcntl
        import termios

        os.setsid() if not session else None
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    process.reset_signals()
    os.read(gate, 1)
    os.execve(args[0], args, env)


_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


def create(
    container_id, spec, *, stdio, root, attach_at, filter_program, die_with_parent, **_unknown
):
    assert container_id
    assert attach_at
    wish = spec["process"]
    return FakeProcess(wish["args"], stdio, wish.get("terminal"), True, die_with_parent, _ENV)


def spawn(state, process_spec, *, pidfd, stdio, filter_program=None):
    assert state["pid"]
    one = FakeProcess(process_spec["args"], stdio, process_spec.get("terminal"), False, False, _ENV)
    try:
        one.start()
    except OSError:
        one.abort()
        raise
    return one


def mount(word):
    return os.open(word["source"], os.O_PATH | os.O_CLOEXEC)


def runtime():
    def cgroup(state):
        return FakeCgroup(state["pid"])

    return Runtime(create, spawn, mount, cgroup, lambda: None)
