"""Whether machines can be made here, and the words that make one (`__main__.py`)."""

from __future__ import annotations

import os
import re
import sys

import sampan
from sampan.vm.machine import find_qemu

BOOT = "/boot"
MODULES = "/lib/modules"
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from sampan.vm.__main__ import main; main()"
)


def find(
    kernel: str, modules: str, *, memory: int, accelerator: str, cache: str
) -> tuple[str, ...]:
    """The program of the handler with its first words, () where something is missing.

    `kernel` and `modules` are "" for the distribution's newest that has what is needed.
    """
    if not find_qemu():
        return ()
    pairs = [(kernel, modules or _modules_of(kernel))] if kernel else _installed()
    for image, directory in pairs:
        if os.path.isfile(image) and _has_sharing(directory):
            source = os.path.dirname(os.path.dirname(os.path.abspath(sampan.__file__)))
            words = [sys.executable, "-I", "-S", "-B", "-c", _START, source]
            words += ["--kernel", image, "--modules", directory, "--memory", str(memory)]
            return (*words, "--accelerator", accelerator, "--cache", cache)
    return ()


def _installed() -> list[tuple[str, str]]:
    """Kernels of the distribution and their modules, newest first."""
    try:
        names = [name for name in os.listdir(BOOT) if name.startswith("vmlinuz-")]
    except FileNotFoundError:
        return []
    names.sort(key=_version, reverse=True)
    return [(f"{BOOT}/{name}", _modules_of(name)) for name in names]


def _version(name: str) -> list[int]:
    return [int(word) for word in re.findall(r"\d+", name)]


def _modules_of(kernel: str) -> str:
    return f"{MODULES}/{os.path.basename(kernel).removeprefix('vmlinuz-')}"


def _has_sharing(directory: str) -> bool:
    """Whether the kernel can share files by 9p, which some of those for clouds cannot."""
    return os.path.isdir(f"{directory}/kernel/fs/9p")
