"""What the runtime tells its caller: one line on stderr, and one in the file of `--log`.

containerd, podman and dockerd read that file and look for the last `"msg"` of level error, so its
two formats are logrus', as runc writes them. There is no logging module on this side.
"""

from __future__ import annotations

import os
import time


class Log:
    """Where errors go. Never raises: a full disk must not hide the error that was to be told."""

    __slots__ = ("debug_on", "format", "path")

    def __init__(self, path: str, form: str, *, debug: bool) -> None:
        self.path, self.format, self.debug_on = path, form, debug

    def failure(self, message: str, source: str = "sampan-oci: ") -> None:
        """Tell an error to the caller."""
        self._write("error", message)
        _put(2, f"{source}{message}\n")

    def warning(self, message: str) -> None:
        """Tell what was done differently from what was asked."""
        self._write("warning", message)

    def debug(self, message: str) -> None:
        """Tell a detail, with `--debug`: on the standard error where there is no file."""
        if self.debug_on:
            self._write("debug", message)

    def _write(self, level: str, message: str) -> None:
        if not self.path and level != "debug":
            return
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self.format == "json":
            line = f'{{"level":"{level}","msg":{_quote(message)},"time":"{moment}"}}\n'
        else:
            line = f'time="{moment}" level={level} msg={_quote(message)}\n'
        if not self.path:
            _put(2, line)
            return
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            fd = os.open(self.path, flags, 0o644)
        except OSError:
            return
        _put(fd, line)
        os.close(fd)


def _put(fd: int, text: str) -> None:
    try:
        os.write(fd, text.encode("utf-8", "replace"))
    except OSError:
        pass


def _quote(text: str) -> str:
    """A JSON string, which is also how logrus quotes in its text format."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return (
        '"' + "".join(escapes.get(c) or (c if c >= " " else f"\\u{ord(c):04x}") for c in text) + '"'
    )
