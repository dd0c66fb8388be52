"""Writing the pack: the compiled modules of `sampan-oci` in one file, for `packed`.

`python -m sampan.runtime.packing` writes it beside the compiled modules, as an installation does;
`sampan-oci` itself does when it found modules that were not packed, or changed since, and may write
there. The pack is a cache like those: it may be removed at any time.

The file: a line of code that reads the finder; the finder's code; a table of places, from verb to
*image*, and of the index of all modules; images; the index; each module's code. An image is what a
verb always imports, in the order in which it is executed, as one object: what the modules say alike
is there once.
"""

from __future__ import annotations

import ast
import marshal
import os
import sys

from sampan.kernel import cgroups
from sampan.runtime.stripping import compiled, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOMS = ("kernel", "kernel/cgroups", "runtime")
_TOP = ("__init__", "errors", "ids", "jsontext", "version")
_FOREIGN = ("__future__", "ctypes", "ctypes._endian", "struct", "types")
_EXTENSIONS = ("_ctypes", "_json", "_socket", "_struct", "fcntl", "resource", "select")
# What each verb comes to import in a plain case, beside the modules that these import at once.
_VERBS = {
    "create": ("launch", "description", "shortcut"),
    "run": ("launch",),
    "exec": ("joining",),
}


def place() -> str:
    """Where the pack is: the launcher looks there."""
    return f"{os.path.dirname(__file__)}/__pycache__/packed.{sys.implementation.cache_tag}"


def write() -> None:
    """Write the pack, whole or not at all. Raises OSError."""
    modules, extensions = _modules(), _extensions()
    trees = {name: tree(source) for name, source in modules.items()}
    wanted = {name: list(_wanted(parsed)) for name, parsed in trees.items()}
    codes = {name: compiled(parsed) for name, parsed in trees.items()}
    stamps = {name: _stamp(source) for name, source in {**extensions, **modules}.items()}
    blobs: list[bytes] = []
    index: dict[str, tuple[str, bool, int, int, int, int]] = {}
    places: dict[str, tuple[int, int]] = {}
    for name in modules:
        index[name] = *stamps[name], *_append(blobs, marshal.dumps(codes[name]))
    places[""] = _append(blobs, marshal.dumps((index, extensions)))
    for verb in _VERBS:
        image = [
            (name, *stamps[name], codes.get(name)) for name in _imported(verb, wanted, extensions)
        ]
        places[verb] = _append(blobs, marshal.dumps(image))
    finder = marshal.dumps(codes[f"{__package__}.packed"])
    # The launcher loads one object out of the file, and that is slow for all but a tiny one.
    begin = compile(f"exec(marshal.loads(pack.read({len(finder)})))", "", "exec")
    temporary = f"{place()}.{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            file.write(b"".join([marshal.dumps(begin), finder, marshal.dumps(places), *blobs]))
        os.rename(temporary, place())
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def refresh() -> None:
    """Write it if that is possible: a command does not fail for its cache."""
    try:
        write()
    except OSError:
        pass


def _append(blobs: list[bytes], blob: bytes) -> tuple[int, int]:
    """Add a blob: where it is, behind the table of places, and its length."""
    offset = sum(map(len, blobs))
    blobs.append(blob)
    return offset, len(blob)


def _stamp(source: str) -> tuple[str, bool, int, int]:
    """A source, whether it is a package, and by what a change of it is seen."""
    status = os.stat(source)
    return source, source.endswith("/__init__.py"), status.st_mtime_ns, status.st_size


def _imported(verb: str, wanted: dict[str, list[str]], extensions: dict[str, str]) -> list[str]:
    """What `verb` imports of the pack, in the order in which it can be executed; `wanted` is what
    each module names."""
    roots = [f"runtime.{stem}" for stem in ("__main__", *_VERBS[verb])]
    roots.append(f"kernel.cgroups.{_manager()}")
    found: dict[str, None] = {}
    entered: set[str] = set()

    def enter(name: str) -> None:
        if name in entered or not (name in wanted or name in extensions):
            return
        entered.add(name)
        enter(name.rpartition(".")[0])
        for other in wanted.get(name, ()):
            enter(other)
        found[name] = None

    for root in roots:
        enter(f"sampan.{root}")
    return list(found)


def _manager() -> str:
    """The module that makes cgroups here; a place to install has perhaps none, and a wrong guess
    costs a command no more than a search."""
    try:
        return {"legacy": "v1", "hybrid": "hybrid"}.get(cgroups.mode(), "v2")
    except OSError:
        return "v2"


def _wanted(parsed: ast.Module) -> Iterator[str]:
    """The modules that the import statements of a module name, and what could be one."""
    for node in parsed.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _modules() -> dict[str, str]:
    """Every module that may be wanted, by name: its source."""
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found = {_name("", stem): f"{top}/{stem}.py" for stem in _TOP}
    for room in _ROOMS:
        for entry in sorted(os.listdir(f"{top}/{room}")):
            stem, dot, ending = entry.rpartition(".")
            if dot and ending == "py":
                found[_name(room, stem)] = f"{top}/{room}/{entry}"
    for name in _FOREIGN:
        __import__(name)
        source = getattr(sys.modules[name], "__file__", None)
        if source and source.endswith(".py"):
            found[name] = source
    return found


def _extensions() -> dict[str, str]:
    """Where the interpreter finds the modules that are libraries, for want of which it would list
    its directories. What is built into it is not among them."""
    found = {}
    for name in _EXTENSIONS:
        __import__(name)
        origin = getattr(sys.modules[name], "__file__", None)
        if origin:
            found[name] = origin
    return found


def _name(room: str, stem: str) -> str:
    parts = ["sampan", *(part for part in room.split("/") if part)]
    return ".".join(parts if stem == "__init__" else [*parts, stem])


if __name__ == "__main__":
    write()
