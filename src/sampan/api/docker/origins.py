"""Who may ask: programs, and no web page.

A page cannot reach a unix socket, but it can reach a port that somebody forwards to one, and its
browser may hold a certificate for the TCP door. What a browser sends for a page carries `Origin`,
`Sec-Fetch-Site`, or both. A page that has its own name resolve to this machine (DNS rebinding) need
not carry either; then `Host` is the page's name. So a name in `Host` that the public DNS could give
to anybody must be one of our certificate's. Everything that clients write there for a unix socket
is taken: `localhost`, `docker`, `api.moby.localhost`, a path, an address, a version.

Libraries for WebSocket that were written for browsers cannot leave `Origin` out: programs write
`http://localhost` there, without a port. That is taken from who opens a WebSocket; a browser would
say so of a page of this machine's own web server only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sampan.errors import PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp.web_request import BaseRequest

_PUBLIC: Final = re.compile(r"(?:[a-z0-9_-]+\.)+([a-z][a-z0-9-]*)\.?", re.ASCII)
_PROGRAMS: Final = "http://localhost"
_RESERVED: Final = frozenset("localhost local internal test invalid example sock socket".split())
"""Last labels that no public name ends with, and those that people make up for sockets."""


def check(request: BaseRequest, names: Iterable[str] = ()) -> None:
    """Raise PermissionDenied when a web page made the request; `names` are our certificate's."""
    headers = request.headers
    origin = headers.get("Origin")
    if origin == _PROGRAMS and headers.get("Upgrade", "").lower() == "websocket":
        origin = None
    if origin is not None or headers.get("Sec-Fetch-Site", "none") != "none":
        raise PermissionDenied(f"requests of web pages are refused (origin {origin or 'unknown'})")
    host = headers.get("Host", "")
    if is_foreign(host, names):
        raise PermissionDenied(
            f"requests for the host {host[:80]!r} are refused: it is no name of this daemon's "
            "certificate"
        )


def is_foreign(host: str, names: Iterable[str]) -> bool:
    """Whether `Host` has a public name that is not among ours, which may begin with `*.`."""
    name = host.rpartition(":")[0] or host if not host.endswith("]") else host
    found = _PUBLIC.fullmatch(name.lower())
    if found is None or found[1] in _RESERVED:
        return False
    plain = name.lower().removesuffix(".")
    above = "*." + plain.partition(".")[2]
    return not any(one.lower() in (plain, above) for one in names)
