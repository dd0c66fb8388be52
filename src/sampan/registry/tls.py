"""TLS contexts: whom we trust, and what we show of ourselves."""

from __future__ import annotations

import asyncio
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from sampan.registry.settings import Tls

_PROBE_SECONDS: Final = 5.0


def context(tls: Tls) -> ssl.SSLContext:
    """The context for a server's settings. The CAs of the system stay trusted beside its own.

    Raises:
        InvalidArgument: a certificate or key cannot be read.
    """
    made = ssl.create_default_context()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.skip_verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    for path in tls.ca:
        _load(made.load_verify_locations, path)
    for certificate, key in tls.client:
        _load(made.load_cert_chain, certificate, key)
    return made


def _load(function: object, *paths: str) -> None:
    assert callable(function)
    try:
        function(*paths)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"registry certificate {paths[0]}: {error}") from error


@lru_cache(maxsize=1)
def unverified() -> ssl.SSLContext:
    """A context that takes every certificate: for loopback, and for what is called insecure."""
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


async def speaks_tls(host: str, port: int) -> bool:
    """Whether the server at `host:port` answers a TLS handshake; False when nobody answers."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            _, writer = await asyncio.open_connection(
                host, port, ssl=unverified(), server_hostname=""
            )
    except (OSError, TimeoutError):  # ssl.SSLError is an OSError
        return False
    writer.transport.abort()
    return True
