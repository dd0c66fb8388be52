"""What a module is when only its running counts: for the pack.

A command that lives for a few milliseconds pays for each constant that it loads. So the pack leaves
out what nothing reads there: annotations and what is imported for them, tables of lines (a
traceback reaches no user), documentation and assertions.
"""

from __future__ import annotations

import ast
from types import CodeType

_OPTIMIZE = 2  # neither docstrings nor assertions


def compiled(parsed: ast.Module) -> CodeType:
    """The code of a `tree`, without what is not needed to run it."""
    return _bare(compile(parsed, "", "exec", dont_inherit=True, optimize=_OPTIMIZE))


def tree(source: str) -> ast.Module:
    """The file `source`, parsed, without what is there for the reader alone."""
    with open(source, "rb") as file:
        parsed = ast.parse(file.read(), source)
    made = _Stripped().visit(parsed)
    assert isinstance(made, ast.Module)
    return ast.fix_missing_locations(made)


class _Stripped(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module == "__future__" else node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        self.generic_visit(node)
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node


def _bare(code: CodeType) -> CodeType:
    """`code` without lines and places, and so all that are in it."""
    inner = (_bare(one) if isinstance(one, CodeType) else one for one in code.co_consts)
    return code.replace(co_linetable=b"", co_consts=tuple(inner))
