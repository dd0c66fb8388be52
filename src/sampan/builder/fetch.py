"""`ADD https://...`: a file from the web.

Plain HTTP(S), a few redirects, a bound on the size, a deadline. Addresses that only this machine's
surroundings have (link-local ones, where clouds keep their credentials) are refused, also behind a
redirect. Git repositories are not fetched.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import posixpath
import socket
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit

from sampan.errors import InvalidArgument, NotImplementedHere, Unavailable

MAX_SIZE: Final = 4 << 30
MAX_REDIRECTS: Final = 5
SECONDS: Final = 300.0
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file of the web; `modified` is seconds since 1970, 0 where nobody said."""

    name: str
    content: bytes
    modified: int


def is_remote(word: str) -> bool:
    """Whether a source of ADD is fetched.

    Raises:
        NotImplementedHere: it is a git repository.
    """
    lower = word.lower()
    if lower.startswith(("git@", "git://", "ssh://")) or (
        lower.startswith(("http://", "https://")) and lower.partition("#")[0].endswith(".git")
    ):
        raise NotImplementedHere(f"ADD {word[:200]}: git repositories are not supported")
    return lower.startswith(("http://", "https://"))


async def fetch(url: str) -> Fetched:
    """The file at `url`.

    Raises:
        InvalidArgument: the URL is malformed, or its address is refused.
        Unavailable: the server does not answer, or not with the file.
    """
    return await asyncio.to_thread(_fetch, url)


def _fetch(url: str) -> Fetched:
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
            content = _body(answer, url, deadline)
            return Fetched(name, content, _modified(answer.headers.get("Last-Modified")))
        finally:
            connection.close()
    raise Unavailable(f"ADD {url[:200]}: more than {MAX_REDIRECTS} redirects")


def _ask(url: str) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidArgument(f"ADD {url[:200]}: only http and https are supported")
    secure = parts.scheme == "https"
    try:
        port = parts.port or (443 if secure else 80)
        _check_address(parts.hostname, port, url)
        maker = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = maker(parts.hostname, port, timeout=60)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"User-Agent": "sampan", "Accept": "*/*"})
        return connection.getresponse(), connection
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unavailable(f"ADD {url[:200]}: {error}") from error


def _check_address(host: str, port: int, url: str) -> None:
    for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        address = ipaddress.ip_address(str(found[4][0]).partition("%")[0])
        if address.is_link_local or address.is_multicast:
            raise InvalidArgument(f"ADD {url[:200]}: the address {address} is refused")


def _body(answer: http.client.HTTPResponse, url: str, deadline: float) -> bytes:
    content = bytearray()
    while piece := answer.read(_PIECE):
        content += piece
        if len(content) > MAX_SIZE:
            raise InvalidArgument(f"ADD {url[:200]}: larger than {MAX_SIZE} bytes")
        if time.monotonic() > deadline:
            raise Unavailable(f"ADD {url[:200]}: not done after {SECONDS:.0f} seconds")
    return bytes(content)


def _modified(text: str | None) -> int:
    try:
        return max(0, int(parsedate_to_datetime(text or "").timestamp()))
    except (TypeError, ValueError):
        return 0
