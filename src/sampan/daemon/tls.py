"""The door for other machines: TCP, for clients whose certificates our authority has signed.

There is no TCP without TLS and no TLS without the client's certificate: who may speak to the daemon
is root on this machine. Each connection is decrypted here and copied to the daemon's own unix
socket, so that everything that works there works here, raw streams too. asyncio's own TLS cannot
do that: it ends a connection when the client has sent its last byte, and `docker run -i` wants the
answer after it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import stat
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from sampan.errors import InvalidArgument, PermissionDenied

HANDSHAKE_SECONDS: Final = 10.0
MAX_CONNECTIONS: Final = 256
DEFAULT_PORT: Final = 2376
_CHUNK: Final = 64 << 10
_log = logging.getLogger("sampan.daemon")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Where to listen, and the files: the clients' authority, our certificate and its key."""

    address: str
    authority: str
    certificate: str
    key: str


def address_of(text: str) -> tuple[str, int]:
    """Host and port of `tcp://HOST[:PORT]`.

    Raises:
        InvalidArgument: it is not such an address.
    """
    try:
        parts = urlsplit(text)
        port = DEFAULT_PORT if parts.port is None else parts.port
    except ValueError as error:
        raise InvalidArgument(f"listen on {text}: {error}") from error
    if parts.scheme != "tcp" or not parts.hostname or parts.path or parts.username:
        raise InvalidArgument(f"listen on {text}: the address must be tcp://HOST:PORT")
    return parts.hostname, port


def context_of(settings: TlsSettings) -> ssl.SSLContext:
    """A context that takes nobody without a certificate of the authority.

    Raises:
        InvalidArgument: a file is missing or is not what it should be.
        PermissionDenied: others may read the key.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.verify_mode = ssl.CERT_REQUIRED
    try:
        if stat.S_IMODE(os.stat(settings.key).st_mode) & 0o077:
            raise PermissionDenied(f"{settings.key}: others than its owner may read this key")
        made.load_cert_chain(settings.certificate, settings.key)
        made.load_verify_locations(settings.authority)
    except (OSError, ssl.SSLError) as error:
        files = f"{settings.authority}, {settings.certificate}, {settings.key}"
        raise InvalidArgument(f"load the certificates {files}: {error}") from error
    return made


def names_of(settings: TlsSettings | None) -> tuple[str, ...]:
    """The names that our certificate is for, which clients may call us by; none without one.

    Raises:
        InvalidArgument: the certificate cannot be read.
    """
    if settings is None:
        return ()
    from cryptography import x509

    try:
        with open(settings.certificate, "rb") as file:
            certificate = x509.load_pem_x509_certificate(file.read())
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"load the certificate {settings.certificate}: {error}") from error
    return tuple(found.value.get_values_for_type(x509.DNSName))


class TlsDoor:
    """Listens, decrypts, and copies to the unix socket `target`."""

    def __init__(self, context: ssl.SSLContext, target: str) -> None:
        self._context = context
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            InvalidArgument: the address cannot be listened on.
        """
        try:
            self._server = await asyncio.start_server(self._accept, host, port, limit=_CHUNK)
        except OSError as error:
            raise InvalidArgument(f"listen on {host}:{port}: {error.strerror}") from error
        _log.info("listens on %s:%d for clients with certificates", host, port)

    async def aclose(self) -> None:
        """End every connection."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._tasks.add(task)
        try:
            await self._serve(_Session(self._context, reader, writer))
        except (OSError, ssl.SSLError, TimeoutError) as error:
            _log.info("refused %s: %s", writer.get_extra_info("peername"), error)
        except asyncio.CancelledError:
            return  # the daemon leaves
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, session: _Session) -> None:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            await session.handshake()
        reader, writer = await asyncio.open_unix_connection(self._target)
        try:
            inward = asyncio.ensure_future(_inward(session, writer))
            try:
                while data := await reader.read(_CHUNK):
                    await session.write(data)
            finally:
                inward.cancel()
                await asyncio.gather(inward, return_exceptions=True)
            await session.end()
        finally:
            writer.close()


async def _inward(session: _Session, writer: asyncio.StreamWriter) -> None:
    """The client's bytes to the daemon, and their end; a broken client ends the whole."""
    try:
        while data := await session.read():
            writer.write(data)
            await writer.drain()
    except (OSError, ssl.SSLError):
        writer.transport.abort()
        return
    if writer.can_write_eof():
        writer.write_eof()


async def open_door(settings: TlsSettings | None, target: str) -> AsyncExitStack:
    """Listen where the settings say; closing what is given ends it. Raises as `TlsDoor.open`."""
    closing = AsyncExitStack()
    if settings is not None:
        door = TlsDoor(context_of(settings), target)
        await door.open(*address_of(settings.address))
        closing.push_async_callback(door.aclose)
    return closing


class _Session:
    """One TLS connection, as bytes in the clear."""

    def __init__(
        self,
        context: ssl.SSLContext,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._goes, server_side=True)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def handshake(self) -> None:
        """Meet the client. Raises SSLError when it has no certificate that counts."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._exchange()
            except ssl.SSLError:
                await self._flush()  # the client hears why
                raise
            else:
                await self._flush()
                return

    async def read(self) -> bytes:
        """The next bytes; b"" when the client has said that there are no more."""
        while True:
            try:
                return self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                await self._exchange()
            except ssl.SSLZeroReturnError:
                return b""

    async def write(self, data: bytes) -> None:
        """Send."""
        self._tls.write(data)
        await self._flush()

    async def end(self) -> None:
        """Say that there is no more."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # wants the client's word, which may never come
        await self._flush()

    async def _exchange(self) -> None:
        await self._flush()
        data = await self._reader.read(_CHUNK)
        if data:
            self._came.write(data)
        else:
            self._came.write_eof()

    async def _flush(self) -> None:
        if self._goes.pending:
            self._writer.write(self._goes.read())
        await self._writer.drain()
