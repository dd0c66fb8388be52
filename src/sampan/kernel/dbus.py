"""A small D-Bus client: enough to ask a service manager for something and to wait for the outcome.

One connection to one Unix socket, one call at a time. Values are Python's own, told apart by the
signature beside them: a struct is a tuple, a dictionary an array of pairs, a variant a pair
(signature, value). Descriptors are not passed. Every wait has an end, and an answer a ceiling.

By hand, because a library costs more to import than a container takes to make, and because the
other end of a message is here always the same.
"""

from __future__ import annotations

import _socket
import errno
import os
import sys
import time
from struct import unpack_from

from sampan.kernel.dbus_values import Reader, Writer, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

WAIT = 30.0  # seconds for an answer, and for a signal
_MAX_MESSAGE = 1 << 20
_ENDIAN = b"l" if sys.byteorder == "little" else b"B"
_CALL, _RETURN, _ERROR, _SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_TO, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8


class Refused(OSError):
    """The other side answered with an error; `name` is that of D-Bus."""

    def __init__(self, name: str, text: str, what: str) -> None:
        code = errno.EACCES if name.endswith((".AccessDenied", ".AuthFailed")) else errno.EPROTO
        super().__init__(code, f"{what}: {text or name}")
        self.name = name


class Message:
    """One message that came: its kind, its header by field number, its values."""

    __slots__ = ("fields", "kind", "values")

    def __init__(self, head: bytes, rest: bytes) -> None:
        self.kind = head[1]
        fields = Reader(head + rest, 12).all("a(yv)")[0]
        self.fields: dict[int, Any] = {number: value for number, (_, value) in fields}
        body = len(rest) - unpack_from("=I", head, 4)[0]
        self.values = Reader(rest[body:]).all(self.fields.get(_SIGNATURE, ""))


class Connection:
    """An authenticated connection. The owner closes it."""

    __slots__ = ("_buffer", "_serial", "_signals", "_socket")

    def __init__(self, path: str) -> None:
        """Connect to the socket `path` as the user that we are. Raises OSError."""
        self._buffer = b""
        self._serial = 0
        self._signals: list[Message] = []
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            self._socket.settimeout(WAIT)
            self._socket.connect(path)
            self._authenticate()
        except BaseException:
            self._socket.close()
            raise

    def _authenticate(self) -> None:
        """SASL EXTERNAL: the kernel tells the other side who we are.

        BEGIN goes along. What follows it waits for the answer: systemd's own socket reads on while
        it authenticates, and would not look at a call that came with the last line.
        """
        identity = str(os.geteuid()).encode().hex()
        self._socket.sendall(bytes(1) + f"AUTH EXTERNAL {identity}\r\nBEGIN\r\n".encode())
        line = b""
        while not line.endswith(b"\r\n"):
            byte = self._socket.recv(1)
            if not byte or len(line) > 512:
                raise OSError(errno.EACCES, "D-Bus: the connection was not accepted")
            line += byte
        if not line.startswith(b"OK "):
            said = line.decode("ascii", "replace").strip()
            raise OSError(errno.EACCES, f"D-Bus: the connection was refused: {said}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def call(
        self, destination: str, path: str, member: str, signature: str = "", *values: Any
    ) -> list[Any]:
        """Call `member` (`INTERFACE.NAME`) of an object; the values of the answer.

        Raises:
            Refused: the answer is an error.
            OSError: the connection is gone or the answer malformed; TimeoutError without one.
        """
        self._serial += 1
        serial = self._serial
        interface, _, name = member.rpartition(".")
        fields: list[tuple[int, tuple[str, Any]]] = [
            (_PATH, ("o", path)),
            (_INTERFACE, ("s", interface)),
            (_MEMBER, ("s", name)),
        ]
        if destination:
            fields.append((_DESTINATION, ("s", destination)))
        if signature:
            fields.append((_SIGNATURE, ("g", signature)))
        body = Writer()
        for part, value in zip(split(signature), values, strict=True):
            body.put(part, value)
        head = Writer()
        head.data += _ENDIAN + bytes((_CALL, 0, 1))
        head.put("u", len(body.data))
        head.put("u", serial)
        head.put("a(yv)", fields)
        head.align(8)
        self._socket.sendall(bytes(head.data + body.data))
        return self._answer(serial, name)

    def _answer(self, serial: int, name: str) -> list[Any]:
        deadline = time.monotonic() + WAIT
        while True:
            message = self._receive(deadline, f"answer to {name}")
            if message.kind == _SIGNAL:
                self._signals.append(message)
            elif message.fields.get(_REPLY_TO) != serial:
                continue
            elif message.kind == _ERROR:
                text = message.values[0] if message.values else ""
                raise Refused(message.fields.get(_ERROR_NAME, ""), str(text), name)
            else:
                return message.values

    def await_signal(self, member: str, index: int, value: object) -> list[Any]:
        """The values of the next signal `member` whose value at `index` is `value`.

        Raises:
            TimeoutError: there was none in time.
        """
        deadline = time.monotonic() + WAIT
        while True:
            kept, self._signals = self._signals, []
            for message in kept or [self._receive(deadline, f"signal {member}")]:
                values = message.values
                named = message.kind == _SIGNAL and message.fields.get(_MEMBER) == member
                if named and len(values) > index and values[index] == value:
                    return values

    def _receive(self, deadline: float, what: str) -> Message:
        head = self._exactly(16, deadline, what)
        if head[:1] != _ENDIAN:
            raise OSError(errno.EBADMSG, "D-Bus: a message in foreign byte order")
        body, _, fields = unpack_from("=III", head, 4)
        length = fields + -fields % 8 + body
        if length > _MAX_MESSAGE:
            raise OSError(errno.EMSGSIZE, "D-Bus: a message that is too long")
        return Message(head, self._exactly(length, deadline, what))

    def _exactly(self, count: int, deadline: float, what: str) -> bytes:
        while len(self._buffer) < count:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                chunk = self._socket.recv(65536)
            except TimeoutError as error:
                raise TimeoutError(errno.ETIMEDOUT, f"D-Bus: no {what} in time") from error
            if not chunk:
                raise ConnectionResetError(errno.ECONNRESET, f"D-Bus: closed before the {what}")
            self._buffer += chunk
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken
