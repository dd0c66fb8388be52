"""The daemon's life: open the engine, listen, wait, leave.

The engine takes the root's lock first; only then is a socket touched. `SIGTERM` and `SIGINT` end
the daemon in order: no new connections, streams are ended, running requests get `GRACE` seconds,
the engine is closed. Containers live on, each below its shim, and the next daemon finds them. A
second signal does not wait.

A daemon that was started on demand leaves by itself (`idle_exit`) when for so long no container ran
and no request came. It takes the socket's name away before it decides: whoever comes later starts a
new one.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from sampan.builder.ondemand import OnDemand
from sampan.daemon import sockets
from sampan.daemon.grpcsocket import GrpcSocket, containerd, kubernetes
from sampan.daemon.reload import Reloader
from sampan.daemon.tls import names_of, open_door
from sampan.engine.engine import Engine
from sampan.pods.service import Pods
from sampan.store.layout import Layout
from sampan.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.api.docker.app import DockerAPI
    from sampan.daemon.config import DaemonConfig

GRACE = 10.0
SHORT_TURN, USUAL_TURN = 0.0005, 0.005
"""Seconds that a thread keeps the interpreter while another one waits for it."""

_PLAIN_LISTS = "FROZENLIST_NO_EXTENSIONS"

_log = logging.getLogger("sampan.daemon")


async def serve(config: DaemonConfig, load: Callable[[], DaemonConfig]) -> None:
    """Run until a signal or idleness ends it; `load` reads the settings again.

    Raises:
        Unavailable: another daemon has the root.
        Conflict: another process listens on the socket.
    """
    os.umask(0o077)
    stop = asyncio.Event()
    on_signals(stop)
    engine = await Engine.open(config.engine)
    try:
        pods = await Pods.open(engine, config.cri)
        Reloader(config, load, pods).listen()
        layout = Layout(config.engine.root, config.engine.state)
        cri, ctr = _grpc_sockets(config, layout, engine, pods)
        try:
            api = await _docker_api(config, engine, pods, cri)
            await _serve(config, engine, pods, api, (cri, ctr), stop)
        finally:
            await cri.aclose()
    finally:
        await engine.aclose()
        _log.info("stopped")


async def _docker_api(
    config: DaemonConfig, engine: Engine, pods: Pods, cri: GrpcSocket
) -> DockerAPI:
    """Docker's interface. It can wait where there are pods: their kubelet asks again at once."""
    if config.cri.enabled and not pods.is_idle:
        await cri.start()
        # Who asks does not wait for 5 ms each time that the imports are at it.
        sys.setswitchinterval(SHORT_TURN)
        interface = await asyncio.to_thread(_imported)
        sys.setswitchinterval(USUAL_TURN)
    else:
        interface = _imported()
    return interface(engine, await OnDemand.open(engine), names_of(config.tls))


def _imported() -> type[DockerAPI]:
    # One of aiohttp's lists would bring the C++ library: a MiB, to be quicker at nothing we do.
    os.environ[_PLAIN_LISTS] = "1"
    try:
        from sampan.api.docker.app import DockerAPI
    finally:
        del os.environ[_PLAIN_LISTS]
    return DockerAPI


async def _serve(
    config: DaemonConfig,
    engine: Engine,
    pods: Pods,
    api: DockerAPI,
    others: tuple[GrpcSocket, GrpcSocket],
    stop: asyncio.Event,
) -> None:
    layout = Layout(config.engine.root, config.engine.state)
    cri, ctr = others
    protocols = api.server()
    door = await open_door(config.tls, config.socket)
    listener = sockets.listen(config.socket, config.group)
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(protocols, sock=listener, backlog=sockets.BACKLOG)
    try:
        if config.cri.enabled and not cri.is_open:
            cri.open()
        ctr.open()
        sockets.write_pid(layout.pid_file)
        _say_ready(config)
        await _until_done(
            config,
            stop,
            lambda: engine.is_idle and pods.is_idle and not (api.active or ctr.is_used),
            api,
        )
    finally:
        sockets.notify("STOPPING=1", os.environ.get("NOTIFY_SOCKET"))
        sockets.remove(config.socket)
        sockets.remove(layout.pid_file)
        server.close()
        await door.aclose()
        await cri.aclose()
        await ctr.aclose()
        await protocols.aclose(GRACE)


def _say_ready(config: DaemonConfig) -> None:
    # What was imported stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.enable()
    sockets.notify("READY=1", os.environ.get("NOTIFY_SOCKET"))
    _log.info("sampan %s listens on %s", VERSION, config.socket)


def _grpc_sockets(
    config: DaemonConfig, layout: Layout, engine: Engine, pods: Pods
) -> tuple[GrpcSocket, GrpcSocket]:
    title = "the Kubernetes runtime interface"
    cri = GrpcSocket(partial(kubernetes, pods), title, layout.cri_socket, config.group)
    title = "containerd's interface"
    return cri, GrpcSocket(partial(containerd, engine), title, layout.containerd_socket)


async def _until_done(
    config: DaemonConfig, stop: asyncio.Event, is_idle: Callable[[], bool], api: DockerAPI
) -> None:
    """Wait for a signal, or for the time of idleness."""
    idle_since = monotonic()
    pause = max(0.05, min(config.idle_exit / 4, 15.0)) if config.idle_exit else None
    while not stop.is_set():
        try:
            async with asyncio.timeout(pause):
                await stop.wait()
        except TimeoutError:
            if not is_idle():
                idle_since = monotonic()
            elif monotonic() - max(idle_since, api.last_request) > config.idle_exit:
                _log.info("idle for %d s, leaving", config.idle_exit)
                return


def on_signals(stop: asyncio.Event) -> None:
    """Let the first SIGTERM or SIGINT set `stop`, and the second one end the process."""
    loop = asyncio.get_running_loop()

    def received(number: signal.Signals) -> None:
        if stop.is_set():
            _log.warning("second %s, leaving at once", number.name)
            os._exit(128 + number)
        _log.info("%s, stopping", number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
