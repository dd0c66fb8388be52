"""The part of Go's templates that `--format` is used with.

Text with actions in double braces: `{{.Names}}`, `{{.State.Status}}`, `{{json .}}`, pipes, `range`,
`if`, `else`, `with`, `end`, and the functions of docker's formatter; no variables. A template is
parsed once into a tuple of nodes, and rendered over what JSON gives: dicts, lists, text, numbers.
Errors are ValueErrors; a key that is not there is one.
"""

from __future__ import annotations

from sampan.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Node = tuple[str, Any, Any, Any]

_BLOCKS = ("if", "range", "with")


def go_text(value: Any) -> str:
    """A value as Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(go_text, value)) + "]"
    return str(value)


def go_json(value: Any) -> str:
    """A value as Go encodes it: no angle brackets and ampersands."""
    text = encode(value)
    for sign, escape in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(sign, escape)
    return text


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key, "") if isinstance(value, dict) else value[key]
    return value


def _truncate(text: str, length: int) -> str:
    return text[:length]


def _printf(layout: str, *values: Any) -> str:
    return layout.replace("%v", "%s") % tuple(
        go_text(value) if isinstance(value, (bool, dict, list, type(None))) else value
        for value in values
    )


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "eq": lambda first, *others: any(first == other for other in others),
    "ge": lambda first, second: first >= second,
    "gt": lambda first, second: first > second,
    "index": _index,
    "join": lambda values, separator: separator.join(map(go_text, values or ())),
    "json": go_json,
    "le": lambda first, second: first <= second,
    "len": len,
    "lower": lambda text: text.lower(),
    "lt": lambda first, second: first < second,
    "ne": lambda first, second: first != second,
    "not": lambda value: not value,
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "pad": lambda text, left, right: " " * left + text + " " * right,
    "print": lambda *values: "".join(map(go_text, values)),
    "printf": _printf,
    "println": lambda *values: " ".join(map(go_text, values)) + "\n",
    "split": lambda text, separator: text.split(separator),
    "title": lambda text: text[:1].upper() + text[1:],
    "truncate": _truncate,
    "upper": lambda text: text.upper(),
}


class Template:
    """A parsed template."""

    def __init__(self, text: str) -> None:
        self._nodes = _Parser(text).parse()

    def render(self, data: Any) -> str:
        """The text for `data`.

        Raises:
            ValueError: the data has no such key, or a function does not take such a value.
        """
        out: list[str] = []
        _render(self._nodes, data, data, out)
        return "".join(out)


def _render(nodes: list[Node], data: Any, root: Any, out: list[str]) -> None:
    for kind, first, body, other in nodes:
        if kind == "text":
            out.append(first)
            continue
        value = _pipeline(first, data, root)
        if kind == "value":
            out.append(go_text(value))
        elif not value:
            _render(other, data, root, out)
        elif kind == "range":
            items = [value[key] for key in sorted(value)] if isinstance(value, dict) else value
            for item in items:
                _render(body, item, root, out)
        else:
            _render(body, value if kind == "with" else data, root, out)


def _pipeline(commands: list[list[Any]], data: Any, root: Any) -> Any:
    value: list[Any] = []
    for words in commands:
        value = [_command(words, value, data, root)]
    return value[0]


def _command(words: list[Any], piped: list[Any], data: Any, root: Any) -> Any:
    head = words[0]
    if isinstance(head, str) and head in _FUNCTIONS:
        arguments = [_operand(word, data, root) for word in words[1:]] + piped
        try:
            return _FUNCTIONS[head](*arguments)
        except (TypeError, AttributeError, LookupError) as error:
            raise ValueError(f'executing "" at <{head}>: error calling {head}: {error}') from error
    if len(words) > 1:
        raise ValueError(f"can't give argument to non-function {head}")
    return _operand(head, data, root)


def _operand(word: Any, data: Any, root: Any) -> Any:
    if isinstance(word, list):
        return _pipeline(word, data, root)
    assert isinstance(word, str)
    if word[0] in '"`':
        return _unquote(word)
    if word in ("true", "false", "nil"):
        return {"true": True, "false": False}.get(word)
    if word.lstrip("-").isdigit():
        return int(word)
    if word.startswith("$"):
        data, word = root, word[1:] or "."
    if not word.startswith("."):
        raise ValueError(f'function "{word}" not defined')
    return _field(data, word)


def _field(data: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        if not isinstance(data, dict):
            # a ValueError like the others: the caller tells the user, and decides nothing by it
            raise ValueError(f'executing "" at <{path}>: can\'t evaluate field {name}')  # noqa: TRY004
        try:
            data = data[name]
        except KeyError:
            text = f'executing "" at <{path}>: map has no entry for key "{name}"'
            raise ValueError(text) from None
    return data


def _unquote(word: str) -> str:
    if word[0] == "`":
        return word[1:-1]
    text = word[1:-1]
    for escape, sign in (("\\n", "\n"), ("\\t", "\t"), ('\\"', '"'), ("\\\\", "\\")):
        text = text.replace(escape, sign)
    return text


class _Parser:
    """Turns a template's text into nodes: (kind, pipeline or text, body, else)."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_split(text))[::-1]

    def parse(self) -> list[Node]:
        nodes, end = self._nodes()
        if end:
            raise ValueError(f"unexpected {{{{{end}}}}}")
        return nodes

    def _nodes(self) -> tuple[list[Node], str]:
        nodes: list[Node] = []
        while self._tokens:
            is_action, token = self._tokens.pop()
            if not is_action:
                nodes.append(("text", token, (), ()))
                continue
            word = token.split(None, 1)[0] if token else ""
            if word.startswith("/*"):
                continue
            if word in ("end", "else"):
                return nodes, token
            if word in _BLOCKS:
                nodes.append(self._block(word, token[len(word) :]))
            else:
                nodes.append(("value", _parse_pipeline(token), (), ()))
        return nodes, ""

    def _block(self, kind: str, text: str) -> Node:
        pipeline = _parse_pipeline(text)
        body, end = self._nodes()
        other: list[Node] = []
        if end.startswith("else if"):
            return (kind, pipeline, body, [self._block("if", end[7:])])
        if end == "else":
            other, end = self._nodes()
        if end != "end":
            raise ValueError("unexpected EOF")
        return (kind, pipeline, body, other)


def _split(text: str) -> list[tuple[bool, str]]:
    """Text and actions in turn, with the white space that `{{-` and `-}}` take away."""
    parts: list[tuple[bool, str]] = []
    trim = False
    while text:
        before, brace, text = text.partition("{{")
        if trim:
            before = before.lstrip()
        action, close, after = text.partition("}}")
        if brace and action.startswith("- "):
            before, action = before.rstrip(), action[1:]
        if before:
            parts.append((False, before))
        if not brace:
            break
        if not close:
            raise ValueError("unclosed action")
        trim = action.endswith(" -")
        action = action.removesuffix(" -").strip()
        if not action:
            raise ValueError("missing value for command")
        parts.append((True, action))
        text = after
    return parts


def _parse_pipeline(text: str) -> list[list[Any]]:
    words = _words(text)[::-1]
    pipeline = _commands(words)
    if words:
        raise ValueError("unexpected right paren")
    return pipeline


def _commands(words: list[str]) -> list[list[Any]]:
    commands: list[list[Any]] = [[]]
    while words:
        word = words.pop()
        if word == ")":
            words.append(word)
            break
        if word == "|":
            commands.append([])
        elif word == "(":
            commands[-1].append(_commands(words))
            if not words or words.pop() != ")":
                raise ValueError("unclosed left paren")
        else:
            commands[-1].append(word)
    if not all(commands):
        raise ValueError("missing value for command")
    return commands


def _words(text: str) -> list[str]:
    words: list[str] = []
    at = 0
    while at < len(text):
        sign = text[at]
        end = at + 1
        if sign.isspace():
            at = end
            continue
        if sign in '"`':
            while end < len(text) and (text[end] != sign or text[end - 1] == "\\"):
                end += 1
            if end == len(text):
                raise ValueError("unterminated quoted string")
            end += 1
        elif sign not in "()|":
            while end < len(text) and not text[end].isspace() and text[end] not in "()|":
                end += 1
        words.append(text[at:end])
        at = end
    return words
