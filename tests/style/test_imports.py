"""What the kernel side has loaded when it stands beside a container, module for module.

The spawner is what every shim is forked from, and it closes the import system afterwards: what it
needs must be there, and what it does not need is memory in each shim. `sampan-oci` pays for each
module at each start. A new name here is a decision: measure it first. (What the command line may
load is in test_cli_start.py.)
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
INTERPRETER = set(
    "__future__ __main__ _abc _codecs _collections_abc _frozen_importlib "
    "_frozen_importlib_external _imp _io _signal _stat _thread _warnings _weakref abc builtins "
    "codecs encodings encodings.aliases encodings.utf_8 genericpath io marshal os os.path posix "
    "posixpath stat sys time zipimport".split()
)
RUNTIME = INTERPRETER | set(
    "_ctypes _json _socket _struct ctypes ctypes._endian errno fcntl math resource select struct "
    "termios types".split()
)
JSON = set(  # the json package brings regular expressions, and they bring enumerations
    "_collections _functools _operator _sre collections copyreg enum functools itertools json "
    "json.decoder json.encoder json.scanner keyword operator re re._casefix re._compiler "
    "re._constants re._parser reprlib".split()
)


def loaded(*names):
    """What is in sys.modules after importing `names` as the launchers do."""
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
        f"for name in {names!r}: __import__(name)\n"
        "sys.stdout.write(' '.join(sys.modules))"
    )
    argv = [sys.executable, "-I", "-S", "-B", "-c", code]
    return set(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split())


def foreign(modules):
    """Without our own."""
    return {name for name in modules if name.partition(".")[0] != "sampan"}


def rooms(modules):
    """The rooms of the package that are there."""
    return {name.split(".")[1] for name in modules if name.startswith("sampan.")}


@pytest.mark.parametrize(
    ("names", "allowed"),
    [
        (("sampan.shim.spawner", "sampan.shim.containers"), RUNTIME | JSON | {"gc", "zlib"}),
        (("sampan.runtime.launch",), RUNTIME),
        (("sampan.runtime.__main__", "sampan.runtime.verbs"), RUNTIME | {"gc", "pwd"}),
    ],
    ids=["spawner", "launch", "sampan-oci"],
)
def test_modules_of_the_kernel_side(names, allowed):
    assert foreign(loaded(*names)) - allowed == set()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sampan.shim.containers", {"kernel", "runtime", "shim"}),
        ("sampan.runtime.launch", {"kernel", "runtime"}),
    ],
)
def test_rooms_of_the_kernel_side(name, expected):
    found = rooms(loaded(name)) - {"errors", "ids", "jsontext", "version"}
    assert found == expected


def test_a_foreign_module_would_be_seen():
    assert foreign(loaded("logging")) - RUNTIME - JSON - {"gc"} != set()
