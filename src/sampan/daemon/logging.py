"""The daemon's log: lines of text, or JSON objects, on standard error.

Context (the request, the container, the exec, the operation) is in one context variable and follows
tasks by itself: `with about(container=id):` adds to whatever is logged inside. The standard
library's loggers are the interface; this module only gives them a shape. Control characters in
messages are escaped, so that nobody's text can forge a line.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

_context: ContextVar[dict[str, str]] = ContextVar("sampan.log", default={})  # noqa: B039 - never changed
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != 10}


@contextmanager
def about(**words: str) -> Iterator[None]:
    """Everything that is logged inside of the block carries `words`."""
    token = _context.set({**_context.get(), **words})
    try:
        yield
    finally:
        _context.reset(token)


class TextFormatter(logging.Formatter):
    """`2026-11-23T03:33:22.515Z warning sampan.engine: message (container=...)`"""

    def format(self, record: logging.LogRecord) -> str:
        """One record as a line; a traceback follows on indented lines."""
        words = " ".join(f"{key}={value}" for key, value in _context.get().items())
        message = f"{record.getMessage()} ({words})" if words else record.getMessage()
        line = (
            f"{_moment(record)} {record.levelname.lower()} {record.name}: "
            f"{message.replace(chr(10), ' ').translate(_CONTROLS)}"
        )
        if record.exc_info:
            trace = self.formatException(record.exc_info).translate(_CONTROLS)
            line += "\n    " + trace.replace("\n", "\n    ")
        return line


class JsonFormatter(logging.Formatter):
    """One object per line: time, level, logger, message, and the context's words."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as a JSON object."""
        content: dict[str, str] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_context.get(),
        }
        if record.exc_info:
            content["error"] = self.formatException(record.exc_info)
        return json.dumps(content, ensure_ascii=False)


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send everything from `level` on to `stream` (standard error) in the form `form`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # What is of interest in there is logged by us; the rest tells of clients that went away.
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _moment(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03}Z"
