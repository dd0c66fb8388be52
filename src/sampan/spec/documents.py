"""Strict reading of JSON documents that strangers wrote.

Two readers that understand one document differently are a hole: what a scanner saw is not what the
engine runs. So a document is refused when it has a key twice, when it has two keys that differ only
by case (Go's decoder takes them for one), when a key we know is spelled in another case, when it is
not UTF-8, when it has NaN or an overlong number, or when it is nested too deeply or has too many
parts. Maps whose keys are data (labels, annotations) keep keys that differ by case.

`parse` gives the top object as `Fields`; its methods take one key out, of one type, or raise
InvalidArgument with the place in the message.
"""

from __future__ import annotations

import json
from typing import Any, Final

from sampan.errors import InvalidArgument

MAX_PARTS: Final = 200_000  # brackets and commas: a ceiling on memory before anything is built
MAX_DEPTH: Final = 64
_MAX_DIGITS: Final = 20
MAX_INTEGER: Final = (1 << 63) - 1


class Fields:
    """A JSON object with known keys, read one typed key at a time."""

    __slots__ = ("_values", "place")

    def __init__(self, value: Any, place: str, known: frozenset[str]) -> None:
        if not isinstance(value, dict):
            raise InvalidArgument(f"{place}: an object is expected")
        self.place = place
        self._values: dict[str, Any] = value
        _check_case(value, place, known)

    def names_of(self) -> frozenset[str]:
        """Every key that is there."""
        return frozenset(self._values)

    def get(self, key: str) -> Any:
        """The value as it is, None when absent."""
        return self._values.get(key)

    def text(self, key: str, default: str | None = None) -> str:
        """A string; without a default it must be there."""
        value = self._values.get(key)
        if value is None and default is not None:
            return default
        return checked_text(value, f"{self.place}.{key}")

    def optional(self, key: str) -> str | None:
        """A string, or None when it is absent, null or empty."""
        return self.text(key, "") or None

    def integer(self, key: str, default: int | None = None) -> int:
        """An integer from 0 to 2**63-1; without a default it must be there."""
        value = self._values.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INTEGER:
            raise InvalidArgument(f"{self.place}.{key}: an integer from 0 is expected")
        return value

    def flag(self, key: str) -> bool:
        """A boolean, false when absent."""
        value = self._values.get(key)
        if value is not None and not isinstance(value, bool):
            raise InvalidArgument(f"{self.place}.{key}: true or false is expected")
        return bool(value)

    def items(self, key: str, limit: int) -> list[Any]:
        """A list of at most `limit` parts, empty when absent."""
        value = self._values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise InvalidArgument(f"{self.place}.{key}: a list is expected")
        if len(value) > limit:
            raise InvalidArgument(f"{self.place}.{key}: more than {limit} parts")
        return value

    def texts(self, key: str, limit: int = 100_000) -> tuple[str, ...]:
        """A list of strings, empty when absent."""
        place = f"{self.place}.{key}"
        return tuple(checked_text(value, place) for value in self.items(key, limit))

    def mapping(self, key: str) -> dict[str, str]:
        """A map of strings to strings, empty when absent."""
        place = f"{self.place}.{key}"
        return {
            checked_text(name, place): checked_text(value, place)
            for name, value in self._map(key).items()
        }

    def names(self, key: str) -> tuple[str, ...]:
        """The keys of a map that is used as a set, sorted."""
        place = f"{self.place}.{key}"
        return tuple(sorted(checked_text(name, place) for name in self._map(key)))

    def _map(self, key: str) -> dict[str, Any]:
        value = self._values.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InvalidArgument(f"{self.place}.{key}: an object is expected")
        return value


def parse(content: bytes, place: str, known: frozenset[str], limit: int) -> Fields:
    """The top object of the document `content`, of at most `limit` bytes.

    Raises:
        InvalidArgument: it breaks one of the rules above; the message starts with `place`.
    """
    return Fields(load(content, place, limit), place, known)


def load(content: bytes, place: str, limit: int) -> Any:
    """The value that is the document `content`, whatever it is. Raises as `parse`."""
    if len(content) > limit:
        raise InvalidArgument(f"{place}: {len(content)} bytes are more than the limit of {limit}")
    if sum(map(content.count, (b"[", b"{", b","))) > MAX_PARTS:
        raise InvalidArgument(f"{place}: more than {MAX_PARTS} parts")
    try:
        value = json.loads(
            content.decode(),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_integer,
        )
    except RecursionError:
        raise InvalidArgument(f"{place}: nested too deeply") from None
    except ValueError as error:
        raise InvalidArgument(f"{place}: not valid JSON: {_reason(error)}") from None
    _check_depth(value, place)
    return value


def encode(document: dict[str, Any] | list[dict[str, Any]]) -> bytes:
    """The bytes of a document of ours: compact, keys in the order given."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def checked_text(value: Any, place: str) -> str:
    """`value` when it is a string that UTF-8 can carry and C can take."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{place}: a string is expected")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise InvalidArgument(f"{place}: the string has a character that is not allowed")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return values


def _check_case(values: dict[str, Any], place: str, known: frozenset[str]) -> None:
    """Refuse keys that another reader would take for the same, or for one that we know."""
    folded_known = {key.casefold(): key for key in known}
    seen: dict[str, str] = {}
    for key in values:
        folded = key.casefold()
        if folded in seen:
            raise InvalidArgument(
                f"{place}: the keys {seen[folded][:80]!r} and {key[:80]!r} differ only by case"
            )
        seen[folded] = key
        if folded_known.get(folded, key) != key:
            raise InvalidArgument(
                f"{place}: the key {key[:80]!r} must be spelled {folded_known[folded]!r}"
            )


def _check_depth(value: Any, place: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [part for parent in level for part in _parts(parent)]
        if not level:
            return
    raise InvalidArgument(f"{place}: nested more than {MAX_DEPTH} deep")


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number of JSON")


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError("a number is too long")
    return int(text)


def _reason(error: ValueError) -> str:
    return str(error)[:200]
