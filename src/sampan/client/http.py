"""HTTP/1.1 as the client of a daemon needs it, without input or output of its own.

`request` gives the bytes to send. A `Reader` is fed what arrives and hands out the head and the
pieces of the body; it waits for nothing, so the blocking and the asynchronous client share it.
Bodies are announced by length, chunked, or last until the peer closes. After `101` the bytes that
follow the head belong to whoever takes the connection over (`rest`).

It promises bounds: a head of 64 KiB, a chunk line of 1 KiB. It refuses anything that is not
HTTP/1.x. Header names are lower case here.
"""

from __future__ import annotations

from sampan.errors import Unavailable

MAX_HEAD = 65536
MAX_LINE = 1024

_LENGTH, _SIZE, _DATA, _TRAILER, _CLOSE, _DONE = range(6)


class ProtocolError(Unavailable):
    """The peer does not speak HTTP as we know it, or hung up in the middle."""


def request(
    method: str, target: str, headers: dict[str, str], body: bytes | None, *, chunked: bool = False
) -> bytes:
    """The head of a request, and its body when it is given whole."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    elif body is not None or method != "GET":
        lines.append(f"Content-Length: {len(body or b'')}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


def chunk(data: bytes) -> bytes:
    """One piece of a chunked request body; the empty piece ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Reader:
    """Takes apart one response after another of one connection."""

    __slots__ = ("_buffer", "_eof", "_left", "_method", "_state", "headers", "reason", "status")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._eof = False
        self.begin("GET")

    def begin(self, method: str) -> None:
        """Expect the response to a request that was sent with `method`."""
        self._method = method
        self._state = _DONE
        self._left = 0
        self.status = 0
        self.reason = ""
        self.headers: dict[str, str] = {}

    def feed(self, data: bytes) -> None:
        """Take what arrived; no bytes mean that the peer closed."""
        if data:
            self._buffer += data
        else:
            self._eof = True

    @property
    def untouched(self) -> bool:
        """Nothing of a response has come."""
        return not self.status and not self._buffer

    @property
    def buffered(self) -> bool:
        """Something came that has not been handed out, or nothing more will come."""
        return bool(self._buffer) or self._eof or self._state == _DONE

    @property
    def reusable(self) -> bool:
        """The response ended, and the connection may carry another request."""
        return (
            self._state == _DONE
            and not self._eof
            and not self._buffer
            and self.status != 101
            and self.headers.get("connection", "").lower() != "close"
        )

    def rest(self) -> bytes:
        """What came after the head of an upgraded connection."""
        left = bytes(self._buffer)
        self._buffer.clear()
        return left

    def head(self) -> bool:
        """Whether status and headers are known now."""
        while not self.status:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if self._eof:
                    raise ProtocolError("the daemon closed the connection before it answered")
                if len(self._buffer) > MAX_HEAD:
                    raise ProtocolError(f"response head of more than {MAX_HEAD} bytes")
                return False
            lines = self._buffer[:end].decode("latin-1").split("\r\n")
            del self._buffer[: end + 4]
            self._parse_head(lines)
        return True

    def _parse_head(self, lines: list[str]) -> None:
        version, _, rest = lines[0].partition(" ")
        code, _, reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or len(code) != 3 or not code.isdigit():
            raise ProtocolError(f"not an HTTP response: {lines[0][:80]!r}")
        status = int(code)
        if 100 <= status < 200 and status != 101:
            return
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        self.status, self.reason, self.headers = status, reason, headers
        self._expect_body()

    def _expect_body(self) -> None:
        length = self.headers.get("content-length")
        if self._method == "HEAD" or self.status in (101, 204, 304):
            self._state = _DONE
        elif self.headers.get("transfer-encoding", "").lower() == "chunked":
            self._state = _SIZE
        elif length is None:
            self._state = _CLOSE
        elif length.isdigit():
            self._left = int(length)
            self._state = _LENGTH if self._left else _DONE
        else:
            raise ProtocolError(f"content-length of {length[:40]!r}")

    def piece(self) -> bytes | None:
        """The next bytes of the body, b"" at its end, None when more must arrive first."""
        while self._state != _DONE:
            if self._state in (_LENGTH, _DATA, _CLOSE):
                return self._data()
            line = self._line()
            if line is None:
                return None
            if self._state == _TRAILER:
                if not line:
                    self._state = _DONE
            elif line:  # the empty line is the end of the chunk before
                self._begin_chunk(line)
        return b""

    def _begin_chunk(self, line: bytes) -> None:
        try:
            self._left = int(line.split(b";", 1)[0], 16)
        except ValueError:
            raise ProtocolError(f"chunk size of {line[:40]!r}") from None
        if self._left < 0:
            raise ProtocolError(f"chunk size of {line[:40]!r}")
        self._state = _DATA if self._left else _TRAILER

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if self._eof:
                raise ProtocolError("the daemon closed the connection in the middle of an answer")
            if len(self._buffer) > MAX_LINE:
                raise ProtocolError(f"chunk line of more than {MAX_LINE} bytes")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _data(self) -> bytes | None:
        if not self._buffer:
            if not self._eof:
                return None
            if self._state != _CLOSE:
                raise ProtocolError("the daemon closed the connection in the middle of an answer")
            self._state = _DONE
            return b""
        if self._state == _CLOSE or len(self._buffer) <= self._left:
            data = bytes(self._buffer)
            self._buffer.clear()
        else:
            data = bytes(self._buffer[: self._left])
            del self._buffer[: self._left]
        if self._state != _CLOSE:
            self._left -= len(data)
            if not self._left:
                self._state = _DONE if self._state == _LENGTH else _SIZE
        return data
