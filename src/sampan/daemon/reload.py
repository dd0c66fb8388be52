"""SIGHUP: the settings are read again, and what can change in a running daemon changes.

That is the log's level, the table `[cri]` and the table `[runtimes]`. Everything else is decided at
the start; a change of it is told by its key, and waits for a restart, which containers live
through. Settings that are wrong change nothing.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from sampan.engine import runtimes
from sampan.errors import SampanError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.daemon.config import DaemonConfig
    from sampan.pods.service import Pods

_log = logging.getLogger("sampan.daemon")


class Reloader:
    """Reads the settings again by `load`, on each SIGHUP."""

    def __init__(self, config: DaemonConfig, load: Callable[[], DaemonConfig], pods: Pods) -> None:
        self._config = config
        self._load = load
        self._pods = pods

    def listen(self) -> None:
        """From now on, SIGHUP is heard."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)

    def reload(self) -> None:
        """Read the settings, and apply what can be applied."""
        try:
            fresh = self._load()
            found = runtimes.find(fresh.engine.runtimes)
        except SampanError as error:
            _log.error("settings are not reloaded: %s", error)
            return
        for key in waiting(self._config, fresh):
            _log.warning("settings: %s has changed, which takes effect at the next start", key)
        logging.getLogger().setLevel(fresh.log_level.upper())
        self._pods.reload(replace(fresh.cri, enabled=self._config.cri.enabled), found)
        _log.info("settings are reloaded")


def waiting(old: DaemonConfig, new: DaemonConfig) -> list[str]:
    """The keys that differ and can only change at a start."""
    keys = ["socket", "group", "log_format", "idle_exit"]
    found = [key for key in keys if getattr(old, key) != getattr(new, key)]
    found += [
        entry.name
        for entry in fields(old.engine)
        if entry.name != "runtimes"
        and getattr(old.engine, entry.name) != getattr(new.engine, entry.name)
    ]
    if old.cri.enabled != new.cri.enabled:
        found.append("cri.enabled")
    return found
