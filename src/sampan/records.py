"""Frozen dataclasses with slots that cost a quarter of the standard library's at import.

`dataclass` of the standard library writes and compiles six functions for each class, a millisecond
of them; rooms with dozens of classes pay for that at each start of the daemon. Here only `__init__`
is compiled and all else is shared. To a type checker, to `replace`, `fields` and msgspec it is a
dataclass like any other; not for classes that are inherited from.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, fields
from dataclasses import dataclass as _standard
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import Field, dataclass
else:

    def dataclass(*, frozen: bool, slots: bool, kw_only: bool = False) -> Callable[[type], type]:
        """As the standard library's, for `frozen=True, slots=True`."""
        if not (frozen and slots):
            raise TypeError("only frozen classes with slots are made here")
        return lambda cls: _make(cls, kw_only=kw_only)


__all__ = ("dataclass",)

_SET = object.__setattr__


def _make(cls: type, *, kw_only: bool) -> type:
    made: Any = _standard(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(cls)
    known = fields(made)
    made.__init__ = _init(made, known)
    made.record_values = attrgetter(*[one.name for one in known if one.compare])
    made.record_key = attrgetter(
        *[one.name for one in known if (one.compare if one.hash is None else one.hash)]
    )
    made.__eq__, made.__hash__ = _equals, _hash
    made.__setattr__, made.__delattr__ = _refuse_set, _refuse_delete
    if "__repr__" not in vars(made):
        made.__repr__ = _repr
    return made  # type: ignore[no-any-return]  # which is what we were given


def _init(cls: type, known: tuple[Field[Any], ...]) -> Callable[..., None]:
    """Written out, for these are made by the thousand, and defaults are looked up once."""
    space: dict[str, Any] = {"_set": _SET, "_missing": MISSING}
    given, lines = ["self"], []
    ordered: list[str] = []
    for one in known:
        name, value = one.name, one.name
        text = name
        if one.default is not MISSING:
            space[f"_of_{name}"] = one.default
            text = f"{name}=_of_{name}"
        elif one.default_factory is not MISSING:
            space[f"_of_{name}"] = one.default_factory
            text = f"{name}=_missing"
            value = f"_of_{name}() if {name} is _missing else {name}"
        (ordered if one.kw_only else given).append(text)
        lines.append(f" _set(self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        lines.append(" self.__post_init__()")
    head = ", ".join([*given, "*", *ordered] if ordered else given)
    exec(f"def __init__({head}):\n" + "\n".join(lines), space)  # noqa: S102 - fields' names alone
    made: Callable[..., None] = space["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _equals(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return self.record_values(self) == other.record_values(other)


def _hash(self: Any) -> int:
    return hash(self.record_key(self))


def _repr(self: Any) -> str:
    inside = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields(self))
    return f"{self.__class__.__qualname__}({inside})"


def _refuse_set(self: Any, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")
