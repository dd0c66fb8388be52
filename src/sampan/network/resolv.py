"""resolv.conf and hosts of containers: from the host's, made true for where they are read.

A name server on a loopback address is the host's alone. Where there are others, those are given to
the container; where there is none, or where names of containers must be known, the container asks
our own resolver, at 127.0.0.11 in its own namespace.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

OWN_SERVER = "127.0.0.11"
HOST_FILES = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
_LIMIT = 1 << 16

HOSTS = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


@dataclass(frozen=True, slots=True)
class Resolver:
    """What a resolv.conf says."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@lru_cache(8)
def parse(text: str) -> Resolver:
    """The entries of a resolv.conf(5); what is no address is left out."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        word, *values = line.partition("#")[0].partition(";")[0].split()[:64] or [""]
        if word == "nameserver" and values and _is_address(values[0]):
            servers.append(values[0])
        elif word in ("search", "domain"):
            search = tuple(values)
        elif word == "options":
            options += values
    return Resolver(tuple(servers), search, tuple(options))


def read_host() -> Resolver:
    """The host's resolver as it is now; systemd's real servers in place of its stub."""
    found = parse(_read(HOST_FILES[0]))
    if found.servers == ("127.0.0.53",):
        real = parse(_read(HOST_FILES[1]))
        return Resolver(real.servers, found.search, found.options) if real.servers else found
    return found


def for_container(
    host: Resolver,
    *,
    own: bool,
    servers: tuple[str, ...] = (),
    search: tuple[str, ...] = (),
    options: tuple[str, ...] = (),
) -> str:
    """The text of a container's file; `own` where it asks our resolver."""
    given = [OWN_SERVER] if own else list(servers or reachable(host.servers))
    words = [f"nameserver {server}" for server in given]
    domains = [word for word in (search or host.search) if word != "."]
    if domains:
        words.append("search " + " ".join(domains))
    chosen = list(options or host.options)
    if own and not any(word.startswith("ndots:") for word in chosen):
        chosen.append("ndots:0")
    if chosen:
        words.append("options " + " ".join(chosen))
    return "\n".join(words) + "\n"


@lru_cache(8)
def reachable(servers: tuple[str, ...]) -> tuple[str, ...]:
    """The servers that a container can ask itself."""
    found = ((server, ip_address(server.partition("%")[0])) for server in servers)
    return tuple(
        server for server, where in found if not (where.is_loopback or where.is_link_local)
    )


def hosts(own: list[tuple[str, str]], extra: list[tuple[str, str]]) -> str:
    """The text of a hosts file: (address, names) of the container itself and of others."""
    return HOSTS + "".join(f"{address}\t{names}\n" for address, names in (*extra, *own))


def _is_address(text: str) -> bool:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def _read(path: str) -> str:
    """A file at each start of a container: without what a file object does besides."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, _LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)
