"""Names of signals as people write them: SIGTERM, term, 15, RTMIN+3."""

from __future__ import annotations

import re
import signal

from sampan.errors import InvalidArgument

_NAMES = {entry.name.removeprefix("SIG"): int(entry) for entry in signal.Signals}
_NAMES |= {"IOT": int(signal.SIGABRT), "POLL": int(signal.SIGIO), "CLD": int(signal.SIGCHLD)}
_REAL_TIME = re.compile(r"RT(MIN|MAX)(?:([+-])([0-9]{1,2}))?", re.ASCII)
_LAST = 64


def parse(text: str) -> int:
    """The number of a signal.

    Raises:
        InvalidArgument: there is no such signal.
    """
    name = text.upper().removeprefix("SIG")
    if re.fullmatch("[0-9]{1,3}", name, re.ASCII) and 1 <= int(name) <= _LAST:
        return int(name)
    if name in _NAMES:
        return _NAMES[name]
    if match := _REAL_TIME.fullmatch(name):
        base = int(signal.SIGRTMIN if match[1] == "MIN" else signal.SIGRTMAX)
        number = base + int((match[2] or "+") + (match[3] or "0"))
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    raise InvalidArgument(f"invalid signal: {text}")
