"""What operations share while a plan is executed in the child, and how failures are told.

A `Stage` lives in the process that becomes the container. It holds only descriptors and numbers;
nothing in it outlives execve, because every descriptor is close-on-exec.
"""

from __future__ import annotations

import errno
import os

from sampan.kernel import fds, mounts
from sampan.kernel import numbers as n
from sampan.kernel.paths import Root
from sampan.runtime.failure import RuntimeFailure, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from sampan.runtime.operations import Operation
    from sampan.runtime.stock import Stock

CGROUP_READY = b"C"
ASKS_FOR_HOOKS = b"H"  # and the answer to it
ASKS_FOR_SOURCE = b"B"  # with the number of a bind mount; the answer is the same, and its clone


class Stage:
    """The state of an execution: the root once it is attached, and what the parent handed over."""

    __slots__ = (
        "_cgroup_fds",
        "_empty_directory",
        "asks",
        "master",
        "namespace_fds",
        "own_pid",
        "proc",
        "proc_device",
        "program",
        "root",
        "rootfs",
        "seccomp",
        "sources",
        "stdio",
        "stock",
        "sync",
        "trampoline",
    )

    def __init__(
        self, *, rootfs: int, stdio: tuple[int, int, int], sync: _socket.socket, stock: Stock
    ) -> None:
        self.rootfs = rootfs
        self.root = Root(rootfs)
        self.stdio = stdio
        self.stock = stock
        self.sync = sync
        self.trampoline = -1
        self.proc = -1
        self.own_pid = 0
        self._cgroup_fds: list[int] | None = None
        self.namespace_fds: dict[str, int] = {}
        self.sources: list[int] = []
        self.asks = False
        self.seccomp: tuple[bytes, int] | None = None
        self.master = -1
        self.proc_device = -1
        self.program = b""
        self._empty_directory = -1

    def try_to_make(self, directory: str) -> None:
        """Make a directory of the container; who needs it says why it is not there."""
        try:
            os.close(self.root.make_directories(directory))
        except OSError:
            pass

    def take_root(self, rootfs: int) -> None:
        """The root was found, or made, only now."""
        self.rootfs = rootfs
        self.root = Root(rootfs)

    def cgroup_fds(self) -> list[int]:
        """The descriptors to join the cgroup by; waits until the parent has made it.

        Raises OSError (ECANCELED) when the parent gave up instead.
        """
        if self._cgroup_fds is None:
            message, received = fds.receive(self.sync, len(CGROUP_READY))
            if message != CGROUP_READY:
                raise OSError(errno.ECANCELED, "the parent gave up")
            self._cgroup_fds = received
        return self._cgroup_fds

    def ask_parent(self, question: bytes) -> list[int]:
        """Send `question` to the parent and wait until it answers the same; what came with that.

        Raises OSError (ECANCELED) when it gave up instead.
        """
        self.cgroup_fds()  # comes first
        fds.send(self.sync, question)
        answer, received = fds.receive(self.sync, len(question))
        if answer != question:
            raise OSError(errno.ECANCELED, "the parent gave up")
        return received

    def source(self, index: int) -> int:
        """The detached clone of a bind mount's source, the `index`th, of the host's mounts.

        Asked for only now where mounts shall be numbered in the order of the configuration.
        """
        if self.asks:
            return self.ask_parent(b"%s%d" % (ASKS_FOR_SOURCE, index))[0]
        return self.sources[index]

    def take_cgroup_fds(self, fds: list[int]) -> None:
        """The parent had them ready before the child was made."""
        self._cgroup_fds = fds

    def empty_directory(self) -> int:
        """A mount of one empty read-only tmpfs, shared by every masked directory.

        The first one is that mount itself and the others are clones of it where it is attached:
        kernels before 6.15 clone no detached mount.
        """
        if self._empty_directory >= 0:
            return mounts.clone_tree(self._empty_directory, recursive=False)
        options: list[tuple[str, str | None]] = [("nr_blocks", "1"), ("nr_inodes", "1")]
        self._empty_directory = mounts.new_mount(
            "tmpfs", [*options, ("ro", None)], attributes=n.MOUNT_ATTR_RDONLY
        )
        return os.dup(self._empty_directory)

    def place(self, mount: int, target: int) -> None:
        """Attach `mount` on `target`; both descriptors are closed."""
        try:
            mounts.move_mount(mount, target)
        finally:
            os.close(mount)
            os.close(target)


def run(operations: list[Operation], stage: Stage) -> None:
    """Execute `operations` in order.

    Raises:
        RuntimeFailure: one failed; it says which, and of how many.
    """
    for index, operation in enumerate(operations, 1):
        try:
            operation.execute(stage)
        except RuntimeFailure:
            raise
        except OSError as error:
            where = _where(index, operations)
            raise RuntimeFailure(error.errno or 0, reason(error), where) from error
        except ValueError as error:
            where = _where(index, operations)
            raise RuntimeFailure(22, str(error), where) from error


def _where(index: int, operations: list[Operation]) -> str:
    operation = operations[index - 1]
    said = f"operation {index} of {len(operations)}, {operation.describe()}"
    return f"{operation.trouble}: {said}" if operation.trouble else said
