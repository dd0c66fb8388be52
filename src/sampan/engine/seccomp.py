"""Compiled seccomp filters as sealed memory files, one for each distinct question.

The question is: which profile, with which capabilities, for which architecture. Compiling takes
milliseconds and happens once; every launch passes the same descriptor on. A profile of the user's
may be in OCI's or in Docker's form; what is not understood is refused, never skipped.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from sampan.engine import profiles, security
from sampan.errors import InvalidArgument
from sampan.kernel import fds, seccomp
from sampan.spec.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.engine.model import HostConfig

MAX_FILTERS = 128
MAX_PROFILE = 1 << 20

Key = tuple[str, tuple[str, ...], str]


class Filters:
    """Descriptors of compiled filters, owned here."""

    def __init__(self) -> None:
        self._made: dict[Key, tuple[int, int]] = {}
        self._architecture = Platform.host().architecture

    def get(self, host: HostConfig, architecture: str = "") -> tuple[int, int] | None:
        """(descriptor, flags) for a container, None when it is to run without a filter.

        Raises:
            InvalidArgument: the profile cannot be compiled. It never means no filter.
        """
        key = security.seccomp_key(host)
        if key is None:
            return None
        whole = (*key, architecture or self._architecture)
        return self._made.get(whole) or self._compile(whole)

    def profile(self, host: HostConfig, architecture: str = "") -> dict[str, Any] | None:
        """The same as an OCI profile, for a runtime that compiles it itself.

        Raises:
            InvalidArgument: the profile cannot be read.
        """
        key = security.seccomp_key(host)
        if key is None:
            return None
        text, capabilities = key
        architecture = architecture or self._architecture
        if not text:
            return profiles.seccomp_profile(capabilities, architecture)
        try:
            return read_profile(text, capabilities, architecture)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidArgument(f"read seccomp profile: {error}") from error

    def close(self) -> None:
        """Close every descriptor."""
        for fd, _ in self._made.values():
            os.close(fd)
        self._made.clear()

    def _compile(self, key: Key) -> tuple[int, int]:
        text, capabilities, architecture = key
        try:
            if text:
                profile = read_profile(text, capabilities, architecture)
            else:
                profile = profiles.seccomp_profile(capabilities, architecture)
            compiled = seccomp.compile(profile)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidArgument(f"compile seccomp profile: {error}") from error
        if len(self._made) >= MAX_FILTERS:
            oldest = next(iter(self._made))
            os.close(self._made.pop(oldest)[0])
        made = fds.sealed_memfd("sampan-seccomp", compiled.program), compiled.flags
        self._made[key] = made
        return made


def read_profile(text: str, capabilities: Sequence[str], architecture: str) -> dict[str, Any]:
    """A user's profile in OCI's form; Docker's conditions on capabilities are decided here.

    Raises:
        ValueError: it is no profile.
    """
    if len(text) > MAX_PROFILE:
        raise ValueError("the profile is larger than 1 MiB")
    profile = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(profile, dict) or not profile.get("defaultAction"):
        raise ValueError("the profile has no defaultAction")
    if architectures := profile.pop("archMap", None):
        profile["architectures"] = [
            name
            for entry in architectures
            for name in (entry["architecture"], *(entry.get("subArchitectures") or ()))
        ]
        profile["architectures"] = _of_this_machine(profile["architectures"])
    held = frozenset(capabilities)
    profile["syscalls"] = [
        _plain(rule) for rule in profile.get("syscalls") or () if _applies(rule, held, architecture)
    ]
    return profile


def _applies(rule: dict[str, Any], held: frozenset[str], architecture: str) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    for condition in (includes, excludes):
        if unknown := condition.keys() - {"caps", "arches", "minKernel"}:
            raise ValueError(f"unknown condition {min(unknown)!r}")
    if any(name not in held for name in includes.get("caps") or ()):
        return False
    if any(name in held for name in excludes.get("caps") or ()):
        return False
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    if architecture in (excludes.get("arches") or ()):
        return False
    least = includes.get("minKernel")
    return least is None or _kernel() >= tuple(int(part) for part in least.split(".")[:2])


def _plain(rule: dict[str, Any]) -> dict[str, Any]:
    """The rule without what only Docker's form has."""
    plain = {
        key: value for key, value in rule.items() if key not in ("includes", "excludes", "comment")
    }
    if "name" in plain:
        plain["names"] = [plain.pop("name")]
    return plain


def _of_this_machine(architectures: list[str]) -> list[str]:
    family = ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM")
    if os.uname().machine == "x86_64":
        family = ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86")
    return [name for name in architectures if name in family]


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key is there twice")
    return content
