"""The spawner: a warm, sealed, single-threaded process that launches containers.

The engine runs it with an isolated interpreter (`python -I -S -B`) and one end of a SEQPACKET
socket pair. It imports everything a shim and the runtime need, closes the import system, freezes
the collector so that forks share its memory, and then waits for launch messages: JSON, and
descriptors of which the first is the control socket of the new shim.

A parent that was made before takes each container (spares.py); the next one is made when there is
nothing else to do. Several launches can be under way; each is a `Launch` that is stepped when its
container-to-be has something to say. The end of the engine's socket means that the engine is gone:
the launches under way are finished, the spawner exits, and its shims live on.

Shims are forked by the nursery (nursery.py), a quiet copy of this process: what the spawner writes
to its memory would otherwise leave the old pages to every shim alone.
"""

from __future__ import annotations

import _signal
import _socket
import gc
import os
import resource
import select
import sys
import time

from sampan.kernel import fds as descriptors
from sampan.kernel import libc, process
from sampan.kernel.cgroups import hierarchy
from sampan.kernel.signals import signal_fd
from sampan.runtime import freeze
from sampan.shim.launch import Launch
from sampan.shim.loop import complain
from sampan.shim.nursery import Nursery
from sampan.shim.spares import Spares

LARGEST = 4 * 1024 * 1024
"""Bytes of one launch message."""

QUIET = 3
"""Milliseconds without anything to do after which the next parent is made."""

PATIENCE = 10.0
"""Seconds that launches under way have left when the engine is gone."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from typing import NoReturn

    from sampan.shim.launch import Runtime


def main(control: int) -> NoReturn:
    """Serve launch messages on the descriptor `control` until its end, then exit."""
    status = 1
    try:
        kept = {tree.fd for tree in hierarchy.mounted()}
        runtime, program = real_runtime()
        serve(control, runtime, {*kept, *program})
        status = 0
    except BaseException as error:
        complain(f"spawner: {type(error).__name__}: {error}")
    finally:
        os._exit(status)


def real_runtime() -> tuple[Runtime, list[int]]:
    """The runtime's own functions, and the descriptors that its blanks are made of.

    Imported here, so that a test's spawner can bring others.
    """
    from sampan.shim import containers

    return containers.runtime(), containers.programs()


def serve(control: int, runtime: Runtime, kept: AbstractSet[int] = frozenset()) -> None:
    """Harden this process, then launch containers until the engine is gone.

    `kept` are descriptors that shims share: the roots of the cgroup hierarchies, found only once.
    """
    sock = _socket.socket(-1, -1, -1, control)
    sock.setblocking(True)
    os.set_inheritable(control, False)
    harden()
    # Each reader of a signalfd reads its own signals, so all shims can have this one.
    signals = signal_fd(process.SIGCHLD)
    nursery = Nursery(runtime, signals, {*kept, signals})
    Spawner(sock, runtime, nursery).run()


def harden() -> None:
    """Import nothing more, share memory with every fork, and be no target for debuggers."""
    process.set_name("sampan-spawner")
    os.chdir("/")
    os.umask(0o022)
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    # Ended shims are nobody's to wait for.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    process.set_not_dumpable()
    # Only the soft limit: the container's own limits start from the hard one.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    time.gmtime(0)  # the C library reads its time zone now
    libc.bind_all()
    freeze.close_imports()
    gc.collect()
    gc.disable()
    gc.freeze()


class Spawner:
    """The loop: messages of the engine, words of containers-to-be, and the spares."""

    __slots__ = ("_engine", "_nursery", "_nursery_end", "_poll", "_runtime", "_spares", "_underway")

    def __init__(self, engine: _socket.socket, runtime: Runtime, nursery: Nursery) -> None:
        self._engine = engine
        self._runtime = runtime
        keepers = runtime.keepers(nursery.wake) if runtime.keepers is not None else []
        self._spares = Spares(keepers, nursery.new_shim)
        self._underway: dict[int, Launch] = {}
        self._poll = select.poll()
        self._poll.register(engine.fileno(), select.POLLIN)
        self._nursery = nursery
        self._nursery_end = nursery.fileno()
        self._poll.register(self._nursery_end, 0)  # its end alone

    def run(self) -> None:
        """Serve until the engine is gone and the launches under way have ended."""
        is_open = True
        deadline = 0.0
        while is_open or (self._underway and time.monotonic() < deadline):
            # A spare is made when nothing else is to be done, so that no container waits for it.
            is_missing = is_open and not self._spares.is_complete
            events = self._poll.poll(QUIET if is_missing else None if is_open else 1000)
            if not events and is_missing:
                self._prepare()
            for fd, _ in events:
                if fd in self._underway:
                    self._step(fd)
                elif fd == self._nursery_end:
                    self._revive_nursery()
                elif not self._hear():
                    is_open, deadline = False, time.monotonic() + PATIENCE
                    self._poll.unregister(fd)

    def _hear(self) -> bool:
        """Take one launch; false when the engine is gone."""
        try:
            data, fds = descriptors.receive(self._engine, LARGEST)
        except OSError as error:
            complain(f"spawner: receive: {error}")
            return True
        if not data:
            return False
        if not fds:
            complain("spawner: a launch without a control socket")
            return True
        self._spares.is_busy = bool(self._underway)
        launch = Launch(self._runtime, self._spares, fds[0])
        if launch.begin(data, fds[1:]):
            self._watch(launch)
        return True

    def _step(self, fd: int) -> None:
        launch = self._underway.pop(fd)
        # Its descriptor may be closed by now, and poll(2) knows numbers only.
        self._poll.unregister(fd)
        if launch.step():
            self._watch(launch)

    def _watch(self, launch: Launch) -> None:
        self._underway[launch.fileno()] = launch
        self._poll.register(launch.fileno(), select.POLLIN)

    def _revive_nursery(self) -> None:
        """At once, for a keeper may wait for its monitor."""
        self._poll.unregister(self._nursery_end)
        self._nursery.revive()
        self._nursery_end = self._nursery.fileno()
        self._poll.register(self._nursery_end, 0)

    def _prepare(self) -> None:
        try:
            self._spares.make()
        except ProcessLookupError:
            pass  # somebody killed it at birth; the next quiet moment brings another
        except OSError as error:
            complain(f"spawner: prepare a parent: {error}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
