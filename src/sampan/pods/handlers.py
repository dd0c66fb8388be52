"""Runtime handlers: which low-level runtime the containers of a pod run under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One handler. `program` is an OCI runtime with runc's command line, "" for our own."""

    name: str
    program: str = ""
    recursive_read_only: bool = True
    user_namespaces: bool = False


class Handlers:
    """All handlers, by the names that RuntimeClass uses; "" is the default one."""

    def __init__(self, more: tuple[Handler, ...] = ()) -> None:
        ours = (Handler(name=""), Handler(name="sampan"))
        self._by_name = {handler.name: handler for handler in (*ours, *more)}

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._by_name.values())

    def find(self, name: str) -> Handler:
        """The handler of that name.

        Raises:
            InvalidArgument: there is none.
        """
        found = self._by_name.get(name)
        if found is None:
            raise InvalidArgument(f"no runtime handler {name!r} is configured")
        return found
