"""What holds for every module of tests: it leaves no interface of ours behind.

A module that leaves one would otherwise be told by some other module, far behind it.
"""

from __future__ import annotations

import socket
import time

import pytest

PATIENCE = 20
"""Seconds that the kernel has to remove a namespace, and with it the interfaces in it."""


def interfaces():
    """Bridges and the host's ends of containers' interfaces."""
    names = (name for _, name in socket.if_nameindex())
    return {name for name in names if name.startswith(("sb-", "sv", "sampan"))}


@pytest.fixture(scope="module", autouse=True)
def _no_interface_is_left():
    before = interfaces()
    yield
    deadline = time.monotonic() + PATIENCE
    while left := interfaces() - before:
        assert time.monotonic() < deadline, f"interfaces are left: {sorted(left)}"
        time.sleep(0.02)
