"""`--chmod`: octal, or symbolic as in chmod(1): `u=rwX,go=rX`."""

from __future__ import annotations

import re
from typing import Final

from sampan.errors import InvalidArgument

_OCTAL: Final = re.compile(r"0?[0-7]{1,4}", re.ASCII)
_CLAUSE: Final = re.compile(r"([ugoa]*)([-+=])([rwxXst]*)", re.ASCII)
_SHIFTS: Final = {"u": 6, "g": 3, "o": 0}
_BITS: Final = {"r": 4, "w": 2, "x": 1}


class Mode:
    """A change of modes."""

    def __init__(self, text: str) -> None:
        """Raises InvalidArgument when `text` is no mode."""
        self._fixed = int(text, 8) if _OCTAL.fullmatch(text) else None
        clauses = [_CLAUSE.fullmatch(part) for part in text.split(",")]
        if self._fixed is None and not all(clauses):
            raise InvalidArgument(
                f"invalid chmod parameter: {text[:80]!r}: it must be octal, as in 0755, "
                "or symbolic, as in u=rwX,go=rX"
            )
        self._clauses = [(clause[1] or "a", clause[2], clause[3]) for clause in clauses if clause]

    def apply(self, mode: int, *, is_directory: bool) -> int:
        """`mode` changed."""
        if self._fixed is not None:
            return self._fixed
        for who, operator, what in self._clauses:
            mode = _changed(mode, who.replace("a", "ugo"), operator, what, is_directory)
        return mode


def _changed(mode: int, who: str, operator: str, what: str, is_directory: bool) -> int:  # noqa: FBT001, RUF100
    execute = "X" in what and (is_directory or bool(mode & 0o111))
    bits = sum(_BITS[letter] for letter in set(what) & _BITS.keys())
    bits |= 1 if execute else 0
    change = mask = 0
    for letter in set(who):
        change |= bits << _SHIFTS[letter]
        mask |= 7 << _SHIFTS[letter]
    if "s" in what:
        change |= (0o4000 if "u" in who else 0) | (0o2000 if "g" in who else 0)
    if "t" in what:
        change |= 0o1000
    if operator == "+":
        return mode | change
    if operator == "-":
        return mode & ~change
    return (mode & ~mask) | change
