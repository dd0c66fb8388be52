"""An engine inside of this process: its event loop in a thread, its API on a private socket.

The engine is the daemon's, built from the same parts and the same configuration file; only the
signals and the pid file are left out. Its root is locked like a daemon's, so a second engine for it
is refused. A root of its own has a state directory of its own, named after it, so that a later
engine finds what still runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import threading

from sampan.api.docker.app import DockerAPI
from sampan.builder.ondemand import OnDemand
from sampan.client.address import default_state
from sampan.daemon import sockets
from sampan.daemon.config import load
from sampan.engine.config import DEFAULT_ROOT
from sampan.engine.engine import Engine

GRACE = 2.0


def places(root: str, state: str) -> tuple[str, str]:
    """The root and the state directory of an embedded engine."""
    if not root:
        return os.environ.get("SAMPAN_ROOT") or DEFAULT_ROOT, state or default_state()
    root = os.path.abspath(root)
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
    return root, os.path.abspath(state) if state else f"{default_state()}-{name}"


class Embedded:
    """Runs an engine until it is closed. `path` is its socket."""

    def __init__(self, root: str = "", state: str = "", config: str = "") -> None:
        root, state = places(root, state)
        flags = {"root": root, "state": state} | ({"config": config} if config else {})
        self._config = load(flags, os.environ, os.geteuid()).engine
        self._directory = tempfile.mkdtemp(prefix="sampan-")
        self.path = os.path.join(self._directory, "docker.sock")
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="sampan-engine", daemon=True)
        self._thread.start()
        self._started.wait()
        failure = self._outcome()
        if failure is not None:
            self.close()
            raise failure

    def close(self) -> None:
        """End the engine; its containers go on."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            try:
                self._loop.call_soon_threadsafe(self._stop.set)
            except RuntimeError:
                pass  # the loop has ended by itself
        self._thread.join()
        sockets.remove(self.path)
        try:
            os.rmdir(self._directory)
        except FileNotFoundError:
            pass  # closed before

    def _outcome(self) -> BaseException | None:
        return self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._started.is_set():
                raise
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        engine = await Engine.open(self._config)
        try:
            protocols = DockerAPI(engine, await OnDemand.open(engine)).server()
            listener = sockets.listen(self.path)
            server = await self._loop.create_unix_server(
                protocols, sock=listener, backlog=sockets.BACKLOG
            )
            self._started.set()
            try:
                await self._stop.wait()
            finally:
                server.close()
                await protocols.aclose(GRACE)
        finally:
            await engine.aclose()
