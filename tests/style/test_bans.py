"""What nobody may use in the package, found in the syntax tree.

Each rule has a reason. An exception has an entry with its reason, and an entry that is no longer
needed fails.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "sampan"

MODULES = {
    "tarfile": "extracts by path and trusts what it reads; layers/ has a parser of its own",
    "pickle": "runs what it reads",
    "shelve": "runs what it reads",
    "shutil": "its trees follow links that change underneath; store/trees.py works by descriptor",
}
CALLS = {
    "eval": "runs text",
    "exec": "runs text",
    "mktemp": "names a file that somebody else may make first",
    "popen": "starts a shell",
    "rmtree": "follows links that change underneath",
    "copytree": "follows links that change underneath",
    "extractall": "extracts by path",
    "unpack_archive": "extracts by path",
    "fork": "after a thread or an event loop, the child is half alive",
    "forkpty": "after a thread or an event loop, the child is half alive",
}
ALLOWED = {
    "client/launch.py: call fork": "starts a daemon from a command that has one thread",
    "daemon/rootless.py: call fork": "before there is a second thread; writes maps",
    "records.py: call exec": "the __init__ of our own classes, as the standard library writes it",
    "runtime/packed.py: call exec": "what an import does; the code is compiled by ourselves",
    "shim/nursery.py: call fork": "what the nursery is for",
    "shim/rotation.py: call fork": "a shim has one thread; the child compresses and exits",
    "layers/worker.py: call fork": "one job in a process that dies with it; it has one thread",
    "daemon/sockets.py: abstract socket": "NOTIFY_SOCKET of systemd may be one; we only send",
}


def violations(text):
    """What a module's text does that it should not."""
    tree = ast.parse(text)
    if tree.body and ast.get_docstring(tree) is None:
        yield "no docstring"
    for node in ast.walk(tree):
        yield from judge(node)


def judge(node):
    """The same for one node."""
    match node:
        case ast.Import(names=names):
            yield from (f"import {name.name}" for name in names if top(name.name) in MODULES)
        case ast.ImportFrom(module=str(module), level=0) if top(module) in MODULES:
            yield f"import {module}"
        case ast.ExceptHandler(type=None):
            yield "bare except"
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in CALLS:
            # A method of that name that is ours (`executor.exec`) is written with another word.
            yield f"call {name}"
        case ast.BinOp(op=ast.Add(), left=ast.Constant(value=str() | bytes() as lead)):
            yield from abstract(lead)
        case ast.JoinedStr(values=[ast.Constant(value=str(lead)), *_]):
            yield from abstract(lead)
        case ast.keyword(arg="shell", value=ast.Constant(value=True)):
            yield "shell"


def abstract(lead):
    """A name that starts with NUL is a socket that file permissions do not protect."""
    if lead[:1] in ("\0", b"\0"):
        yield "abstract socket"


def top(module):
    """The first part of a module's name."""
    return module.partition(".")[0]


def test_package_does_nothing_that_is_banned():
    found = {
        f"{path.relative_to(SOURCE)}: {what}"
        for path in sorted(SOURCE.rglob("*.py"))
        for what in violations(path.read_text())
    }
    assert found - ALLOWED.keys() == set()
    assert ALLOWED.keys() - found == set()


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("import tarfile", "import tarfile"),
        ("import os, pickle", "import pickle"),
        ("from shutil import rmtree", "import shutil"),
        ("def f():\n    from tarfile import open", "import tarfile"),
        ("eval('1')", "call eval"),
        ("tar.extractall(path)", "call extractall"),
        ("os.fork()", "call fork"),
        ("try:\n    pass\nexcept:\n    pass", "bare except"),
        ("run(argv, shell=True)", "shell"),
        ("sock.bind('\\0' + name)", "abstract socket"),
        ("sock.bind(f'\\0{name}')", "abstract socket"),
        ("sock.bind(b'\\0' + name)", "abstract socket"),
    ],
)
def test_violations_are_seen(line, what):
    assert list(violations(f'"""A module."""\n{line}\n')) == [what]


def test_a_module_without_a_docstring_is_seen():
    assert list(violations("x = 1\n")) == ["no docstring"]
    assert list(violations("")) == []
