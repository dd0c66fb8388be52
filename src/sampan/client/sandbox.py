"""`Sandbox`: a container for code that nobody trusts, gone when the block ends, or its process.

    with sampan.Sandbox("python:3", memory="256m", time=30) as box:
        box.write("/tmp/main.py", source)
        print(box.run(["python3", "/tmp/main.py"]).text)

No network unless `egress` names what may be reached, no capability, no new privileges; limits of
memory, processes and time always. The container's first process is `keeper`, which reads its
standard input from this process and ends with it: when this process dies, however it does, the
kernel closes the connection and the container ends. Commands are executed beside it, files go in
and out through `cat` of the image. Without a daemon at the usual place the engine runs inside of
this process.

After a kill of a process that embeds the engine, nothing of the sandbox runs; its files go when the
next engine opens the same root. A root engine is needed, as for every container so far.
"""

from __future__ import annotations

import threading
import time as clock
from typing import TYPE_CHECKING, Any

from sampan.client import calls, flows
from sampan.client.engine import Container, Driver, Engine
from sampan.client.options import ContainerOptions, container_body, exec_body
from sampan.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, SampanError

if TYPE_CHECKING:
    import _socket
    import os
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from sampan.client import results

USER = "65534:65534"
"""Who runs in it unless the caller says otherwise: nobody."""


GRACE = 1.0
"""Seconds behind the end of the time after which what was left in the background ends as well."""


class Sandbox:
    """One container, for as long as the block lasts.

    `time` is in seconds, for everything. `userns` gives it a user namespace of its own: its root is
    nobody on the host.
    """

    def __init__(
        self,
        image: str | None = None,
        *,
        rootfs: str | os.PathLike[str] | None = None,
        time: float = 60.0,
        memory: int | str = "256m",
        cpus: float = 1.0,
        pids: int = 128,
        user: str = USER,
        keeper: Sequence[str] = ("cat",),
        userns: bool = False,
        egress: Sequence[str] | None = (),
        engine: Engine | None = None,
    ) -> None:
        """`egress` are the names and networks that may be reached; none of them is no network at
        all, and None is everything."""
        if time <= 0:
            raise InvalidArgument(f"sandbox: time must be more than 0 seconds, not {time}")
        options = _options(cpus, memory, pids, user)
        if egress is None or egress:
            options["network"] = "default"
        if egress:
            options["egress"] = list(egress)
        self._body = container_body(image, rootfs, keeper, options)
        self._body |= {"AttachStdin": True, "OpenStdin": True, "StdinOnce": True}
        if userns:
            self._body["HostConfig"]["UsernsMode"] = "auto"
        self._options = options
        self._time = time
        self._deadline = 0.0
        self._given = engine
        self._engine: Engine | None = None
        self._container: Container | None = None
        self._leash: _socket.socket | None = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        self._engine = self._given or Engine.open()
        driver = self._engine._driver  # noqa: SLF001 - one library
        try:
            self._begin(driver)
        except BaseException:
            self.close()
            raise
        self._deadline = clock.monotonic() + self._time
        self._timer = threading.Timer(self._time + GRACE, self._cut_leash)
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _begin(self, driver: Driver) -> None:
        self._container = Container(driver, driver.drive(flows.create(self._body, self._options)))
        attach = calls.attach(self._container.id, stdin=True, stdout=False, stderr=False)
        self._leash, _, _ = driver.client.upgrade(attach)
        self._container.start()

    def restrict(self, rules: Sequence[str]) -> None:
        """Let it reach these names and networks from now on, and no others.

        Raises:
            FailedPrecondition: it is not open, or was made without a network.
        """
        if self._container is None or self._options["network"] == "none":
            raise FailedPrecondition("restrict a sandbox: it has no network")
        self._container.restrict(rules)

    def run(
        self,
        command: Sequence[str] | str,
        *,
        input: bytes | None = None,  # noqa: A002  the word that subprocess has for it
        timeout: float | None = None,
        env: Mapping[str, str] | Sequence[str] = (),
        workdir: str = "/tmp",
    ) -> results.ExecResult:
        """Run a command and wait for its end.

        Raises:
            DeadlineExceeded: it took longer than `timeout`, or than is left of the sandbox's time;
                the whole sandbox has ended then, with whatever the command had started.
            FailedPrecondition: the sandbox has ended already.
        """
        container = self._running()
        left = self._deadline - clock.monotonic()
        seconds = left if timeout is None else min(timeout, left)
        body: dict[str, Any] = exec_body(
            command, stdin=input is not None, env=env, workdir=workdir
        )  # fmt: skip
        try:
            if seconds <= 0:
                raise DeadlineExceeded("sandbox: its time is over")
            assert self._engine is not None
            driver = self._engine._driver  # noqa: SLF001 - one library
            return driver.drive(flows.execute(container.id, body, input, seconds))
        except DeadlineExceeded:
            self._end()
            raise

    def write(self, path: str, data: bytes) -> None:
        """Write a file in the sandbox. Raises CommandFailed when that cannot be done."""
        self.run(["sh", "-c", 'cat > "$1"', "sh", path], input=data).check()

    def read(self, path: str) -> bytes:
        """Read a file of the sandbox. Raises CommandFailed when that cannot be done."""
        return self.run(["cat", path]).check().stdout

    def put(self, source: str | os.PathLike[str], path: str) -> None:
        """Copy a file or directory of the host into the sandbox, as `docker cp` would."""
        self._running().copy_to(source, path)

    def get(self, path: str, destination: str | os.PathLike[str]) -> None:
        """Copy a file or directory of the sandbox to the host. Links stay links."""
        self._running().copy_from(path, destination)

    def close(self) -> None:
        """End the container, and with it everything in it. Idempotent."""
        self._end()
        if self._engine is not None and self._given is None:
            self._engine.close()
        self._engine = None

    def _running(self) -> Container:
        if self._container is None:
            raise FailedPrecondition("sandbox: it has ended, or was not entered")
        return self._container

    def _cut_leash(self) -> None:
        """The time is over and nobody asks for anything: the first process reads its end."""
        leash, self._leash = self._leash, None
        if leash is not None:
            leash.close()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        container, self._container = self._container, None
        self._cut_leash()
        if container is not None:
            try:
                container.remove(force=True, volumes=True)
            except SampanError:
                return  # it ended by itself, and was removed


def _options(cpus: float, memory: int | str, pids: int, user: str) -> ContainerOptions:
    return {
        "cap_drop": ["ALL"],
        "cpus": cpus,
        "log_driver": "none",
        "memory": memory,
        "memory_swap": memory,
        "network": "none",
        "pids_limit": pids,
        "remove": True,
        "security_opt": ["no-new-privileges"],
        "tmpfs": {"/tmp": "mode=1777,size=64m,exec"},
        "user": user,
    }
