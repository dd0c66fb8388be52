"""`--systemd-cgroup`: what a configuration and its annotations ask of systemd.

`cgroupsPath` is `slice:prefix:name` then. Annotations `org.systemd.property.NAME` become properties
of the unit, with their values in GVariant's text form, as under runc: `'inactive-or-failed'`,
`true`, `15`, `uint64 5000000`, `['a', 'b']`. A name in `Sec` stands for the one in `USec`.
"""

from __future__ import annotations

from sampan.kernel.cgroups import scope
from sampan.runtime.failure import InvalidConfig, RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups.scope_properties import Property

PREFIX = "org.systemd.property."
_TYPES = {
    "boolean": "b",
    "byte": "y",
    "double": "d",
    "int16": "n",
    "int32": "i",
    "int64": "x",
    "objectpath": "o",
    "signature": "g",
    "string": "s",
    "uint16": "q",
    "uint32": "u",
    "uint64": "t",
}
_BITS = {"y": (0, 8), "n": (-15, 15), "q": (0, 16), "i": (-31, 31), "u": (0, 32), "x": (-63, 63)}
_BITS["t"] = (0, 64)
# Annotations may come from further away than the rest of a configuration: what a unit does to
# others (SuccessAction, Requires, ...) is not for them to say.
ALLOWED = frozenset(
    "CollectMode Description Documentation FinalKillSignal KillMode KillSignal OOMPolicy "
    "ManagedOOMMemoryPressure ManagedOOMPreference ManagedOOMSwap RuntimeMaxUSec SendSIGHUP "
    "SendSIGKILL TimeoutStopUSec".split()
)
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGITS = frozenset("0123456789")
_WORD = _LETTERS | _DIGITS
_NUMBER = _DIGITS | frozenset("+-.")


def claim(spec: dict[str, Any], container_id: str) -> None:
    """Make `linux.cgroupsPath` the path that the unit will have, and `linux.scope` the unit.

    Raises:
        InvalidConfig: `cgroupsPath` or an annotation has not the form it must have.
        RuntimeFailure: systemd does not run here, or cannot be reached.
    """
    linux = spec["linux"]
    properties = [
        _property(name.removeprefix(PREFIX), value)
        for name, value in (spec.get("annotations") or {}).items()
        if name.startswith(PREFIX)
    ]
    try:
        path, unit = scope.place(linux.get("cgroupsPath") or "", container_id)
    except ValueError as error:
        raise InvalidConfig(str(error)) from error
    except OSError as error:
        raise RuntimeFailure(error.errno or 0, error.strerror or str(error)) from error
    linux["cgroupsPath"] = path
    linux["scope"] = {"unit": unit, "properties": properties}


def _property(name: str, text: object) -> Property:
    field = f"annotations[{PREFIX}{name}]"
    is_time = name.endswith("Sec") and not name.endswith("USec")
    real = f"{name.removesuffix('Sec')}USec" if is_time else name
    if real not in ALLOWED:
        raise InvalidConfig(f"{field}: not a property that an annotation may set")
    try:
        signature, value = parse(str(text))
    except ValueError as error:
        raise InvalidConfig(f"{field}: {error}") from error
    if not is_time:
        return name, (signature, value)
    if signature not in _BITS and signature != "d":
        raise InvalidConfig(f"{field}: {text!r} is not a number of seconds")
    microseconds = int(value * 1_000_000)
    if not 0 <= microseconds < 1 << 64:
        raise InvalidConfig(f"{field}: {text!r} is not a number of seconds")
    return real, ("t", microseconds)


def parse(text: str) -> tuple[str, Any]:
    """(signature, value) of GVariant's text. Raises ValueError."""
    tokens = _tokens(text)
    signature, value = _value(tokens)
    if tokens:
        raise ValueError(f"{text!r} is more than one value")
    return signature, value


def _tokens(text: str) -> list[tuple[str, str]]:
    """(kind, text) of each: "text" with its quotes taken off, "word", "number" or "mark"."""
    tokens = []
    rest = text.lstrip()
    while rest:
        first = rest[0]
        if first in "[],":
            kind, token, length = "mark", first, 1
        elif first in "'\"":
            token, length = _quoted(rest)
            kind = "text"
        else:
            kind, members = ("word", _WORD) if first in _LETTERS else ("number", _NUMBER)
            length = next((at for at, char in enumerate(rest) if char not in members), len(rest))
            token = rest[:length]
        if not length:
            raise ValueError(f"{text!r} is not a value")
        tokens.append((kind, token))
        rest = rest[length:].lstrip()
    return tokens


def _quoted(text: str) -> tuple[str, int]:
    """The text between quotes at the beginning, and its length with them."""
    found = ""
    at = 1
    while at < len(text) and text[at] != text[0]:
        at += text[at] == "\\"
        found += text[at : at + 1]
        at += 1
    if at >= len(text):
        raise ValueError("a text without an end")
    return found, at + 1


def _value(tokens: list[tuple[str, str]]) -> tuple[str, Any]:
    kind, text = tokens.pop(0) if tokens else ("", "")
    if kind == "word" and text in ("true", "false"):
        return "b", text == "true"
    if kind == "word" and text in _TYPES:
        following = tokens.pop(0) if tokens else ("", "")
        return _TYPES[text], _checked(_TYPES[text], _plain(*following))
    if (kind, text) == ("mark", "["):
        return _array(tokens)
    value = _plain(kind, text)
    signature = "s" if kind == "text" else "d" if isinstance(value, float) else "i"
    return signature, _checked(signature, value)


def _plain(kind: str, text: str) -> str | int | float | bool:
    """The value of one token."""
    if kind == "text":
        return text
    if kind == "number":
        return float(text) if "." in text else int(text)
    if kind == "word" and text in ("true", "false"):
        return text == "true"
    raise ValueError(f"{text!r} is not a value")


def _array(tokens: list[tuple[str, str]]) -> tuple[str, Any]:
    values = []
    element = "s"
    while tokens and tokens[0] != ("mark", "]"):
        if tokens[0][0] == "mark":
            raise ValueError("an array of arrays, or a comma too many")
        element, value = _value(tokens)
        values.append(value)
        if tokens and tokens[0] == ("mark", ","):
            tokens.pop(0)
    if not tokens or len({type(value) for value in values}) > 1:
        raise ValueError("an array without an end, or of several types")
    tokens.pop(0)
    return f"a{element}", values


def _checked(kind: str, value: Any) -> Any:
    """`value` as one of the type `kind`."""
    if kind == "d" and isinstance(value, (int, float)):
        return float(value)
    if kind in _BITS:
        low, high = _BITS[kind]
        least = -(1 << -low) if low else 0
        if isinstance(value, int) and least <= value < 1 << high:
            return value
    elif isinstance(value, bool if kind == "b" else str):
        return value
    raise ValueError(f"{value!r} is not of its type")
