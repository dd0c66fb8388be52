"""Sentences as dockerd had them before API 1.42: programs and tests of that time look for them.

The engine speaks as the newest dockerd does. What changed is mostly a capital letter. Who names no
version at all is taken for one of that time: newer clients name the one that they have agreed on.
"""

from __future__ import annotations

import re
from typing import Final

LAST: Final = 41
"""The newest version of the API that has them."""

_WORDS: Final = tuple(
    (re.compile(pattern, re.DOTALL), words)
    for pattern, words in (
        (r"invalid filter (.*)", r"Invalid filter \1"),
        (r"invalid signal: (.*)", r"Invalid signal: \1"),
        (
            r"Container cannot be created with multiple network endpoints: (.*)",
            r"Container cannot be connected to network endpoints: \1",
        ),
        (r"no command specified", "No command specified"),
        (r"config cannot be empty (.*)", r"Config cannot be empty \1"),
        (r"container (\S+) is paused, (.*)", r"Container \1 is paused, \2"),
        (
            r"unsupported Content-Type header \((.*)\): must be (.*)",
            r"Content-Type specified (\1) must be \2",
        ),
        (
            r"invalid restart policy: maximum retry count can only be used with 'on-failure'",
            "maximum retry count cannot be used with restart policy other than 'on-failure'",
        ),
        (
            r'cannot remove container "(.*)": container is running: .*',
            (
                r"You cannot remove a running container \1. "
                "Stop the container before attempting removal or force remove"
            ),
        ),
    )
)


def of(message: str, minor: int) -> str:
    """A sentence for a client of version 1.`minor`."""
    if minor > LAST:
        return message
    for pattern, words in _WORDS:
        match = pattern.fullmatch(message)
        if match is not None:
            return match.expand(words)
    return message
