"""The command line starts fast because of what it does not import.

Each of these runs takes the modules a command of the plain path needs, in a fresh interpreter, and
compares what is there with what may be. A module that is not in the list is a decision, not an
accident: measure it first.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

SOURCE = pathlib.Path(__file__).parents[2] / "src"
BARE = set(
    "abc builtins codecs encodings encodings.aliases encodings.utf_8 genericpath io marshal os "
    "os.path posix posixpath stat sys time zipimport __future__ __main__ _abc _codecs "
    "_collections_abc _frozen_importlib _frozen_importlib_external _imp _io _signal _stat "
    "_thread _warnings _weakref encodings.latin_1 encodings.idna".split()
)
PLAIN = BARE | {"_json", "_socket", "errno", "fcntl", "select", "termios"}
FORBIDDEN = set(
    "argparse asyncio dataclasses enum json logging msgspec pathlib re signal socket sqlite3 "
    "subprocess threading typing".split()
)


def imported(*names):
    code = (
        f"import sys; sys.path.append({str(SOURCE)!r})\n"
        f"for name in {names!r}: __import__(name)\n"
        "import os; os.write(1, ' '.join(sys.modules).encode())"
    )
    argv = [sys.executable, "-I", "-S", "-c", code]
    return set(subprocess.run(argv, check=True, capture_output=True).stdout.decode().split())


@pytest.mark.parametrize(
    "names",
    [
        ("sampan.cli.commands.run", "sampan.cli.attached", "sampan.client.sync"),
        ("sampan.cli.commands.exec", "sampan.cli.attached", "sampan.client.sync"),
        ("sampan.cli.commands.run", "sampan.cli.terminal", "sampan.cli.progress"),
        ("sampan.cli.commands.ps", "sampan.cli.template", "sampan.client.sync"),
        ("sampan.cli.commands.logs", "sampan.client.sync"),
        ("sampan.cli.commands.images", "sampan.cli.commands.inspect"),
        ("sampan.cli.commands.lifecycle", "sampan.cli.commands.stats"),
        ("sampan.cli.commands.transfer", "sampan.cli.commands.system", "sampan.client.launch"),
    ],
    ids=lambda names: names[0].rpartition(".")[2],
)
def test_commands_import_what_is_cheap(names):
    modules = imported("sampan.cli.__main__", *names)
    foreign = {name for name in modules if name.partition(".")[0] != "sampan"}
    assert foreign - PLAIN == set()
    assert not foreign & FORBIDDEN


def test_commands_know_nothing_of_the_engine():
    modules = imported("sampan.cli.__main__", "sampan.cli.commands.run", "sampan.client.sync")
    rooms = {name.split(".")[1] for name in modules if name.startswith("sampan.")}
    assert rooms == {"cli", "client", "errors", "jsontext", "version"}


def test_library_is_imported_when_it_is_used():
    assert {name for name in imported("sampan") if name.startswith("sampan")} == {"sampan"}


def test_forbidden_modules_would_be_seen():
    assert "re" in imported("json")


@pytest.mark.parametrize("name", ["sampan", "sampan-oci"])
def test_launchers_are_short_shell(name):
    text = (SOURCE.parent / "bin" / name).read_text()
    assert text.startswith("#!/bin/sh\n")
    assert len(text.splitlines()) <= 24
    assert json.dumps(text).isascii()
