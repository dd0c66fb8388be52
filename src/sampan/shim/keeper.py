"""The keeper: the parent of a quiet container, and no interpreter but a list of system calls.

Most containers are quiet most of the time, and all that has to stand by then is a parent that knows
how the first process ended. The keeper is that (`kernel.machine`): it makes the blank, offers it to
the spawner, and sleeps on an epoll that the spawner fills (launch.py). It needs a tenth of the
memory of a shim, and next to nothing of the time.

    offered -> asleep -> the container has ended, quietly: recorded, gone
                   `---> something stirred: a monitor watches -> ended: its status told, gone

Where the container has written nothing and left nothing, its end is a record that the keeper writes
alone (`KEPT_EXIT`). Whatever else stirs it is a monitor's, which it asks the nursery for: it passes
on, unread, what the spawner had sent. The monitor is not the parent, so the keeper stays, and tells
it what it hears when it reaps the container. Where the nursery is gone, or the first monitor has
died, the keeper starts an interpreter of its own; when that dies as well it ends, and the container
with it.
"""

from __future__ import annotations

import errno
import os
import struct

from sampan.kernel import machine, process
from sampan.kernel import numbers as n
from sampan.kernel.machine import ANY, SYS, Label, Value
from sampan.runtime.calls import Calls
from sampan.runtime.plan import clone_flags
from sampan.shim.control import DESERTED, SOCKET
from sampan.shim.exits import KEPT_EXIT, KEPT_TEXT

# The keeper's descriptors. The first is also where a machine reports a failure.
ORDERS, BELL, WAKE, BLANK, PYTHON, TREES = 3, 4, 5, 6, 7, 8
_FIRST, _LIFE = 60, 61

PASSED = (
    "control",
    "directory",
    "listener",
    "pidfd",
    "stdout",
    "stderr",
    "oom",
    "seccomp",
)
"""What comes with the launch, in this order. A name that a launch does without has any descriptor,
and is not among its facts."""

PATH_SIZE = 512
"""Bytes of a launch message in front: the path of the cgroup in each hierarchy, and NULs."""

LARGEST = 8192
"""Bytes of a launch message."""

_AF_UNIX, _SEQPACKET = 1, 5 | os.O_CLOEXEC
_NO_SIGNAL, _CLOEXEC_RIGHTS = 0x4000, 0x40000000
_P_PIDFD, _WNOWAIT = 3, 0x01000000
_POLLIN = 1
_REMOVE_DIRECTORY = 0x200  # AT_REMOVEDIR
_NONBLOCK = 2  # SPLICE_F_NONBLOCK
_PATIENCE = 50
"""Milliseconds that a process which has closed its stdout is given to end."""
_ARGUMENTS = ("-I", "-S", "-B", "-c")


def is_possible() -> bool:
    """Whether there is a machine for this architecture."""
    return machine.is_available()


class Boot:
    """How a keeper starts an interpreter: its path, the code to run, and where our source is."""

    __slots__ = ("code", "executable", "source")

    def __init__(self, executable: str, code: str, source: str) -> None:
        self.executable, self.code, self.source = executable, code, source


def image(kinds: list[str], trees: int, boot: Boot) -> bytes:
    """The program of a keeper.

    Args:
        kinds: the new namespaces of its blank.
        trees: how many hierarchies it has from `TREES` on, the one of memory last.
        boot: how an interpreter is started.
    """
    return machine.image(_Keeper(trees).write(kinds, boot))


class _Keeper:
    """The script while it is written, and the places that its parts share."""

    def __init__(self, trees: int) -> None:
        self.calls = Calls(machine.OWN_SCRIPT)
        self.trees = trees
        self.waken, self.end, self.told = Label(), Label(), Label()
        data = self.calls.data
        self.first = data(struct.pack("<ihh", _FIRST, _POLLIN, 0))
        both = struct.pack("<ihh", _FIRST, _POLLIN, 0) + struct.pack("<ihh", _LIFE, _POLLIN, 0)
        self.first_and_life = data(both)
        self.buffer = data(bytes(LARGEST))
        # Room for what comes with a launch; behind it, for the hand-over, a pair of sockets.
        rights = struct.pack("<Qii", 16 + 4 * len(PASSED), 1, 1) + b"\xff" * 4 * len(PASSED)
        rights += bytes(-len(rights) % 8)
        self.rights_size = len(rights)
        more = struct.pack("<Qii", 24, 1, 1)
        self.rights = data(rights + more + b"\xff" * 8)
        self.life = self.rights + self.rights_size + len(more)
        self.ended = data(bytes(128))  # siginfo_t
        self.time = data(bytes(16))
        self.text = data(bytes(KEPT_TEXT))
        parts = [(self.ended, 128), (self.time, 16), (self.text, KEPT_TEXT)]
        self.record = data(b"".join(struct.pack("<QQ", *part) for part in parts))

    def write(self, kinds: list[str], boot: Boot) -> Calls:
        calls = self.calls
        calls.prctl(n.PR_SET_NAME, calls.text(b"sampan-shim"))
        calls.prctl(n.PR_SET_DUMPABLE, 0)
        calls.call(n.SYS_close_range, 3, 0xFFFFFFFF, n.CLOSE_RANGE_CLOEXEC)
        self._offer(kinds)
        self._sleep()
        self._look()
        self._finish()
        calls.place(self.waken)
        self._hand_over()
        self._watch(boot)
        calls.place(self.told)
        self._tell()
        calls.place(self.end)
        calls.call(SYS["exit_group"], 0)
        return calls

    def passed(self, name: str) -> Value:
        return Value(self.rights + 16 + 4 * PASSED.index(name))

    # offered

    def _offer(self, kinds: list[str]) -> None:
        """Make the blank, and send its pid, its pidfd and our end of its socket."""
        calls, child = self.calls, Label()
        rights = calls.data(struct.pack("<Qii3i4x", 24, 1, 1, -1, -1, -1))
        pidfd, ours, theirs = (Value(rights + 16 + 4 * place) for place in range(3))
        calls.call(SYS["socketpair"], _AF_UNIX, _SEQPACKET, 0, ours.address)
        flags = clone_flags(kinds) | n.CLONE_PIDFD
        born = self._clone(flags, pidfd.address, child)
        vector = calls.data(struct.pack("<QQ", born.address, 8))
        calls.call(SYS["sendmsg"], ORDERS, self._header(vector, rights, 24), _NO_SIGNAL)
        calls.call(SYS["dup3"], pidfd, _FIRST, os.O_CLOEXEC)
        past = Label()
        for fd in (pidfd, ours):
            calls.call(SYS["close"], fd)
        calls.call(SYS["close"], theirs, then=past)
        calls.place(child)
        self._execute(theirs, BLANK, ["sampan-init"], [])
        calls.place(past)

    def _clone(self, flags: int, pidfd: int, child: Label) -> Value:
        arguments = self.calls.data(
            struct.pack("<8Q", flags, pidfd, 0, 0, process.SIGCHLD, 0, 0, 0)
        )
        return self.calls.call(n.SYS_clone3, arguments, 64, equals=0, at=child)

    def _execute(self, sock: Value, program: int, words: list[str], variables: list[str]) -> None:
        """In a child: `sock` becomes its descriptor 3, `program` its program."""
        calls = self.calls
        calls.call(SYS["dup3"], sock, machine.REPORT, 0)
        argv, env = (calls.strings([*map(os.fsencode, one)]) for one in (words, variables))
        calls.call(SYS["execveat"], program, calls.text(b""), argv, env, n.AT_EMPTY_PATH)

    def _header(self, vector: int, rights: int, size: int) -> int:
        """A msghdr of one vector and its descriptors."""
        return self.calls.data(struct.pack("<QIIQQQQQ", 0, 0, 0, vector, 1, rights, size, 0))

    # asleep

    def _sleep(self) -> None:
        """Wait until something stirs, and take the launch. The end of the socket is ours as well.

        That our engine has gone is no reason to wake up, nor to look at its socket again. lseek(2)
        answers with the number that it is given, so a list can compare.

        What is received is passed on as it is. The fourth and fifth argument mean nothing to
        recvmsg: in front of its result, the fifth makes an iovec of what has come.
        """
        calls, again = self.calls, Label()
        calls.place(again)
        events = calls.data(bytes(16))
        calls.call(SYS["epoll_wait"], BELL, events, 1, -1, tolerate=(errno.EINTR,), at=again)
        calls.call(SYS["lseek"], PYTHON, Value(events), os.SEEK_SET, equals=DESERTED, at=again)
        vector = calls.data(struct.pack("<QQ", self.buffer, LARGEST))
        header = self._header(vector, self.rights, self.rights_size)
        arguments = ORDERS, header, _CLOEXEC_RIGHTS, 0, self.buffer
        result = calls.call(SYS["recvmsg"], *arguments, equals=0, tolerate=ANY, at=self.end)
        self.launch = self._header(result.address - 8, self.rights, self.rights_size + 24)

    def _look(self) -> None:
        """A monitor is needed unless the container has ended and nothing of its output waits.

        A process that ends closes its output before it has ended, one stream after the other: that
        is what wakes us. tee(2) looks without taking: 0 is the end of a stream, 1 a byte, and
        EAGAIN says that somebody can still write.
        """
        calls, both = self.calls, Label()
        scratch = calls.data(b"\xff" * 8)
        calls.call(SYS["pipe2"], scratch, os.O_CLOEXEC)
        sink, stdout, stderr = Value(scratch + 4), self.passed("stdout"), self.passed("stderr")
        calls.call(SYS["tee"], stdout, sink, 1, _NONBLOCK, equals=1, tolerate=ANY, at=self.waken)
        calls.call(SYS["tee"], stderr, sink, 1, _NONBLOCK, tolerate=(errno.EAGAIN,), then=both)
        calls.call(SYS["poll"], self.first, 1, _PATIENCE, equals=0, at=self.waken)
        calls.place(both)
        calls.call(SYS["tee"], stderr, sink, 1, _NONBLOCK, equals=1, tolerate=ANY, at=self.waken)
        calls.call(SYS["poll"], self.first, 1, _PATIENCE, equals=0, at=self.waken)

    def _finish(self) -> None:
        """Remove the cgroup, write the record, and end. What fails is a monitor's.

        Init is not reaped before the record is on the disk, so that a monitor can still hear of it.
        """
        calls = self.calls
        calls.call(
            SYS["pread64"], self.passed("oom"), self.text, KEPT_TEXT, 0, tolerate=ANY, at=self.waken
        )
        for tree in range(TREES, TREES + self.trees):
            calls.call(
                SYS["unlinkat"], tree, self.buffer, _REMOVE_DIRECTORY, tolerate=ANY, at=self.waken
            )
        self._await_end(_WNOWAIT)
        self._write_record()
        calls.call(SYS["waitid"], _P_PIDFD, _FIRST, 0, os.WEXITED, 0)
        name = calls.text(os.fsencode(SOCKET))
        directory = self.passed("directory")
        calls.call(SYS["unlinkat"], directory, name, 0, tolerate=(errno.ENOENT,))
        calls.call(SYS["exit_group"], 0)

    def _await_end(self, more: int) -> None:
        calls = self.calls
        calls.call(SYS["waitid"], _P_PIDFD, _FIRST, self.ended, os.WEXITED | more, 0)
        calls.call(SYS["clock_gettime"], 0, self.time)

    def _write_record(self) -> None:
        """As `exits.write_record`: beside its place, flushed, renamed."""
        calls, directory, at = self.calls, self.passed("directory"), self.waken
        new, final = calls.text(f".{KEPT_EXIT}.new".encode()), calls.text(KEPT_EXIT.encode())
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = calls.call(SYS["openat"], directory, new, flags, 0o600, tolerate=ANY, at=at)
        calls.call(SYS["writev"], fd, self.record, 3, tolerate=ANY, at=at)
        calls.call(SYS["fsync"], fd, tolerate=ANY, at=at)
        calls.call(SYS["renameat"], directory, new, directory, final, tolerate=ANY, at=at)
        calls.call(SYS["fsync"], directory, tolerate=ANY, at=at)

    # watched by a monitor

    def _hand_over(self) -> None:
        """Ask the nursery for a monitor; an interpreter of our own if it is gone, or its fork."""
        cold = self.cold = Label()
        self._make_life()
        self.calls.call(SYS["sendmsg"], WAKE, self.launch, _NO_SIGNAL, tolerate=ANY, at=cold)
        self._await_either(cold)

    def _make_life(self) -> None:
        """A pair of sockets: the end of one says to its peer that we, or the monitor, are no more.

        The last word to the monitor goes that way, so it needs no disk.
        """
        calls = self.calls
        calls.call(SYS["socketpair"], _AF_UNIX, _SEQPACKET, 0, self.life)
        calls.call(SYS["dup3"], Value(self.life), _LIFE, os.O_CLOEXEC)

    def _await_either(self, died: Label) -> None:
        calls, again = self.calls, Label()
        for end in (0, 4):
            calls.call(SYS["close"], Value(self.life + end))
        calls.place(again)
        both = self.first_and_life
        calls.call(SYS["poll"], both, 2, -1, tolerate=(errno.EINTR,), at=again)
        calls.call(SYS["poll"], self.first, 1, 0, equals=0, at=died, then=self.told)

    def _watch(self, boot: Boot) -> None:
        calls, child = self.calls, Label()
        calls.place(self.cold)
        self._make_life()
        pair = calls.data(b"\xff" * 8)
        ours, theirs = Value(pair), Value(pair + 4)
        calls.call(SYS["socketpair"], _AF_UNIX, _SEQPACKET, 0, pair)
        calls.call(SYS["sendmsg"], ours, self.launch, _NO_SIGNAL)
        self._clone(0, 0, child)
        calls.call(SYS["close"], ours)
        calls.call(SYS["close"], theirs)
        self._await_either(self.end)
        calls.place(child)
        words = [boot.executable, *_ARGUMENTS, boot.code, boot.source]
        self._execute(theirs, PYTHON, words, ["LC_ALL=C.UTF-8"])

    def _tell(self) -> None:
        """Reap init, and tell the monitor; when it is gone, nobody is to be told."""
        self._await_end(0)
        header = self.calls.data(struct.pack("<QIIQQQQQ", 0, 0, 0, self.record, 3, 0, 0, 0))
        self.calls.call(SYS["sendmsg"], _LIFE, header, _NO_SIGNAL, tolerate=ANY, at=self.end)
