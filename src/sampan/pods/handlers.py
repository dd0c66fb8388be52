"""Runtime handlers: which low-level runtime the containers of a pod run under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument
from sampan.pods import users
from sampan.pods.model import Mode, Propagation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sampan.pods.model import Request, SandboxConfig

OURS = "sampan"
MACHINE = "vm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One handler. `program` is an OCI runtime with runc's command line, () for our own.
    `is_machine`: each pod has a kernel of its own."""

    name: str
    program: tuple[str, ...] = ()
    recursive_read_only: bool = False
    user_namespaces: bool = False
    is_machine: bool = False

    def check_sandbox(self, config: SandboxConfig) -> None:
        """Refuse what a pod with a kernel of its own cannot have. Raises InvalidArgument."""
        asked = config.namespaces
        if self.is_machine and Mode.NODE in (asked.network, asked.pid, asked.ipc):
            raise InvalidArgument(
                f"runtime handler {self.name!r}: a pod with a kernel of its own cannot be in the "
                "node's namespaces"
            )
        if self.is_machine and config.sysctls:
            raise InvalidArgument(
                f"runtime handler {self.name!r}: sysctls of a pod with a kernel of its own cannot "
                "be set"
            )

    def check_user_namespaces(self) -> None:
        """Refuse a pod with a user namespace if need be. Raises InvalidArgument."""
        if not self.user_namespaces:
            raise InvalidArgument(f"runtime handler {self.name!r} has no user namespaces here")

    def check(self, request: Request) -> None:
        """Refuse what it cannot do. Raises InvalidArgument."""
        if self.is_machine and (request.devices or request.cdi):
            raise InvalidArgument(
                f"runtime handler {self.name!r}: devices of the node cannot be in a pod with a "
                "kernel of its own"
            )
        for mount in request.mounts:
            if mount.recursive_read_only and not self.recursive_read_only:
                raise InvalidArgument(
                    f"mount on {mount.target}: runtime handler {self.name} has no "
                    "recursive read-only mounts"
                )
            # Its containers are made in a mount namespace whose mounts do not reach the node.
            if mount.propagation is Propagation.BIDIRECTIONAL and self.program:
                raise InvalidArgument(
                    f"mount on {mount.target}: runtime handler {self.name} has no bidirectional "
                    "propagation"
                )


class Handlers:
    """All handlers, by the names that RuntimeClass uses; "" is the default one."""

    def __init__(
        self, programs: Mapping[str, tuple[str, ...]], machine: tuple[str, ...] = ()
    ) -> None:
        self.set_programs(programs, machine)

    def set_programs(
        self, programs: Mapping[str, tuple[str, ...]], machine: tuple[str, ...] = ()
    ) -> None:
        """The foreign handlers, by their names; `machine` makes pods with a kernel of their own."""
        able = users.are_possible()
        ours = [
            Handler(name=name, recursive_read_only=True, user_namespaces=able)
            for name in ("", OURS)
        ]
        foreign = [Handler(name=name, program=words) for name, words in programs.items()]
        if machine:
            foreign.append(Handler(name=MACHINE, program=machine, is_machine=True))
        self._by_name = {handler.name: handler for handler in (*ours, *foreign)}

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._by_name.values())

    def find(self, name: str) -> Handler:
        """The handler of that name.

        Raises:
            InvalidArgument: there is none.
        """
        found = self._by_name.get(name)
        if found is None:
            known = ", ".join(sorted(filter(None, self._by_name)))
            raise InvalidArgument(f"no runtime handler {name!r} is configured; there are {known}")
        return found
