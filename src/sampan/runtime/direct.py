"""One script from birth to execve: how `sampan-oci` makes a process without an interpreter inside.

The engine's blanks wait for an order, so theirs are two scripts. A command knows everything before
the birth, so here it is one: a *starter*, a program of the machine that posix_spawn(3) starts
without a copy of this interpreter, makes or joins namespaces by one clone3 with CLONE_PARENT, tells
the pid and ends; its child, our own child by that flag, goes on in the same script.

Messages on the socket (`machine.REPORT`), child to parent: eight bytes with the pid; `R` at the
start gate, or where it would be; a failure, as the machine tells it; or eight bytes of a negative
errno when the execve failed. The end of the stream after `R` is success. Parent to child: the
descriptors of the cgroup.

Whatever a list of calls cannot say raises NeedsInterpreter, and so does any failure before `R`,
after everything was undone: the interpreter does the same again and finds the words.
"""

from __future__ import annotations

import _signal
import _socket
import errno
import os
import stat
import struct

from sampan.kernel import fds, machine, rlimits
from sampan.kernel import numbers as n
from sampan.kernel.machine import ANY, SYS, Label, Value
from sampan.runtime import assembly, assembly_process, readiness
from sampan.runtime import credentials as c
from sampan.runtime import operations as o
from sampan.runtime.calls import MISSING, Calls
from sampan.runtime.failure import NeedsInterpreter, RuntimeFailure
from sampan.runtime.mountoptions import EXTENSIONS
from sampan.runtime.variants import SessionKeyring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups import Cgroup
    from sampan.runtime.plan import Plan

_ROOM = 0x10000  # bytes of records: a whole life is longer than an order
_POLLIN = 1
_SIG_SETMASK = 2
_ENDING = (_signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM)
_ENDING_MASK = sum(1 << (number - 1) for number in _ENDING)
_LIBRARY_SIGNALS = (32, 33)  # the C library keeps these two from posix_spawn
_OWN_SIGNALS = [s for s in range(1, 65) if s not in (9, 19, *_LIBRARY_SIGNALS)]
_PID_BYTES = 8
_UNLIMITED = 0xFFFFFFFFFFFFFFFF
_FAILURE_BYTES = 16
_MAX_MESSAGE = 64
_KEYCTL_JOIN, _KEYCTL_SETPERM = 1, 5
# What the kernel gives a named session keyring, and KEY_USR_SEARCH: an exec finds it by its name.
_KEYRING_PERMISSIONS = 0x3F130000 | 0x00080000


class DirectAssembly(assembly.Assembly):
    """A plan as a script that begins before the birth.

    `places` are (address, operation) in order: who failed is known by the address in a report.
    """

    __slots__ = ("_empty", "_nulls", "_permitted", "_root_path", "given_stdio", "places")

    def __init__(self, root_path: str, stdio: tuple[int, int, int] = (0, 1, 2)) -> None:
        """`root_path` is the root file system's, or "" in a container that exists; `stdio` are
        the descriptors of ours that become the process's own."""
        self.given_stdio = stdio
        self.begin(Calls(machine.OWN_SCRIPT, _ROOM))
        self.places: list[tuple[int, o.Operation]] = []
        self._root_path = root_path
        self._nulls: Value | None = None
        self._empty: Value | None = None
        self._permitted: tuple[int, int] | None = None

    def be_born(self, flags: int, pid_namespace: int | None, cgroup: int = -1) -> None:
        """Write the birth: new namespaces of `flags`, in the pid namespace behind a descriptor, and
        in the version 2 cgroup behind another."""
        calls, child = self.calls, Label()
        calls.call(n.SYS_close_range, 3, 0xFFFFFFFF, n.CLOSE_RANGE_CLOEXEC)
        calls.prctl(n.PR_SET_DUMPABLE, 0)
        if pid_namespace is not None:
            calls.call(SYS["setns"], pid_namespace, n.CLONE_NEWPID)
        # struct clone_args: the exit signal is the starter's own, by CLONE_PARENT
        words, later = [flags | n.CLONE_PARENT, *([0] * 7)], 0
        if cgroup >= 0:
            # The kernel's lock on all cgroups is held for such a birth, and the caller makes others
            # meanwhile: so the child makes those namespaces itself that it can.
            later = flags & ~n.CLONE_NEWPID
            words = [words[0] & ~later | n.CLONE_INTO_CGROUP, *([0] * 9), cgroup]
        arguments = calls.data(struct.pack(f"<{len(words)}Q", *words))
        pid = calls.call(n.SYS_clone3, arguments, 8 * len(words), equals=0, at=child)
        calls.call(SYS["write"], machine.REPORT, pid.address, _PID_BYTES)
        calls.call(SYS["exit_group"], 0)
        calls.place(child)
        if later:
            calls.call(SYS["unshare"], later)
        calls.call(SYS["umask"], 0)
        nothing = calls.data(bytes(32))
        for number in _LIBRARY_SIGNALS:
            calls.call(SYS["rt_sigaction"], number, nothing, 0, 8)

    def write(
        self, plan: Plan, doors: int, filter_program: tuple[bytes, int] | None, gate: int = -1
    ) -> None:
        """Write the operations of `plan`.

        `doors` is the number of descriptors of the cgroup, `gate` the FIFO to wait on before the
        second list.
        """
        for operation in plan.before_gate:
            self._note(operation)
            self.write_one(operation, doors, filter_program)
        self.calls.say(assembly.READY)
        if gate >= 0:
            self._close_others(gate)
            self._wait_at(gate)
        for operation in plan.after_gate:
            self._note(operation)
            self.write_one(operation, doors, filter_program)

    def _note(self, operation: o.Operation) -> None:
        self.places.append((self.calls.here(), operation))

    def _close_others(self, gate: int) -> None:
        """Nothing of the host lies open while nobody starts it."""
        if gate > machine.REPORT + 1:
            self.calls.call(n.SYS_close_range, machine.REPORT + 1, gate - 1, 0)
        self.calls.call(n.SYS_close_range, gate + 1, 0xFFFFFFFF, 0)

    def _wait_at(self, gate: int) -> None:
        """Wait for the byte that opens the FIFO `gate`; end when everyone who could send is gone.

        poll(2) waits for the first writer, where read(2) would report the end at once. What would
        end any other process ends this one, too: the first one of a pid namespace ignores what it
        does not handle, so signals come as a descriptor, beside which there is nobody to read.
        """
        calls, again, nobody, opened = self.calls, Label(), Label(), Label()
        signals = calls.data(struct.pack("<Q", _ENDING_MASK))
        calls.call(SYS["rt_sigprocmask"], _SIG_SETMASK, signals, 0, 8)
        asked = calls.call(SYS["signalfd4"], -1, signals, 8, os.O_CLOEXEC)
        calls.call(SYS["dup2"], asked, gate + 2)
        calls.call(SYS["close"], asked)
        waited = calls.data(struct.pack("<ihhihh", gate, _POLLIN, 0, gate + 2, _POLLIN, 0))
        calls.place(again)
        calls.call(SYS["poll"], waited, 2, -1, tolerate=(errno.EINTR,), at=again)
        calls.call(SYS["read"], gate, calls.data(bytes(8)), 1, equals=0, at=nobody)
        calls.call(SYS["close"], gate + 2)
        calls.call(SYS["rt_sigprocmask"], _SIG_SETMASK, calls.data(bytes(8)), 0, 8)
        calls.call(SYS["umask"], 0, then=opened)
        calls.place(nobody)
        calls.call(SYS["exit_group"], 1)
        calls.place(opened)

    def sealed(self) -> int:
        """The program as a sealed memory file, the caller's: whoever runs it cannot change it."""
        try:
            return fds.sealed_memfd("sampan-init", machine.image(self.calls))
        except ValueError as error:
            raise NeedsInterpreter(str(error)) from error

    def where(self, address: int) -> str:
        """The operation in words that the record at `address` belongs to."""
        said = "prepare the container"
        for start, operation in self.places:
            if start > address:
                break
            said = operation.describe()
        return said

    def usual(self, one: o.Mount, options: list[str]) -> Value | None:
        """Nothing is in stock."""
        return None

    def has_dev(self) -> bool:
        """No /dev was filled before."""
        return False

    def masks(self) -> tuple[Value, Value | None]:
        """Both are made when they are first wanted."""
        if self._nulls is None:
            readiness.check_null()
            self._nulls, self._empty = readiness.masks(self.calls)
        return self._nulls, self._empty

    def cgroup_tree(self, one: o.CgroupMount) -> Value:
        """Made here and now."""
        if not readiness.is_usual_cgroup(one.options):
            raise NeedsInterpreter("cgroup mounts with unusual options")
        return readiness.cgroup_tree(self.calls, one.hierarchies, one.links)

    def open_root(self) -> int:
        """A descriptor of the root file system, the caller's."""
        return os.open(self._root_path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def source(self, one: o.BindMount) -> tuple[Value, bool]:
        """The source is found in the new mount namespace, which still is a copy of the host's."""
        if not EXTENSIONS.isdisjoint(one.options):
            raise NeedsInterpreter("a bind mount with mapped ids")
        directory = _is_directory(one.source)
        recursive = "rbind" in one.options
        return self.calls.clone_tree(n.AT_FDCWD, one.source, recursive=recursive), directory

    def permitted(self) -> tuple[int, int]:
        """As /proc tells: capget(2) is a call of the C library."""
        if self._permitted is None:
            self._permitted = _capabilities()
        return self._permitted

    def attach(self, one: o.AttachRoot) -> None:
        """Clone the root file system, and attach it."""
        self.root = self.calls.clone_tree(n.AT_FDCWD, self._root_path, recursive=True)
        assembly.WRITERS[o.AttachRoot](self, one)


def _is_directory(path: str) -> bool:
    try:
        return os.path.isdir(path) or not os.stat(path)
    except OSError as error:
        raise NeedsInterpreter(f"bind mount of {path}") from error


def _capabilities() -> tuple[int, int]:
    """(permitted, inheritable) of this process."""
    with open("/proc/self/status", "rb") as stream:
        lines = dict(line.split(b":", 1) for line in stream if line.startswith(b"Cap"))
    return int(lines[b"CapPrm"], 16), int(lines[b"CapInh"], 16)


def _propagation(a: DirectAssembly, one: o.Propagation) -> None:
    flags = n.MS_REC | (n.MS_SLAVE if one.mode == "rslave" else n.MS_PRIVATE)
    a.calls.call(SYS["mount"], 0, b"/", 0, flags, 0)


def _loopback(a: DirectAssembly, _one: o.Loopback) -> None:
    readiness.bring_up_loopback(a.calls)


def _find_program(a: DirectAssembly, one: c.FindProgram) -> None:
    """A command that is missing must fail before the gate; the interpreter says how."""
    assembly.WRITERS[c.FindProgram](a, one)
    found, calls = Label(), a.calls
    for path in a.program:
        following = Label()
        missing = () if path is a.program[-1] else MISSING
        calls.call(SYS["faccessat"], n.AT_FDCWD, path, os.X_OK, tolerate=missing, at=following)
        # A directory can be "executed", too: opened as one it must refuse, or the search fails.
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        calls.call(SYS["openat"], n.AT_FDCWD, path, flags, 0, tolerate=(errno.ENOTDIR,), at=found)
        calls.call(SYS["openat"], n.AT_FDCWD, b"", 0, 0)  # ENOENT: it was a directory
        calls.place(following)
    calls.place(found)


def _session(a: DirectAssembly, one: c.Session) -> None:
    """With the container's own null device in place of the host's, as under runc: a descriptor of
    the host's file system is none of the container's business, and CRIU could not tell what it is.
    """
    assembly.WRITERS[c.Session](a, one)
    for number, given in enumerate(a.given_stdio):
        if not is_null(given):
            continue
        kept = Label()
        fd = a.calls.call(
            SYS["openat"],
            n.AT_FDCWD,
            b"/dev/null",
            os.O_RDWR | os.O_CLOEXEC,
            0,
            tolerate=ANY,
            at=kept,
        )
        a.calls.call(SYS["dup2"], fd, number)
        a.calls.place(kept)


def is_null(fd: int) -> bool:
    """Whether it is the null device."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)


def _limit(a: DirectAssembly, one: c.Limit) -> None:
    """As `kernel.rlimits`: as high as it may be, where the kernel refuses what is wanted."""
    calls, refused, done = a.calls, Label(), Label()
    kind = rlimits.KINDS[one.kind]
    wanted, less = _pair(one.soft, one.hard), _pair(*rlimits.lowered(one.kind, one.soft, one.hard))
    if less == wanted:
        calls.call(SYS["prlimit64"], 0, kind, calls.data(wanted), 0)
        return
    calls.call(
        SYS["prlimit64"], 0, kind, calls.data(wanted), 0, tolerate=ANY, at=refused, then=done
    )
    calls.place(refused)
    calls.call(SYS["prlimit64"], 0, kind, calls.data(less), 0)
    calls.place(done)


def _nothing(_a: DirectAssembly, _one: o.Operation) -> None:
    """Done at the birth."""


def _pair(soft: int, hard: int) -> bytes:
    """struct rlimit64; -1 and 2**64-1 both mean that there is no limit."""
    return struct.pack("<QQ", soft & _UNLIMITED, hard & _UNLIMITED)


def _join_keyring(a: DirectAssembly, one: SessionKeyring) -> None:
    done, calls = Label(), a.calls
    serial = calls.call(
        SYS["keyctl"], _KEYCTL_JOIN, one.name.encode(), tolerate=(errno.ENOSYS,), at=done
    )
    calls.call(SYS["keyctl"], _KEYCTL_SETPERM, serial, _KEYRING_PERMISSIONS)
    calls.place(done)


def _execute(a: DirectAssembly, one: c.Execute) -> None:
    """The execve, and what is said when it fails: to the parent, or who has started it has ended
    by then and nobody reads but the container's own standard error."""
    if one.preserve:
        raise NeedsInterpreter("descriptors to preserve")
    calls, failed, alone = a.calls, Label(), Label()
    arguments, variables = assembly_process.vectors(calls, one)
    results = [
        calls.call(SYS["execve"], path, arguments, variables, tolerate=MISSING)
        for path in a.program[:-1]
    ]
    results.append(
        calls.call(SYS["execve"], a.program[-1], arguments, variables, tolerate=ANY, at=failed)
    )
    calls.place(failed)
    ignore = calls.data(struct.pack("<4Q", 1, 0, 0, 0))  # SIG_IGN
    calls.call(SYS["rt_sigaction"], int(_signal.SIGPIPE), ignore, 0, 8)
    calls.call(
        SYS["write"], machine.REPORT, results[-1].address, _PID_BYTES, tolerate=ANY, at=alone
    )
    calls.call(SYS["exit_group"], 127)
    calls.place(alone)
    said = f"sampan-oci: exec {one.arguments[0]}: exec format error, or no such interpreter\n"
    text = said.encode("utf-8", "replace")
    calls.call(SYS["write"], 2, text, len(text), tolerate=ANY)
    calls.call(SYS["exit_group"], 127)


DirectAssembly.writers = {
    **assembly.WRITERS,
    c.Execute: _execute,
    c.FindProgram: _find_program,
    c.LetGo: _nothing,
    c.Limit: _limit,
    c.Session: _session,
    o.AttachRoot: DirectAssembly.attach,
    o.Loopback: _loopback,
    o.Propagation: _propagation,
    SessionKeyring: _join_keyring,
}


class Direct:
    """A process that was made so, with the interface of `create.Created`.

    The owner calls `await_birth` before all else, closes `pidfd`, reaps the process, and removes
    the cgroup afterwards.
    """

    __slots__ = (
        "_assembly",
        "_command",
        "_starter",
        "_sync",
        "cgroup",
        "hooks",
        "master",
        "pid",
        "pidfd",
        "state",
    )

    def __init__(
        self,
        script: DirectAssembly,
        program: int,
        command: str,
        passed: list[int],
        stdio: tuple[int, int, int] = (0, 1, 2),
    ) -> None:
        """Begin the birth.

        `program` is that of `script`, and stays the caller's; `command` is for messages; `passed`
        descriptors go along, and `stdio` become 0, 1 and 2.
        """
        self._assembly, self._command = script, command
        self.cgroup: Cgroup | None = None
        self.hooks: None = None
        self.master = -1
        self.pid, self.pidfd = 0, -1
        self.state: dict[str, Any] = {}
        self._sync, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            self._starter = _spawn(program, theirs.fileno(), passed, stdio)
        finally:
            theirs.close()

    def await_birth(self) -> None:
        """Wait for the process: a millisecond, as long as its namespaces are made. Raises
        NeedsInterpreter, and there is no process then."""
        message = self._sync.recv(_MAX_MESSAGE)
        os.waitpid(self._starter, 0)
        self._starter = 0
        if len(message) != _PID_BYTES:
            self._sync.close()
            raise NeedsInterpreter("the machine could not give birth")
        self.pid = int.from_bytes(message, "little")
        self.pidfd = os.pidfd_open(self.pid)  # our child, not reaped: it is still that process

    def hand_cgroup(self, doors: list[int]) -> None:
        """The descriptors of the cgroup; they stay open here."""
        try:
            fds.send(self._sync, b"C", doors)
        except BrokenPipeError:
            pass  # it has failed already, and `await_ready` hears how

    def await_ready(self) -> None:
        """Wait until it stands at its gate, or before its execve. Raises NeedsInterpreter."""
        message = self._sync.recv(_MAX_MESSAGE)
        if message != assembly.READY:
            raise NeedsInterpreter(str(self._failure(message)) if message else "it ended")

    def finish(self) -> None:
        """Wait for the end of its messages, which is the execve. Raises RuntimeFailure."""
        message = self._sync.recv(_MAX_MESSAGE)
        self._sync.close()
        if message:
            raise self._failure(message)

    def _failure(self, message: bytes) -> RuntimeFailure:
        if len(message) == _FAILURE_BYTES:
            address, code = machine.failure_of(message)
            return RuntimeFailure(code, os.strerror(code).lower(), self._assembly.where(address))
        code = -int.from_bytes(message, "little", signed=True)
        return RuntimeFailure(code, f"exec {self._command}: {os.strerror(code).lower()}")

    def release(self) -> None:
        """Close what belongs to this object alone; the process goes on."""
        self._sync.close()

    def abort(self) -> None:
        """Kill the process, reap it, and remove its cgroup; also closes the descriptors."""
        if self._starter:
            try:
                self.await_birth()
            except NeedsInterpreter:
                pass
        self._sync.close()
        if self.pid:
            self._end()
        if self.cgroup is not None:
            self.cgroup.kill()
            self.cgroup.remove()

    def _end(self) -> None:
        try:
            _signal.pidfd_send_signal(self.pidfd, _signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        except ChildProcessError:
            pass
        os.close(self.pidfd)


def _spawn(program: int, report: int, passed: list[int], stdio: tuple[int, int, int]) -> int:
    """Start the program; its pid. `passed` keep their numbers, which are not that of the report."""
    given = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(stdio) if fd != number]
    for fd in passed:
        os.set_inheritable(fd, True)
    return os.posix_spawn(
        f"/proc/self/fd/{program}",
        ["sampan-init"],
        {},
        file_actions=[*given, (os.POSIX_SPAWN_DUP2, report, machine.REPORT)],
        setsigmask=(),
        setsigdef=_OWN_SIGNALS,
    )


def clear_of_report(fd: int) -> int:
    """`fd`, or another descriptor of the same where it has the number that the report will have."""
    if fd != machine.REPORT:
        return fd
    moved = os.dup(fd)
    os.close(fd)
    return moved
