"""`ADD https://...`: a file from the web.

Plain HTTP(S), a few redirects, a bound on the size, a deadline. Addresses that only this machine's
surroundings have (link-local ones, where clouds keep their credentials) are refused, also behind a
redirect: the address that was looked at is the one that is connected to. The file goes to the disk
as it comes.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import ipaddress
import os
import posixpath
import socket
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit

from sampan.errors import InvalidArgument, Unavailable

MAX_SIZE: Final = 4 << 30
MAX_REDIRECTS: Final = 5
SECONDS: Final = 300.0
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file of the web; `modified` is seconds since 1970, 0 where nobody said."""

    name: str
    size: int
    sha256: str
    modified: int


def is_remote(word: str) -> bool:
    """Whether a source of ADD is fetched."""
    return word.lower().startswith(("http://", "https://"))


async def fetch(url: str, target: int) -> Fetched:
    """Write the file at `url` to the descriptor `target`.

    Raises:
        InvalidArgument: the URL is malformed, or its address is refused.
        Unavailable: the server does not answer, or not with the file.
    """
    return await asyncio.to_thread(_fetch, url, target)


def _fetch(url: str, target: int) -> Fetched:
    deadline = time.monotonic() + SECONDS
    name = unquote(posixpath.basename(urlsplit(url).path))
    for _ in range(MAX_REDIRECTS + 1):
        answer, connection = _ask(url)
        try:
            if answer.status in (301, 302, 303, 307, 308):
                url = urljoin(url, answer.headers.get("Location", ""))
                continue
            if answer.status != 200:
                raise Unavailable(f"ADD {url[:200]}: the server answered {answer.status}")
            size, digest = _body(answer, url, deadline, target)
            return Fetched(name, size, digest, _modified(answer.headers.get("Last-Modified")))
        finally:
            answer.close()
            connection.close()
    raise Unavailable(f"ADD {url[:200]}: more than {MAX_REDIRECTS} redirects")


def _ask(url: str) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidArgument(f"ADD {url[:200]}: only http and https are supported")
    secure = parts.scheme == "https"
    try:
        port = parts.port or (443 if secure else 80)
        connection = http.client.HTTPConnection(parts.hostname, port, timeout=60)
        connection.sock = _connected(parts.hostname, port, url)
        if secure:
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=parts.hostname)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"User-Agent": "sampan", "Accept": "*/*"})
        return connection.getresponse(), connection
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unavailable(f"ADD {url[:200]}: {error}") from error


def _connected(host: str, port: int, url: str) -> socket.socket:
    """A connection to the first address that answers, none of which may be a refused one."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for entry in found:
        address = ipaddress.ip_address(str(entry[4][0]).partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        if mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified:
            raise InvalidArgument(f"ADD {url[:200]}: the address {address} is refused")
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, where in found:
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(60)
        try:
            sock.connect(where)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _body(
    answer: http.client.HTTPResponse, url: str, deadline: float, target: int
) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    while piece := answer.read(_PIECE):
        size += len(piece)
        if size > MAX_SIZE:
            raise InvalidArgument(f"ADD {url[:200]}: larger than {MAX_SIZE} bytes")
        if time.monotonic() > deadline:
            raise Unavailable(f"ADD {url[:200]}: not done after {SECONDS:.0f} seconds")
        digest.update(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(target, view) :]
    if answer.length:
        raise Unavailable(
            f"ADD {url[:200]}: the answer broke off, {answer.length} bytes are missing"
        )
    return size, digest.hexdigest()


def _modified(text: str | None) -> int:
    try:
        return max(0, int(parsedate_to_datetime(text or "").timestamp()))
    except (TypeError, ValueError):
        return 0
