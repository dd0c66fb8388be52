"""Platforms: which of an index's images fits this machine.

Words as in the OCI image specification, which took them from Go: `os`, `architecture`, `variant`.
Spellings are normalised (`x86_64` is `amd64`, `aarch64` and `arm64/v8` are `arm64`, `arm` is
`arm/v7`), so that equal platforms compare equal. `match_order` gives the platforms that can run on
one, best first, as containerd orders them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from sampan.errors import InvalidArgument

_PART: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
}
_BASE_VARIANTS: Final = frozenset((("arm64", "8"), ("arm64", "v8"), ("amd64", "v1")))
_ARM_VARIANTS: Final = ("v8", "v7", "v6", "v5")

_SYSTEMS: Final = frozenset("darwin freebsd linux netbsd openbsd solaris wasip1 windows".split())
_PLAIN: Final = frozenset(
    "386 amd64 arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x wasm".split()
)


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system, an architecture and perhaps a variant of it, in Go's spelling."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def make(cls, system: str, architecture: str, variant: str = "") -> Platform:
        """A platform from possibly unusual spellings."""
        machine = architecture.lower()
        arch, variant = _ARCHITECTURES.get(machine, machine), variant.lower()
        if (arch, variant) in _BASE_VARIANTS:
            variant = ""
        elif arch == "arm":
            variant = _arm_variant(machine, variant)
        return cls(system.lower(), arch, variant)

    @classmethod
    def host(cls) -> Platform:
        """The platform of this machine."""
        machine = os.uname().machine
        if machine.startswith("armv"):
            return cls.make("linux", "arm", machine[3:5])
        return cls.make("linux", machine)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """The platform that `os/architecture[/variant]`, or one of the two alone, spells.

        Raises:
            InvalidArgument: it has another form, or what stands alone is neither.
        """
        parts = text.split("/")
        if len(parts) > 3 or any(_PART.fullmatch(part) is None for part in parts):
            raise InvalidArgument(
                f"invalid platform {text[:160]!r}: the form is os/architecture[/variant]"
            )
        if len(parts) == 1:
            return cls._alone(parts[0].lower())
        return cls.make(*parts)

    @classmethod
    def _alone(cls, word: str) -> Platform:
        if word in _SYSTEMS:
            return cls.make(word, cls.host().architecture)
        if word not in _ARCHITECTURES and word not in _PLAIN and not word.startswith("arm"):
            raise InvalidArgument(
                f"invalid platform {word!r}: unknown operating system or architecture"
            )
        return cls.make("linux", word)

    def document(self) -> dict[str, str]:
        """The JSON object, without a variant where there is none."""
        content = {"architecture": self.architecture, "os": self.os, "variant": self.variant}
        return {key: value for key, value in content.items() if value}

    def __str__(self) -> str:
        text = f"{self.os}/{self.architecture}"
        return f"{text}/{self.variant}" if self.variant else text


def match_order(platform: Platform) -> list[Platform]:
    """What can run on `platform`, best first."""
    order = [platform]
    if platform.architecture == "amd64":
        if platform.variant:
            order.append(Platform(platform.os, "amd64"))
        order.append(Platform(platform.os, "386"))
    elif platform.architecture == "arm64":
        if platform.variant:
            order.append(Platform(platform.os, "arm64"))
        order += [Platform(platform.os, "arm", variant) for variant in _ARM_VARIANTS]
    elif platform.architecture == "arm" and platform.variant in _ARM_VARIANTS:
        below = _ARM_VARIANTS[_ARM_VARIANTS.index(platform.variant) + 1 :]
        order += [Platform(platform.os, "arm", variant) for variant in below]
    return order


def _arm_variant(machine: str, variant: str) -> str:
    if machine == "armel":
        return "v6"
    if not variant:
        return "v7"
    return variant if variant.startswith("v") else "v" + variant
