"""HTTP as registries need it, and no more than that.

aiohttp without its conveniences: no netrc, proxies only as configured, no cookies, no automatic
decompression (a blob is the bytes that its digest names), and redirects followed here, five at
most.
The `Authorization` header goes only to the origin that the credentials are bound to, and once a
request left that origin it never gets it again. Places that a server named are connected to through
a resolver that drops internal addresses, so that a name cannot lead where a number may not.

Failures of the network become `Unavailable`; an answer with a status of 400 or above is given to
the caller as it is.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from sampan.errors import FailedPrecondition, Unavailable
from sampan.registry import tls
from sampan.registry.hosts import Endpoint, Hosts, Origin, is_internal, shown
from sampan.registry.proxies import Proxies
from sampan.version import VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.abc import ResolveResult

    from sampan.registry.settings import Tls

MAX_REDIRECTS: Final = 5
READ_BUFFER: Final = 1 << 20
_CONNECTIONS_PER_HOST: Final = 16
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
# What another origin than the registry's own may be sent; settings may add headers with secrets.
_FOR_EVERYBODY: Final = frozenset(("Accept", "Range", "Content-Type", "Content-Length"))
_SETTLED_SECONDS: Final = 30.0
_AGENT: Final = f"sampan/{VERSION}"

# No limit on the whole: a blob may be large. Each connect and each read must make progress.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
SHORT: Final = aiohttp.ClientTimeout(total=60, sock_connect=15)


class PublicResolver(ThreadedResolver):
    """Resolves names and drops addresses that are internal to this machine or its cloud."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host` that are not internal.

        Raises:
            OSError: there is none.
        """
        found = await super().resolve(host, port, family)
        public = [entry for entry in found if not is_internal(entry["host"])]
        if not public:
            raise OSError(None, f"the address of {host} is internal to this machine")
        return public


class HttpClient:
    """One pool of connections to registries. Belongs to one event loop."""

    def __init__(self, hosts: Hosts, proxies: Proxies | None = None) -> None:
        self.hosts = hosts
        self.proxies = proxies or Proxies()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._contexts: dict[Tls, ssl.SSLContext] = {}
        self._trusted: dict[Origin, ssl.SSLContext] = {}
        self._settled: dict[Origin, tuple[bool, float]] = {}

    async def settle(self, endpoint: Endpoint) -> Endpoint:
        """Find out whether an undecided endpoint speaks TLS; the endpoint as it is to be used."""
        if endpoint.undecided:
            secure = await self._speaks_tls(endpoint)
            base = endpoint.base.with_scheme("https" if secure else "http")
            if secure and endpoint.base.explicit_port is not None:
                base = base.with_port(endpoint.base.explicit_port)
            endpoint = replace(endpoint, base=base, undecided=False)
            if secure:
                self._trusted[endpoint.origin] = tls.unverified()
        elif not endpoint.tls.is_plain:
            if endpoint.tls not in self._contexts:
                self._contexts[endpoint.tls] = tls.context(endpoint.tls)
            self._trusted[endpoint.origin] = self._contexts[endpoint.tls]
        return endpoint

    async def _speaks_tls(self, endpoint: Endpoint) -> bool:
        """Asked again after a while: the server may be another one by then."""
        origin, now = endpoint.origin, time.monotonic()
        secure, until = self._settled.get(origin, (False, 0.0))
        if now >= until:
            secure = await tls.speaks_tls(origin.host, _tls_port(endpoint.base))
            self._settled[origin] = secure, now + _SETTLED_SECONDS
        return secure

    async def aclose(self) -> None:
        """Close every connection."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: URL,
        *,
        home: Origin,
        authorization: str | None = None,
        headers: dict[str, str] | None = None,
        data: Any = None,
        timeout: aiohttp.ClientTimeout = _TIMEOUT,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request, after redirects when it is a GET or HEAD.

        `authorization` is sent while the URL is on `home`, the origin that it is bound to.

        Raises:
            Unavailable: the network or the server failed, also while the body is read inside of
            the block.
            FailedPrecondition: the server named a place that we must not speak with, or its
            certificate is not trusted.
        """
        sent = dict(headers or {})
        if authorization is not None and Origin.of(url) == home:
            sent["Authorization"] = authorization
        try:
            response = await self._follow(
                method, url, home=home, headers=sent, data=data, timeout=timeout
            )
            async with response:
                yield response
        except aiohttp.ClientConnectorCertificateError as error:
            raise FailedPrecondition(
                f"speak with {url.host}: the certificate is not trusted: {error.certificate_error}"
            ) from error
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError) as error:
            raise Unavailable(f"{method} {shown(url)}: {_reason(error)}") from error

    async def _follow(
        self,
        method: str,
        url: URL,
        *,
        home: Origin,
        headers: dict[str, str],
        data: Any,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        for _ in range(MAX_REDIRECTS + 1):
            self.hosts.check_target(url, home)
            session = self._session(url, home)
            response = await session.request(
                method,
                url,
                headers=headers,
                data=data,
                timeout=timeout,
                allow_redirects=False,
                proxy=self.proxies.choose(url),
                ssl=self._trusted.get(Origin.of(url), True),
            )
            if response.status not in _REDIRECTS or method not in ("GET", "HEAD"):
                return response
            target = _location(response, url)
            response.release()
            if Origin.of(target) != home:
                headers = {key: text for key, text in headers.items() if key in _FOR_EVERYBODY}
            url = target
        raise FailedPrecondition(f"{method} {shown(url)}: more than {MAX_REDIRECTS} redirects")

    def _session(self, url: URL, home: Origin) -> aiohttp.ClientSession:
        """The pool for `url`: with filtered addresses unless it is a place that the user named."""
        chosen = home.loopback or Origin.of(url) == home
        if chosen not in self._sessions:
            self._sessions[chosen] = _new_session(filtered=not chosen)
        return self._sessions[chosen]


def location(response: aiohttp.ClientResponse) -> URL:
    """The absolute URL in the `Location` header of an answer.

    Raises:
        FailedPrecondition: there is none, or it is not a URL.
    """
    return _location(response, response.url)


async def read_bounded(response: aiohttp.ClientResponse, limit: int, what: str) -> bytes:
    """The body of an answer, which may have at most `limit` bytes.

    Raises:
        FailedPrecondition: it has more.
    """
    content = bytearray()
    while chunk := await response.content.readany():
        content += chunk
        if len(content) > limit:
            response.close()
            raise FailedPrecondition(f"read {what}: more than the limit of {limit} bytes")
    return bytes(content)


def _tls_port(url: URL) -> int:
    return url.explicit_port or 443


def _new_session(*, filtered: bool) -> aiohttp.ClientSession:
    resolver = PublicResolver() if filtered else ThreadedResolver()
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0, limit_per_host=_CONNECTIONS_PER_HOST, resolver=resolver, keepalive_timeout=15
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=READ_BUFFER,
        headers={"User-Agent": _AGENT, "Accept-Encoding": "identity"},
    )


def _location(response: aiohttp.ClientResponse, base: URL) -> URL:
    text = response.headers.get("Location", "")
    try:
        target = base.join(URL(text, encoded=True))
        known = bool(text) and target.scheme in ("http", "https") and target.port is not None
    except ValueError:
        known, target = False, base
    if not known:
        raise FailedPrecondition(
            f"answer of {shown(base)}: the Location {text[:200]!r} is not a URL of http or https"
        )
    return target.with_fragment(None)


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "the server did not answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"connect to {error.host}:{error.port}: {_words(error.os_error)}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the server ended the answer early"
    return str(error)[:300] or type(error).__name__


def _words(error: OSError) -> str:
    """The kernel's words for a failed connect, where Python puts its own; a resolver's as it is."""
    if isinstance(error, ssl.SSLError):  # its number is OpenSSL's
        plain = error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
        return "server gave HTTP response to HTTPS client" if plain else str(error)
    known = error.errno is not None and error.errno > 0 and not isinstance(error, socket.gaierror)
    return os.strerror(error.errno or 0).lower() if known else error.strerror or str(error)
