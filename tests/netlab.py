"""Network namespaces for tests: each is held by a process of ours, and gone with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

CNI_BIN = "/usr/lib/cni"

needs_net = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("nft") or not shutil.which("ip"),
    reason="needs root, nft and ip",
)
needs_cni = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists(f"{CNI_BIN}/bridge"),
    reason="needs root and containernetworking-plugins",
)


class Space:
    """A network namespace, by the process that holds it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up; echo up; exec sleep infinity"],
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"up\n"

    @property
    def path(self) -> str:
        """What names the namespace."""
        return f"/proc/{self.process.pid}/ns/net"

    def run(self, *command: str, check: bool = True) -> str:
        """The output of a command inside."""
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", *command],
            check=False, capture_output=True, timeout=30, text=True,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def popen(self, *command: str, **more: object) -> subprocess.Popen[bytes]:
        """A command inside that goes on."""
        return subprocess.Popen(["nsenter", f"--net={self.path}", *command], **more)

    def addresses(self, name: str) -> list[str]:
        """The addresses of an interface, without link-local ones."""
        found = json.loads(self.run("ip", "-j", "address", "show", "dev", name))
        return [
            f"{info['local']}/{info['prefixlen']}"
            for info in found[0]["addr_info"]
            if info["scope"] == "global"
        ]

    def close(self) -> None:
        """Let go of it."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def space() -> Iterator[Space]:
    """A network namespace for the time of the block."""
    made = Space()
    try:
        yield made
    finally:
        made.close()


def links() -> list[str]:
    """The names of the interfaces here."""
    return [link["ifname"] for link in json.loads(output("ip", "-j", "link"))]


def output(*command: str) -> str:
    """The output of a command."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
