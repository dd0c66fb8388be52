"""The blocking library: `Engine` and `Container`.

`Engine.open` connects to a running daemon, or embeds one in this process; either way the same
calls go over a unix socket, so there is one implementation. An engine may be used by several
threads. What a method does is a flow; this module only drives flows and makes typed values of their
results.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from sampan.client import calls, flows, network_calls, results
from sampan.client.container_files import ContainerFiles
from sampan.client.engine_images import EngineImages
from sampan.client.failures import error_for
from sampan.client.networks import Networks
from sampan.client.opening import Opened, choose, embed
from sampan.client.options import ContainerOptions, container_body, exec_body, port_bindings
from sampan.client.sources import tail_query
from sampan.client.streams import STDOUT, Frames
from sampan.client.sync import Answer, Client
from sampan.client.volumes import Volumes
from sampan.errors import DeadlineExceeded

if TYPE_CHECKING:
    import _socket
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from sampan.client.flows import Flow, Step

T = TypeVar("T")
_PIECE = 65536


class _Stream:
    """A connection that was taken over."""

    def __init__(self, raw: _socket.socket, first: bytes, framed: bool) -> None:  # noqa: FBT001, RUF100
        self.raw = raw
        self.first = first
        self.framed = framed

    def close(self) -> None:
        self.raw.close()


class Driver:
    """Drives flows with a blocking client."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def drive(self, flow: Flow[T]) -> T:
        """Perform the steps of `flow`, and give back what it comes to."""
        try:
            step = next(flow)
            while True:
                try:
                    reply = self._perform(step)
                except BaseException as error:  # thrown into the flow, which undoes and raises it
                    step = flow.throw(error)
                else:
                    step = flow.send(reply)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def _perform(self, step: Step) -> Any:
        match step:
            case flows.Open():
                return self.client.open(step.call)
            case flows.Read():
                return _read(step)
            case flows.Close():
                return step.handle.close()
            case flows.Upgrade():
                return _Stream(*self.client.upgrade(step.call))
            case flows.Talk():
                return _talk(step)
            case flows.Each():
                return _each(self.client.open(step.call), step.function)
            case _:
                return self.client.call(step)


def _each(answer: Answer, function: Callable[[Any], None]) -> None:
    try:
        for line in answer.lines():
            function(line)
    except BaseException:
        answer.close()
        raise


def _read(step: flows.Read) -> Any:
    if step.timeout is not None and not step.handle.ready(int(step.timeout * 1000)):
        raise DeadlineExceeded("wait for container: the time given was not enough")
    return step.handle.document()


def _talk(step: flows.Talk) -> None:
    if isinstance(step.handle, Answer):
        for piece in step.handle.pieces():
            step.output.feed(piece)
        return
    stream: _Stream = step.handle
    step.output.begin(framed=stream.framed)
    step.output.feed(stream.first)
    stream.raw.setblocking(False)
    pending = memoryview(step.data or b"")
    closing = step.data is not None
    deadline = None if step.timeout is None else time.monotonic() + step.timeout
    while True:
        events = _poll(stream.raw, deadline, sending=bool(pending) or closing)
        if events & select.POLLOUT and (pending or closing):
            pending = _send(stream.raw, pending)
            if closing and not pending:
                closing = False
                _half_close(stream.raw)
        if events & ~select.POLLOUT:
            data = _receive(stream.raw)
            if data is None:
                continue
            if not data:
                return
            step.output.feed(data)


def _poll(raw: _socket.socket, deadline: float | None, *, sending: bool) -> int:
    poll = select.poll()
    poll.register(raw.fileno(), select.POLLIN | (select.POLLOUT if sending else 0))
    timeout = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
    ready = poll.poll(timeout)
    if not ready:
        raise DeadlineExceeded("talk to container: the time given was not enough")
    return ready[0][1]


def _send(raw: _socket.socket, pending: memoryview) -> memoryview:
    try:
        return pending[raw.send(pending[:_PIECE]) :] if pending else pending
    except BlockingIOError:
        return pending
    except OSError:
        return pending[:0]  # the process does not read any more: what it says still comes


def _half_close(raw: _socket.socket) -> None:
    try:
        raw.shutdown(1)
    except OSError:
        pass  # the peer was quicker


def _receive(raw: _socket.socket) -> bytes | None:
    try:
        return raw.recv(_PIECE)
    except BlockingIOError:
        return None
    except OSError:
        return b""


class Container(ContainerFiles):
    """A container, by its id."""

    def __init__(self, driver: Driver, container_id: str) -> None:
        self._driver = driver
        self.id = container_id

    def __repr__(self) -> str:
        return f"Container({self.id[:12]!r})"

    def start(self) -> None:
        """Start it."""
        self._driver.client.call(calls.start(self.id))

    def stop(self, timeout: int | None = None, signal: str = "") -> None:
        """Ask it to end, and kill it after `timeout` seconds."""
        self._driver.client.call(calls.stop(self.id, timeout, signal))

    def restart(self, timeout: int | None = None) -> None:
        """Stop it, and start it again."""
        self._driver.client.call(calls.restart(self.id, timeout))

    def kill(self, signal: str = "KILL") -> None:
        """Send it a signal."""
        self._driver.client.call(calls.kill(self.id, signal))

    def pause(self) -> None:
        """Freeze its processes."""
        self._driver.client.call(calls.pause(self.id))

    def unpause(self) -> None:
        """Let its processes go on."""
        self._driver.client.call(calls.unpause(self.id))

    def publish(self, *ports: str) -> None:
        """Publish ports of it, as `8080:80`, also while it runs. Raises Conflict."""
        body = {"Add": port_bindings(ports)}
        self._driver.client.call(network_calls.change_ports(self.id, body))

    def unpublish(self, *ports: str) -> None:
        """Withdraw published ports. Raises NotFound."""
        body = {"Remove": port_bindings(ports)}
        self._driver.client.call(network_calls.change_ports(self.id, body))

    def restrict(self, rules: Sequence[str] | None) -> None:
        """Let it reach these names and networks only; none is nothing, None is everything."""
        allowed = None if rules is None else list(rules)
        self._driver.client.call(network_calls.change_egress(self.id, allowed))

    def rename(self, name: str) -> None:
        """Give it another name."""
        self._driver.client.call(calls.rename(self.id, name))

    def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it; a running one only with `force`."""
        self._driver.client.call(calls.remove(self.id, force=force, volumes=volumes))

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it does not run, and give back its exit code.

        Raises:
            DeadlineExceeded: it runs after `timeout` seconds.
        """
        return self._driver.drive(flows.wait(self.id, timeout))

    def exec(
        self,
        command: Sequence[str] | str,
        *,
        input: bytes | None = None,  # noqa: A002  the word that subprocess has for it
        timeout: float | None = None,
        env: Mapping[str, str] | Sequence[str] = (),
        user: str = "",
        workdir: str = "",
        privileged: bool = False,
        tty: bool = False,
    ) -> results.ExecResult:
        """Run another process in it, and wait for its end."""
        body = exec_body(
            command, stdin=input is not None, env=env, user=user, workdir=workdir,
            privileged=privileged, tty=tty,
        )  # fmt: skip
        return self._driver.drive(flows.execute(self.id, body, input, timeout))

    def inspect(self) -> results.ContainerInfo:
        """All that is known of it."""
        return results.ContainerInfo.parse(self._driver.client.call(calls.inspect(self.id)))

    def stats(self) -> results.Stats:
        """What it uses now."""
        return results.Stats.parse(self._driver.client.call(calls.stats(self.id)))

    def logs(
        self, *, tail: int | None = None, since: float | None = None, timestamps: bool = False
    ) -> results.Output:
        """What it has written."""
        query = tail_query(tail, since) | {"timestamps": timestamps}
        return self._driver.drive(flows.logs(self.id, query))

    def follow_logs(
        self, *, tail: int | None = None, since: float | None = None
    ) -> Iterator[results.LogChunk]:
        """What it has written and writes, until its end."""
        client = self._driver.client
        info = client.call(calls.inspect(self.id))
        frames = Frames()
        tty = bool((info.get("Config") or {}).get("Tty"))
        answer = client.open(calls.logs(self.id, follow=True, **tail_query(tail, since)))
        try:
            for piece in answer.pieces():
                for stream, data in ((STDOUT, piece),) if tty else frames.feed(piece):
                    name = "stdout" if stream == STDOUT else "stderr"
                    yield results.LogChunk(stream=name, data=data)
        finally:
            answer.close()


class Engine(EngineImages):
    """An engine, running elsewhere or in this process. Make one with `open`."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._driver = Driver(Client(opened.path, error_for))
        self.networks = Networks(self._driver.client)
        self.volumes = Volumes(self._driver.client)

    @classmethod
    def open(
        cls,
        root: str | os.PathLike[str] | None = None,
        host: str | None = None,
        embedded: bool | None = None,
        *,
        state: str | os.PathLike[str] | None = None,
        config: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Connect to a daemon, or embed one.

        `host` names a daemon's socket. Without it the daemon at the default place serves when it
        runs and no `root` is given; else the engine is embedded. `embedded` True or False asks for
        the one or the other; False starts a daemon on demand. `config` is the configuration file
        of an embedded engine, in place of `/etc/sampan/config.toml`.

        Raises:
            Unavailable: nobody listens, or another engine has the root.
        """
        return cls(choose(root, host, embedded, state) or embed(root, state, config))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """Hang up, and end an embedded engine. Containers that run go on."""
        self._driver.client.close()
        self._opened.close()

    @overload
    def run(
        self,
        image: str | None = None,
        rootfs: str | os.PathLike[str] | None = None,
        command: Sequence[str] | str = (),
        *,
        input: bytes | None = None,
        timeout: float | None = None,
        detach: Literal[False] = False,
        **options: Unpack[ContainerOptions],
    ) -> results.RunResult: ...
    @overload
    def run(
        self,
        image: str | None = None,
        rootfs: str | os.PathLike[str] | None = None,
        command: Sequence[str] | str = (),
        *,
        detach: Literal[True],
        **options: Unpack[ContainerOptions],
    ) -> Container: ...

    def run(
        self,
        image: str | None = None,
        rootfs: str | os.PathLike[str] | None = None,
        command: Sequence[str] | str = (),
        *,
        input: bytes | None = None,  # noqa: A002  the word that subprocess has for it
        timeout: float | None = None,
        detach: bool = False,
        **options: Unpack[ContainerOptions],
    ) -> results.RunResult | Container:
        """Run a command in a new container, and wait; with `detach`, do not.

        An attached container is removed when it has ended, unless `remove` is False; a detached
        one stays, unless it is True. `input` is given to its standard input, which then ends.

        Raises:
            StartFailed: the command could not be started; `exit_code` 127: it does not exist.
            DeadlineExceeded: it did not end within `timeout` seconds, and was killed.
        """
        if not detach:
            options.setdefault("remove", True)
        body = container_body(image, rootfs, command, options)
        if detach:
            return Container(self._driver, self._driver.drive(flows.start(body, options)))
        return self._driver.drive(flows.run(body, options, input, timeout))

    def create(
        self,
        image: str | None = None,
        rootfs: str | os.PathLike[str] | None = None,
        command: Sequence[str] | str = (),
        **options: Unpack[ContainerOptions],
    ) -> Container:
        """Make a container, and do not start it."""
        body = container_body(image, rootfs, command, options)
        return Container(self._driver, self._driver.drive(flows.create(body, options)))

    def container(self, ref: str) -> Container:
        """The container with a name, an id, or a prefix of one.

        Raises:
            ContainerNotFound: there is none.
        """
        return Container(self._driver, self._driver.client.call(calls.inspect(ref))["Id"])

    def containers(self, *, all: bool = False) -> list[results.ContainerSummary]:  # noqa: A002
        """The containers that run, or all."""
        found = self._driver.client.call(calls.containers(everything=all))
        return [results.ContainerSummary.parse(one) for one in found]

    def events(
        self, since: str = "", until: str = "", filters: dict[str, list[str]] | None = None
    ) -> Iterator[results.Event]:
        """What happens, from now on or from `since`; `until` ends it."""
        answer = self._driver.client.open(calls.events(since, until, filters))
        try:
            for line in answer.lines():
                yield results.Event.parse(line)
        finally:
            answer.close()

    def info(self) -> dict[str, Any]:
        """The engine's own description."""
        document = self._driver.client.call(calls.info())
        assert isinstance(document, dict)
        return document

    def version(self) -> dict[str, Any]:
        """The versions of the engine and of its API."""
        document = self._driver.client.call(calls.version())
        assert isinstance(document, dict)
        return document
