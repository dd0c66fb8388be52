"""Files and functions stay short enough to be read in one go.

A function's length is what it does: its lines without its docstring. Above the warning line a name
needs an entry here with the reason; above the limit only tables and generated files may be.
An entry that is no longer needed fails too, so the lists tell the truth.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "sampan"
FILE_LIMIT, FILE_WARNING = 800, 500
FUNCTION_LIMIT, FUNCTION_WARNING = 60, 40

# Beyond the limit: path -> reason. Only what nobody reads from top to bottom.
EXEMPT_FILES: dict[str, str] = {}
EXEMPT_FUNCTIONS: dict[str, str] = {
    "api/docker/convert.py:host_answer": "a table: one line per field of HostConfig",
    "api/docker/requests.py:host_config": "a table: one line per field of HostConfig",
}

# Between warning and limit: these are watched, and may shrink.
WATCHED_FILES: dict[str, str] = {}
WATCHED_FUNCTIONS = {
    "images/service.py:__init__": "a table: one line per part, twelve named parameters",
    "runtime/create.py:begin": "nine named parameters, and everything undone in one place",
    "runtime/specification.py:example": "a table: the document that `sampan-oci spec` writes",
}


def function_sizes(text):
    """(name, lines without the docstring) of every function."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            yield node.name, lines


def files():
    """(path below the package, text) of every module."""
    for path in sorted(SOURCE.rglob("*.py")):
        yield str(path.relative_to(SOURCE)), path.read_text()


def above(limit, sizes):
    """The names above a limit, with their sizes."""
    return {name: size for name, size in sizes.items() if size > limit}


@pytest.fixture(scope="module")
def file_sizes():
    return {path: len(text.splitlines()) for path, text in files()}


@pytest.fixture(scope="module")
def functions():
    return {f"{path}:{name}": size for path, text in files() for name, size in function_sizes(text)}


def test_no_file_is_beyond_the_limit(file_sizes):
    assert above(FILE_LIMIT, file_sizes).keys() - EXEMPT_FILES.keys() == set()


def test_no_function_is_beyond_the_limit(functions):
    assert above(FUNCTION_LIMIT, functions).keys() - EXEMPT_FUNCTIONS.keys() == set()


def test_long_files_are_known(file_sizes):
    known = WATCHED_FILES.keys() | EXEMPT_FILES.keys()
    assert above(FILE_WARNING, file_sizes).keys() == known


def test_long_functions_are_known(functions):
    known = WATCHED_FUNCTIONS.keys() | EXEMPT_FUNCTIONS.keys()
    assert above(FUNCTION_WARNING, functions).keys() == known


def test_functions_are_short_on_the_whole(functions):
    sizes = sorted(functions.values())
    assert sizes[len(sizes) // 2] <= 10


def test_lengths_are_counted_without_docstrings():
    text = 'def f():\n    """One.\n\n    Two.\n    """\n    return 1\n'
    assert list(function_sizes(text)) == [("f", 2)]
