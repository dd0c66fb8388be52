"""The code that goes into the pack means the same, without what only a reader wants."""

from __future__ import annotations

from types import CodeType, ModuleType
from typing import TYPE_CHECKING

from sampan.runtime.stripping import compiled, tree

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = '''"""What it is."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nowhere import Nothing


class Empty:
    """Nothing in it but a type."""

    word: Nothing


class Pair:
    __slots__ = ("left", "right")

    def __init__(self, left: Nothing, right: Nothing = 5, *, more: Nothing = ()) -> None:
        """Make one."""
        total: Nothing = left + right
        later: Nothing
        later = total
        self.left, self.right = later, [*more]


def empty() -> Nothing:
    """Only this."""


FOUND: Nothing = Pair(1, more=(2, 3))
'''


def codes(code: CodeType):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def test_a_module_means_the_same(tmp_path: Path):
    file = tmp_path / "module.py"
    file.write_text(SOURCE)
    code = compiled(tree(str(file)))
    module = ModuleType("module")
    exec(code, module.__dict__)
    assert (module.FOUND.left, module.FOUND.right) == (6, [2, 3])
    assert module.empty() is None
    assert module.Pair.__init__.__annotations__ == {}
    assert not hasattr(module.Empty, "__annotations__") or module.Empty.__annotations__ == {}
    assert module.Pair.__init__.__doc__ is None
    assert "Nothing" not in {
        name for one in codes(code) for name in (*one.co_names, *one.co_consts)
    }
    assert {one.co_linetable for one in codes(code)} == {b""}
