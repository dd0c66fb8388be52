"""A client of SPDY/3.1 as Kubernetes' clients speak it, on a plain socket.

with spdylab.Client(url, "v4.channel.k8s.io") as client:
    out = client.open(streamtype="stdout")
    client.send(stdin, b"text", fin=True)
    said = client.read()     # until the server goes: stream -> bytes
"""

from __future__ import annotations

import socket
import struct
import zlib
from urllib.parse import urlsplit

from sampan.wire import spdy

PATIENCE = 30


class Client:
    """One connection; `status` is that of the answer to the upgrade."""

    def __init__(self, url, *protocols, **headers):
        place = urlsplit(url)
        self.sock = socket.create_connection((place.hostname, place.port), PATIENCE)
        lines = [f"POST {place.path} HTTP/1.1", f"Host: {place.netloc}"]
        lines += ["Connection: Upgrade", "Upgrade: SPDY/3.1"]
        lines += [f"X-Stream-Protocol-Version: {one}" for one in protocols]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.sock.recv(1)
            assert piece, head
            head += piece
        self.head = head.decode()
        self.status = int(self.head.split()[1])
        self.connection = Connection()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def open(self, **headers):
        """Open a stream with these headers; its number."""
        number, data = self.connection.open(headers)
        self.sock.sendall(data)
        return number

    def send(self, stream, data=b"", *, fin=False):
        self.sock.sendall(spdy.data(stream, data, fin=fin))

    def read(self, until=lambda _client: False):
        """Read until the server goes, or `until` is met; what each stream said."""
        while not until(self) and (piece := self.sock.recv(1 << 16)):
            self.connection.take(piece)
        return self.connection.said

    def length(self, stream):
        """How many bytes a stream has said."""
        return len(self.connection.said.get(stream, b""))


class Connection:
    """The client's side of the frames, without a socket."""

    def __init__(self):
        self.deflater = zlib.compressobj(zdict=spdy.DICTIONARY)
        self.newest = -1
        self.pending = b""
        self.said = {}
        self.ended = set()
        self.replied = set()
        self.refused = set()
        self.pings = []
        self.is_left = False

    def open(self, headers):
        self.newest += 2
        words = [part.encode() for pair in headers.items() for part in pair]
        text = struct.pack(">I", len(headers)) + b"".join(
            struct.pack(">I", len(word)) + word for word in words
        )
        block = self.deflater.compress(text) + self.deflater.flush(zlib.Z_SYNC_FLUSH)
        fixed = struct.pack(">IIH", self.newest, 0, 0)
        return self.newest, spdy.control(spdy.SYN_STREAM, 0, fixed + block)

    def take(self, data):
        self.pending += data
        while len(self.pending) >= 8:
            first, second = struct.unpack_from(">II", self.pending)
            size = second & 0xFFFFFF
            if len(self.pending) < 8 + size:
                return
            body, self.pending = self.pending[8 : 8 + size], self.pending[8 + size :]
            self._frame(first, second >> 24, body)

    def _frame(self, first, flags, body):
        if not first & 0x80000000:
            self.said[first] = self.said.get(first, b"") + body
            if flags & spdy.FIN:
                self.ended.add(first)
            return
        kind, number = first & 0xFFFF, struct.unpack_from(">I", body)[0]
        if kind == spdy.SYN_REPLY:
            self.replied.add(number)
        elif kind == spdy.RST_STREAM:
            self.refused.add(number)
        elif kind == spdy.PING:
            self.pings.append(number)
        elif kind == spdy.GOAWAY:
            self.is_left = True
