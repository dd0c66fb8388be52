"""Tables, and what `--format` makes of them.

A command gives rows as dicts from field to text, and the headers of these fields. Without a format
the default columns are printed below their headers; `table TEMPLATE` takes others; `json` prints an
object for each row; any other format is a template for each row.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sampan.cli.session import Session

TABLE_FORMAT = """\
      --format string   Format output using a custom template:
                        'table':            Print output in table format
                        with column headers (default)
                        'table TEMPLATE':   Print output in table format
                        using the given Go template
                        'json':             Print in JSON format
                        'TEMPLATE':         Print output using the given
                        Go template.
"""
"""The flag of every command that prints a table."""

_MIN_WIDTH = 10
_PADDING = 3


def align(lines: Iterable[list[str]]) -> list[str]:
    """Lines of cells as text, each column but the last filled up to its widest cell."""
    rows = list(lines)
    widths: list[int] = []
    for row in rows:
        for at, cell in enumerate(row[:-1]):
            if at == len(widths):
                widths.append(_MIN_WIDTH)
            widths[at] = max(widths[at], len(cell) + _PADDING)
    return [
        "".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + row[-1]
        for row in rows
    ]


def show(
    session: Session,
    rows: list[dict[str, Any]],
    columns: str,
    headers: dict[str, str],
    layout: str = "",
) -> None:
    """Print `rows` in `layout`; `columns` are the fields of the default table."""
    if layout in ("", "table"):
        names = columns.split()
        table = [[headers[name] for name in names]]
        table += [[row[name] for name in names] for row in rows]
        session.out("\n".join(align(table)))
        return
    text = "".join(render(rows, headers, layout))
    if text:
        session.out(text.removesuffix("\n"))


def render(rows: list[dict[str, Any]], headers: dict[str, str], layout: str) -> list[str]:
    """The lines of `rows` in a layout of the user's."""
    from sampan.cli.session import Failed
    from sampan.cli.template import Template, go_json

    if layout == "json":
        return [go_json({name: row[name] for name in sorted(row)}) + "\n" for row in rows]
    is_table = layout.startswith("table ")
    text = layout.removeprefix("table ").strip(" ") if is_table else layout
    text = text.replace("\\t", "\t").replace("\\n", "\n")
    try:
        template = Template(text)
        lines = [template.render({name: row[name] for name in sorted(row)}) for row in rows]
        if is_table:
            lines.insert(0, template.render(headers))
    except ValueError as error:
        raise Failed(f"failed to execute template: template: :1: {error}") from None
    if is_table:
        lines = align(line.split("\t") for line in lines)
    return [line + "\n" for line in lines]


def parse_filters(texts: list[str]) -> dict[str, list[str]]:
    """`status=running` and its like, as the API has them."""
    from sampan.cli.session import Failed

    filters: dict[str, list[str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            sentence = f"invalid filter '{text}': must be a key=value pair"
            raise Failed(f'invalid argument "{text}" for "-f, --filter" flag: {sentence}', 125)
        filters.setdefault(name.strip().lower(), []).append(value.strip())
    return filters
