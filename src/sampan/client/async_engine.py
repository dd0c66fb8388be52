"""The asynchronous library: `AsyncEngine` and `AsyncContainer`.

The same words and the same flows as in `client.engine`, awaited. An engine belongs to the event
loop it was opened in; an embedded one has a thread and a loop of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from sampan.client import calls, flows, network_calls, results
from sampan.client.aio import AsyncClient, AsyncDriver
from sampan.client.async_images import AsyncEngineImages
from sampan.client.container_files import AsyncContainerFiles
from sampan.client.failures import error_for
from sampan.client.networks import AsyncNetworks
from sampan.client.opening import Opened, choose, embed
from sampan.client.options import ContainerOptions, container_body, exec_body, port_bindings
from sampan.client.sources import tail_query
from sampan.client.streams import STDOUT, Frames
from sampan.client.volumes import AsyncVolumes

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self


def _opened(
    root: str | os.PathLike[str] | None,
    host: str | None,
    embedded: bool | None,  # noqa: FBT001, RUF100
    state: str | os.PathLike[str] | None,
    config: str | os.PathLike[str] | None,
) -> Opened:
    return choose(root, host, embedded, state) or embed(root, state, config)


class AsyncContainer(AsyncContainerFiles):
    """A container, by its id."""

    def __init__(self, driver: AsyncDriver, container_id: str) -> None:
        self._driver = driver
        self.id = container_id

    def __repr__(self) -> str:
        return f"AsyncContainer({self.id[:12]!r})"

    async def start(self) -> None:
        """Start it."""
        await self._driver.client.call(calls.start(self.id))

    async def stop(self, timeout: int | None = None, signal: str = "") -> None:
        """Ask it to end, and kill it after `timeout` seconds."""
        await self._driver.client.call(calls.stop(self.id, timeout, signal))

    async def restart(self, timeout: int | None = None) -> None:
        """Stop it, and start it again."""
        await self._driver.client.call(calls.restart(self.id, timeout))

    async def kill(self, signal: str = "KILL") -> None:
        """Send it a signal."""
        await self._driver.client.call(calls.kill(self.id, signal))

    async def pause(self) -> None:
        """Freeze its processes."""
        await self._driver.client.call(calls.pause(self.id))

    async def unpause(self) -> None:
        """Let its processes go on."""
        await self._driver.client.call(calls.unpause(self.id))

    async def publish(self, *ports: str) -> None:
        """Publish ports of it, as `8080:80`, also while it runs. Raises Conflict."""
        body = {"Add": port_bindings(ports)}
        await self._driver.client.call(network_calls.change_ports(self.id, body))

    async def unpublish(self, *ports: str) -> None:
        """Withdraw published ports. Raises NotFound."""
        body = {"Remove": port_bindings(ports)}
        await self._driver.client.call(network_calls.change_ports(self.id, body))

    async def restrict(self, rules: Sequence[str] | None) -> None:
        """Let it reach these names and networks only; none is nothing, None is everything."""
        allowed = None if rules is None else list(rules)
        await self._driver.client.call(network_calls.change_egress(self.id, allowed))

    async def rename(self, name: str) -> None:
        """Give it another name."""
        await self._driver.client.call(calls.rename(self.id, name))

    async def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it; a running one only with `force`."""
        await self._driver.client.call(calls.remove(self.id, force=force, volumes=volumes))

    async def wait(self, timeout: float | None = None) -> int:
        """Wait until it does not run, and give back its exit code.

        Raises:
            DeadlineExceeded: it runs after `timeout` seconds.
        """
        return await self._driver.drive(flows.wait(self.id, timeout))

    async def exec(
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
        return await self._driver.drive(flows.execute(self.id, body, input, timeout))

    async def inspect(self) -> results.ContainerInfo:
        """All that is known of it."""
        return results.ContainerInfo.parse(await self._driver.client.call(calls.inspect(self.id)))

    async def stats(self) -> results.Stats:
        """What it uses now."""
        return results.Stats.parse(await self._driver.client.call(calls.stats(self.id)))

    async def logs(
        self, *, tail: int | None = None, since: float | None = None, timestamps: bool = False
    ) -> results.Output:
        """What it has written."""
        query = tail_query(tail, since) | {"timestamps": timestamps}
        return await self._driver.drive(flows.logs(self.id, query))

    async def follow_logs(
        self, *, tail: int | None = None, since: float | None = None
    ) -> AsyncIterator[results.LogChunk]:
        """What it has written and writes, until its end."""
        client = self._driver.client
        info = await client.call(calls.inspect(self.id))
        frames = Frames()
        tty = bool((info.get("Config") or {}).get("Tty"))
        answer = await client.open(calls.logs(self.id, follow=True, **tail_query(tail, since)))
        try:
            async for piece in answer.pieces():
                for stream, data in ((STDOUT, piece),) if tty else frames.feed(piece):
                    name = "stdout" if stream == STDOUT else "stderr"
                    yield results.LogChunk(stream=name, data=data)
        finally:
            answer.close()


class AsyncEngine(AsyncEngineImages):
    """An engine, running elsewhere or in this process. Make one with `open`."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._driver = AsyncDriver(AsyncClient(opened.path, error_for))
        self.networks = AsyncNetworks(self._driver.client)
        self.volumes = AsyncVolumes(self._driver.client)

    @classmethod
    async def open(
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
        return cls(await asyncio.to_thread(_opened, root, host, embedded, state, config))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        await self.close()

    async def close(self) -> None:
        """Hang up, and end an embedded engine. Containers that run go on."""
        self._driver.client.close()
        await asyncio.to_thread(self._opened.close)

    @overload
    async def run(
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
    async def run(
        self,
        image: str | None = None,
        rootfs: str | os.PathLike[str] | None = None,
        command: Sequence[str] | str = (),
        *,
        detach: Literal[True],
        **options: Unpack[ContainerOptions],
    ) -> AsyncContainer: ...

    async def run(
        self,
        image: str | None = None,
        rootfs: str | os.PathLike[str] | None = None,
        command: Sequence[str] | str = (),
        *,
        input: bytes | None = None,  # noqa: A002  the word that subprocess has for it
        timeout: float | None = None,
        detach: bool = False,
        **options: Unpack[ContainerOptions],
    ) -> results.RunResult | AsyncContainer:
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
            return AsyncContainer(
                self._driver, (await self._driver.drive(flows.start(body, options)))
            )
        return await self._driver.drive(flows.run(body, options, input, timeout))

    async def create(
        self,
        image: str | None = None,
        rootfs: str | os.PathLike[str] | None = None,
        command: Sequence[str] | str = (),
        **options: Unpack[ContainerOptions],
    ) -> AsyncContainer:
        """Make a container, and do not start it."""
        body = container_body(image, rootfs, command, options)
        return AsyncContainer(self._driver, (await self._driver.drive(flows.create(body, options))))

    async def container(self, ref: str) -> AsyncContainer:
        """The container with a name, an id, or a prefix of one.

        Raises:
            ContainerNotFound: there is none.
        """
        return AsyncContainer(
            self._driver, (await self._driver.client.call(calls.inspect(ref)))["Id"]
        )

    async def containers(self, *, all: bool = False) -> list[results.ContainerSummary]:  # noqa: A002
        """The containers that run, or all."""
        found = await self._driver.client.call(calls.containers(everything=all))
        return [results.ContainerSummary.parse(one) for one in found]

    async def events(
        self, since: str = "", until: str = "", filters: dict[str, list[str]] | None = None
    ) -> AsyncIterator[results.Event]:
        """What happens, from now on or from `since`; `until` ends it."""
        answer = await self._driver.client.open(calls.events(since, until, filters))
        try:
            async for line in answer.lines():
                yield results.Event.parse(line)
        finally:
            answer.close()

    async def info(self) -> dict[str, Any]:
        """The engine's own description."""
        document = await self._driver.client.call(calls.info())
        assert isinstance(document, dict)
        return document

    async def version(self) -> dict[str, Any]:
        """The versions of the engine and of its API."""
        document = await self._driver.client.call(calls.version())
        assert isinstance(document, dict)
        return document
