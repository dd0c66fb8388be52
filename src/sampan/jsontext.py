"""JSON text without the `json` package, which would bring `re` into every start of a command.

`decode` drives the scanner in C that the standard library's decoder drives; `encode` is written
out, because request bodies are small. Both keep the order of keys. Where the interpreter has no
`_json` the package serves instead. `encode(value, indent)` prints as `docker inspect` does.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Scanner = Callable[[str, int], tuple[Any, int]]
    PairsHook = Callable[[list[tuple[str, Any]]], Any]

_WHITE = " \t\r\n"


class _Plain:
    """What the scanner in C asks of its decoder: nothing out of the ordinary."""

    strict = True
    object_hook = None
    object_pairs_hook: PairsHook | None = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012  read by the scanner, never by us

    @staticmethod
    def parse_constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")


def _load(pairs_hook: PairsHook | None = None) -> tuple[Scanner, Callable[[str], str]]:
    try:
        import _json

        settings = type("_Settings", (_Plain,), {"object_pairs_hook": pairs_hook})
        scanner = _json.make_scanner(settings)  # type: ignore[arg-type]  # any object will do
        return scanner, _json.encode_basestring
    except (ImportError, AttributeError, TypeError):
        import json.decoder
        import json.encoder

        decoder = json.decoder.JSONDecoder(object_pairs_hook=pairs_hook)
        return decoder.raw_decode, json.encoder.encode_basestring


_scan, quote = _load()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} is there twice")
    return found


def decode_unique(text: str | bytes | bytearray) -> Any:
    """As `decode`, for documents that others may read too: a key may be there only once.

    Raises:
        ValueError: it is not JSON, more than one value, or has a key twice in one object.
    """
    return decode(text, _load(_unique)[0])


def decode(text: str | bytes | bytearray, scan: Scanner = _scan) -> Any:
    """The one JSON value that `text` holds.

    Raises:
        ValueError: it is not JSON, or more than one value.
    """
    if not isinstance(text, str):
        text = text.decode("utf-8")
    text = text.strip(_WHITE)
    try:
        value, end = scan(text, 0)
    except (StopIteration, RecursionError, SystemError) as error:
        # SystemError: the scanner wants the error class of a package that nobody imported
        raise ValueError(f"not JSON: {text[:80]!r}") from error
    if end != len(text):
        raise ValueError(f"text after the JSON value: {text[end : end + 80]!r}")
    return value


def encode(value: Any, indent: str = "", _depth: str = "\n") -> str:
    """`value` as JSON text: compact, or on many lines when `indent` is not empty."""
    if isinstance(value, str):
        return quote(value)
    if value is None or value is True or value is False:
        return "null" if value is None else "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if not value:
        return "{}" if isinstance(value, dict) else "[]"
    deeper = _depth + indent if indent else ""
    close = _depth if indent else ""
    if isinstance(value, dict):
        colon = ": " if indent else ":"
        inner = [
            quote(key) + colon + encode(item, indent, _depth + indent)
            for key, item in value.items()
        ]
        return "{" + deeper + ("," + deeper).join(inner) + close + "}"
    inner = [encode(item, indent, _depth + indent) for item in value]
    return "[" + deeper + ("," + deeper).join(inner) + close + "]"
