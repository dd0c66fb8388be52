"""The library's calls about a container's files; `Container` and `AsyncContainer` have them.

What is done on this host (walking a tree, unpacking) is `client.copying`'s, which blocks: the
asynchronous face runs it in a thread, on a connection of its own.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from sampan.client import calls, container_calls, copying, flows, results
from sampan.client.failures import error_for
from sampan.client.sources import writer_to
from sampan.client.sync import Client

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import BinaryIO

    from sampan.client.aio import AsyncDriver
    from sampan.client.engine import Driver


class ContainerFiles:
    """What a container does with its files."""

    id: str
    _driver: Driver

    def copy_to(
        self, source: str | os.PathLike[str], path: str, *, follow: bool = False,
        as_user: bool = False,
    ) -> None:  # fmt: skip
        """Copy a file or directory of this host to `path`, by docker's rules for names.

        `DIR/.` is a directory's content; `follow` copies what a link points at; `as_user` gives
        everything to the container's user.

        Raises:
            NotFound: nothing is at `source`, or `path` has no directory to be in.
        """
        client = self._driver.client
        copying.copy_in(client, self.id, os.fspath(source), path, follow=follow, keep_owner=as_user)

    def copy_from(
        self, path: str, target: str | os.PathLike[str], *, follow: bool = False,
        keep_owner: bool = False,
    ) -> None:  # fmt: skip
        """Copy a file or directory of the container here; everything is the caller's unless
        `keep_owner`. What is damaged changes nothing.

        Raises:
            NotFound: nothing is at `path`, or `target` has no directory to be in.
        """
        client = self._driver.client
        copying.copy_out(
            client, self.id, path, os.fspath(target), follow=follow, keep_owner=keep_owner
        )

    def read_archive(self, path: str, target: str | os.PathLike[str] | BinaryIO) -> None:
        """Write the tar of `path` to a path or an open file. Raises NotFound."""
        with writer_to(target) as write:
            self._driver.drive(flows.save(container_calls.archive(self.id, path), write))

    def write_archive(self, path: str, source: Iterable[bytes], *, as_user: bool = False) -> None:
        """Unpack a tar, compressed or not, in the directory `path`: all of it or nothing."""
        call = container_calls.put_archive(self.id, path, source, as_user=as_user)
        self._driver.client.call(call)

    def export(self, target: str | os.PathLike[str] | BinaryIO) -> None:
        """Write the container's own file system as a tar, without its volumes."""
        with writer_to(target) as write:
            self._driver.drive(flows.save(container_calls.export(self.id), write))

    def changes(self) -> list[results.Change]:
        """What it changed in its file system, by path."""
        found = self._driver.client.call(container_calls.changes(self.id)) or ()
        return [results.Change.parse(one) for one in found]

    def commit(
        self, name: str = "", *, author: str = "", message: str = "",
        changes: Sequence[str] = (), pause: bool = True,
    ) -> results.Image:  # fmt: skip
        """Make an image of it; `changes` are instructions for its config, as `CMD ["sh"]`."""
        client = self._driver.client
        call = container_calls.commit(
            self.id, name, author=author, message=message, changes=changes, pause=pause
        )
        return results.Image.parse(client.call(calls.image_inspect(client.call(call)["Id"])))


class AsyncContainerFiles:
    """The same, awaited."""

    id: str
    _driver: AsyncDriver

    async def copy_to(
        self, source: str | os.PathLike[str], path: str, *, follow: bool = False,
        as_user: bool = False,
    ) -> None:  # fmt: skip
        """Copy a file or directory of this host to `path`, by docker's rules for names.

        `DIR/.` is a directory's content; `follow` copies what a link points at; `as_user` gives
        everything to the container's user.

        Raises:
            NotFound: nothing is at `source`, or `path` has no directory to be in.
        """

        def work() -> None:
            with self._blocking() as client:
                where = os.fspath(source)
                copying.copy_in(client, self.id, where, path, follow=follow, keep_owner=as_user)

        await asyncio.to_thread(work)

    async def copy_from(
        self, path: str, target: str | os.PathLike[str], *, follow: bool = False,
        keep_owner: bool = False,
    ) -> None:  # fmt: skip
        """Copy a file or directory of the container here; everything is the caller's unless
        `keep_owner`. What is damaged changes nothing.

        Raises:
            NotFound: nothing is at `path`, or `target` has no directory to be in.
        """

        def work() -> None:
            with self._blocking() as client:
                where = os.fspath(target)
                copying.copy_out(client, self.id, path, where, follow=follow, keep_owner=keep_owner)

        await asyncio.to_thread(work)

    async def read_archive(self, path: str, target: str | os.PathLike[str] | BinaryIO) -> None:
        """Write the tar of `path` to a path or an open file. Raises NotFound."""
        with writer_to(target) as write:
            await self._driver.drive(flows.save(container_calls.archive(self.id, path), write))

    async def write_archive(
        self, path: str, source: Iterable[bytes], *, as_user: bool = False
    ) -> None:
        """Unpack a tar, compressed or not, in the directory `path`: all of it or nothing."""
        call = container_calls.put_archive(self.id, path, source, as_user=as_user)
        await self._driver.client.call(call)

    async def export(self, target: str | os.PathLike[str] | BinaryIO) -> None:
        """Write the container's own file system as a tar, without its volumes."""
        with writer_to(target) as write:
            await self._driver.drive(flows.save(container_calls.export(self.id), write))

    async def changes(self) -> list[results.Change]:
        """What it changed in its file system, by path."""
        found = await self._driver.client.call(container_calls.changes(self.id)) or ()
        return [results.Change.parse(one) for one in found]

    async def commit(
        self, name: str = "", *, author: str = "", message: str = "",
        changes: Sequence[str] = (), pause: bool = True,
    ) -> results.Image:  # fmt: skip
        """Make an image of it; `changes` are instructions for its config, as `CMD ["sh"]`."""
        client = self._driver.client
        call = container_calls.commit(
            self.id, name, author=author, message=message, changes=changes, pause=pause
        )
        made = (await client.call(call))["Id"]
        return results.Image.parse(await client.call(calls.image_inspect(made)))

    def _blocking(self) -> Client:
        return Client(self._driver.client.path, error_for)
