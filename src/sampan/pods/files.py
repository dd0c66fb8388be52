"""The files below /etc that containers of a pod share: hosts, hostname, resolv.conf. Blocking."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from sampan.pods.model import Dns

MAX_FILE = 1 << 20


def write(directory: str, *, hostname: str, dns: Dns | None) -> None:
    """Write them into the existing `directory`, as containerd does: hosts as the node has it."""
    _write(f"{directory}/hostname", f"{hostname}\n")
    _write(f"{directory}/hosts", _read("/etc/hosts"))
    _write(f"{directory}/resolv.conf", resolv_conf(dns) or _read("/etc/resolv.conf"))


def resolv_conf(dns: Dns | None) -> str:
    """The text that `dns` asks for, "" when it asks for nothing.

    Raises:
        InvalidArgument: a word would start a line of its own.
    """
    if dns is None:
        return ""
    if any("\n" in word or "\0" in word for word in (*dns.servers, *dns.searches, *dns.options)):
        raise InvalidArgument("dns_config: a newline in a word")
    lines = [f"search {' '.join(dns.searches)}"] if dns.searches else []
    lines += [f"nameserver {server}" for server in dns.servers]
    lines += [f"options {' '.join(dns.options)}"] if dns.options else []
    return "".join(f"{line}\n" for line in lines)


def remove(directory: str) -> None:
    """Remove the directory with its files; fine when it is gone."""
    try:
        for name in os.listdir(directory):
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
    except FileNotFoundError:
        return


def _write(path: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o644)
    try:
        os.write(fd, text.encode("utf-8", "surrogateescape"))
        os.fchmod(fd, 0o644)
    finally:
        os.close(fd)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(MAX_FILE)
    except OSError:
        return ""
