"""The child: from clone3 to execve. It executes operations and tells its parent how that went.

A *blank* is a child that already lives in its new namespaces and waits to be told which container
it becomes. Its parent sends the order: a memory file with the configuration, and descriptors. A
blank may wait for a long time (the spawner keeps some ready), or not at all.

Messages on the `sync` socket, parent to child: the order, the sources of bind mounts, then `C` with
the descriptors of the cgroup. The child may ask with `H` for the hooks beside the runtime, and with
`B` and a number for the source of a bind mount, and the parent answers the same. Child to parent:
`R` (ready, at the gate; the master of a terminal may come with it), or `E` + errno + NUL +
operation + NUL + sentence (failed). The end of the stream after `R` means that execve succeeded,
because the socket is close-on-exec.

Nothing is imported here and no exception leaves: the process ends in execve or _exit. Its standard
error belongs to the container and stays clean.
"""

from __future__ import annotations

import _signal
import _socket
import marshal
import os
import resource  # noqa: F401  for limits
import select

from sampan.kernel import (
    fds,
    process,
    terminal,  # noqa: F401  for operations, which import it too late
    trampoline,
)
from sampan.runtime.credentials import LetGo
from sampan.runtime.failure import RuntimeFailure, reason
from sampan.runtime.freeze import close_imports
from sampan.runtime.operations import Operation
from sampan.runtime.plan import Plan
from sampan.runtime.stage import Stage, run
from sampan.runtime.stock import Stock
from sampan.runtime.unified import OwnCgroupMount  # noqa: F401  so that a child knows it

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

READY = b"R"
FAILED = b"E"
ORDER = b"O"
SOURCES = b"S"
MAX_MESSAGE = 8192
MAX_ORDER = 64 << 20
NO_GATE = -1
_ENDING = (_signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM)  # its terminal may come and go


def live_as_blank(sync: _socket.socket, spare_of: list[str]) -> NoReturn:
    """Wait for the order and become its container. Does not return.

    `spare_of` are the new namespaces of a blank that is made before it is needed; empty otherwise.
    """
    try:
        if spare_of:
            process.set_parent_death_signal(process.SIGKILL)
        _signal.set_wakeup_fd(-1)
        close_imports()
        os.umask(0)
        stock = Stock(spare_of) if spare_of else Stock([])
        message, received = fds.receive(sync, MAX_MESSAGE)
        if message == ORDER:
            _obey(sync, received, stock)
    except BaseException as error:  # the edge of this process
        _report(sync, RuntimeFailure(0, f"{type(error).__name__}: {error}", "runtime defect"))
    finally:
        os._exit(1)


def _obey(sync: _socket.socket, received: list[int], stock: Stock) -> None:
    """The order's descriptors: its text, root, 0, 1, 2, the gate if there is one, namespaces."""
    # marshal is safe here: the sender is the process that this one is a copy of.
    order: dict[str, Any] = marshal.loads(fds.read_all(received[0], MAX_ORDER))  # noqa: S302
    root, stdin, stdout, stderr = received[1:5]
    rest = received[5:]
    gate = rest.pop(0) if order["gate"] else NO_GATE
    stage = Stage(rootfs=root, stdio=(stdin, stdout, stderr), sync=sync, stock=stock)
    stage.namespace_fds = dict(zip(order["join"], rest, strict=True))
    stage.seccomp, stage.asks = order["filter"], order["asks"]
    while len(stage.sources) < order["sources"]:
        stage.sources += fds.receive(sync, MAX_MESSAGE)[1]
    plan = Plan.unpack(order["plan"])
    become(plan.before_gate, plan.after_gate, stage, sync, gate)


def enter(
    before: list[Operation], after: list[Operation], stage: Stage, sync: _socket.socket
) -> NoReturn:
    """The child of an exec: what it does was planned before it was made. Does not return."""
    try:
        _signal.set_wakeup_fd(-1)
        close_imports()
        os.umask(0)
        become(before, after, stage, sync, NO_GATE)
    finally:
        os._exit(1)


def become(
    before: list[Operation],
    after: list[Operation],
    stage: Stage,
    sync: _socket.socket,
    gate: int,
) -> NoReturn:
    """Execute `before`, wait at the gate, execute `after`. Does not return."""
    status = 1
    try:
        run(before, stage)
        fds.send(sock=sync, data=READY, fds=[stage.master] if stage.master >= 0 else [])
        if gate != NO_GATE:
            _close_others(stage, sync.fileno(), gate, after)
            if not _opened(gate):
                os._exit(1)
        run(after, stage)
    except RuntimeFailure as failure:
        _report(sync, failure)
        status = 127 if failure.errno == 2 else 126
    except OSError as error:
        _report(sync, RuntimeFailure(error.errno or 0, reason(error), "prepare the container"))
    except BaseException as error:  # the edge of this process
        _report(sync, RuntimeFailure(0, f"{type(error).__name__}: {error}", "runtime defect"))
    finally:
        os._exit(status)


def _close_others(stage: Stage, sync: int, gate: int, after: list[Operation]) -> None:
    """Nothing of the host lies open while nobody starts the container."""
    preserved = next((one.preserve for one in after if isinstance(one, LetGo)), 0)
    kept = {*range(3 + preserved), sync, gate, *stage.sources}
    first = 3 + preserved
    for fd in sorted(kept):
        if fd > first:
            process.close_between(first, fd - 1)
        first = max(first, fd + 1)
    process.close_between(first, 0xFFFFFFFF)


def _give_up(number: int, _frame: object) -> NoReturn:
    os._exit(128 + number)


def _opened(gate: int) -> bool:
    """Wait for the byte that starts the container; False when everyone who could send it is gone.

    The gate is a pipe, or a FIFO opened for reading before any writer came: poll(2) then waits for
    the first writer, where read(2) would report the end at once. What would end any other process
    ends this one, too: the first one of a pid namespace ignores what it does not handle.
    """
    for number in _ENDING:
        _signal.signal(number, _give_up)
    select_gate = select.poll()
    select_gate.register(gate, select.POLLIN)
    select_gate.poll()
    return os.read(gate, 1) != b""


def _report(sync: _socket.socket, failure: RuntimeFailure) -> None:
    text = f"{failure.errno}\0{failure.operation}\0{failure.strerror}"
    try:
        sync.send(FAILED + text.encode("utf-8", "replace")[: MAX_MESSAGE - 1])
    except OSError:
        # `create` has ended and nobody reads: the container's own stderr is the only place left.
        os.write(2, f"sampan-oci: {failure}\n".encode("utf-8", "replace"))


def read_report(message: bytes, program: str = "") -> RuntimeFailure:
    """The failure that a child, or the trampoline to `program`, reported."""
    if not message.startswith(FAILED):
        code = trampoline.failure_of(message)
        return RuntimeFailure(code, f"exec {program}: {os.strerror(code).lower()}")
    number, operation, text = message[1:].decode("utf-8", "replace").split("\0", 2)
    return RuntimeFailure(int(number), text, operation)
