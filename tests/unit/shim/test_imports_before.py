"""What the spawner may come to need must be imported before it closes its imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3] / "src"

NEVER = {
    "ctypes": "libc loads it, by bind_all at the latest",
    "sampan.kernel.cgroups.watch": "the engine watches, not the spawner",
    "sampan.kernel.seccomp": "filters come compiled",
    "sampan.kernel.netdevices": "the engine moves no devices",
    "sampan.runtime.netdevices": "the same",
    "sampan.runtime.console": "console sockets are of callers of the command",
    "sampan.runtime.sharedmounts": "every container of the engine has mounts of its own",
}


def late_imports(modules: set[str]) -> set[str]:
    """Modules that functions of these modules import."""
    found = set()
    for name in modules:
        path = ROOT / f"{name.replace('.', '/')}.py"
        if name.startswith("sampan.") and path.exists():
            for function in ast.walk(ast.parse(path.read_text())):
                if isinstance(function, ast.FunctionDef):
                    found |= set(_imported(function))
    return found


def _imported(function: ast.FunctionDef):
    for node in ast.walk(function):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                is_module = (ROOT / f"{whole.replace('.', '/')}.py").exists()
                yield whole if is_module else str(node.module)


def other_encodings(modules: set[str]) -> set[str]:
    """Where these modules open a file in an encoding that is a module, not yet imported."""
    found = set()
    for name in modules:
        path = ROOT / f"{name.replace('.', '/')}.py"
        if name.startswith("sampan.") and path.exists():
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "open":
                    given = [
                        ast.unparse(one.value) for one in node.keywords if one.arg == "encoding"
                    ]
                    found |= {f"{name}:{node.lineno} {one}" for one in given if one != "'utf-8'"}
    return found


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The modules of a spawner that closes its imports."""
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import sampan.shim.spawner; "
        "import sampan.shim.containers; import sampan.shim.waking; print(*sys.modules)"
    )
    words = [sys.executable, "-I", "-S", "-c", script]
    return set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())


def test_nothing_is_imported_too_late(loaded):
    assert late_imports(loaded) - loaded - NEVER.keys() == set()


def test_no_encoding_is_looked_up_too_late(loaded):
    assert other_encodings(loaded) == set()
