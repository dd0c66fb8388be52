"""What a build prints while it works: plain text as BuildKit has it, or its JSON.

Each step is a vertex with a number; what several stages say at the same time is told apart by it.
Steps that only change the image's configuration are not shown. Everything goes to standard error;
standard output is for what was asked for.
"""

from __future__ import annotations

import time

from sampan.cli.session import Failed, write
from sampan.cli.units import decimal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_LAST_LINES = 10
_CONTEXT_LINES = 3


class BuildFailed(Failed):
    """The build failed; everything about it was printed but the last line."""


class Silent:
    """Prints nothing; the base of the others."""

    def __init__(self, source: list[str], file: str) -> None:
        """`source` are the lines of the Dockerfile `file`, to quote the one that failed."""
        self._source = source
        self._file = file

    def loaded(self, what: str, size: int, seconds: float) -> None:
        """Something was sent."""

    def note(self, note: dict[str, Any]) -> None:
        """Something happened in a step."""

    def done(self, result: dict[str, Any]) -> None:
        """The image is there."""

    def failed(self, message: str) -> None:
        """The build ends here."""

    def close(self) -> None:
        """Nothing more is shown."""


def follow(lines: Iterable[dict[str, Any]], shown: Silent) -> dict[str, Any]:
    """Show a stream to its end; what the build made.

    Raises:
        BuildFailed: the stream said so, or ended without a result.
    """
    result: dict[str, Any] | None = None
    for line in lines:
        if line.get("error"):
            message = str((line.get("errorDetail") or {}).get("message") or line["error"])
            shown.failed(message)
            raise BuildFailed(f"ERROR: failed to solve: {message}")
        if "note" in line:
            shown.note(line["note"])
        elif "result" in line:
            result = line["result"]
            shown.done(line["result"])
    if result is None:
        raise BuildFailed("ERROR: failed to solve: the daemon ended the build without a word")
    return result


class Step:
    """A vertex: `number` as printed, `began` on our clock, `tail` the last lines that it said."""

    __slots__ = ("began", "details", "ended", "lines", "number", "rest", "tail", "title")

    def __init__(self, number: int, title: str, lines: list[int]) -> None:
        self.number = number
        self.title = title
        self.lines = lines
        self.began = time.monotonic()
        self.ended: float | None = None
        self.rest = ""
        self.tail: list[str] = []
        self.details: list[str] = []


class Plain(Silent):
    """Text, line by line."""

    def __init__(self, source: list[str], file: str) -> None:
        super().__init__(source, file)
        self._steps: dict[int, Step] = {}
        self._count = 0
        self._current = 0
        self._last: Step | None = None

    def _number(self) -> int:
        self._count += 1
        return self._count

    def _out(self, text: str) -> None:
        write(2, (text + "\n").encode("utf-8", "surrogateescape"))

    def _say(self, step: Step, text: str) -> None:
        """A line of a step; its title first when another one spoke before."""
        if self._current != step.number:
            if self._current:
                self._out("")
            self._out(f"#{step.number} {step.title}")
            self._current = step.number
        self._out(f"#{step.number} {text}")

    def _end(self, step: Step, text: str) -> None:
        self._say(step, text)
        self._out("")
        self._current = 0

    def loaded(self, what: str, size: int, seconds: float) -> None:
        step = Step(self._number(), f"[internal] load {what}", [])
        word = "dockerfile" if "definition" in what else "context"
        self._say(step, f"transferring {word}: {decimal_size(size)} {seconds:.1f}s done")
        self._end(step, f"DONE {seconds:.1f}s")

    def note(self, note: dict[str, Any]) -> None:
        key, kind = note.get("step", 0), note["kind"]
        if kind == "started":
            if title := step_title(note):
                self._steps[key] = Step(self._number(), title, note.get("lines") or [])
            return
        step = self._steps.get(key)
        if step is None:
            return
        self._last = step
        seconds = time.monotonic() - step.began
        match kind:
            case "output":
                self._output(step, note.get("text", ""), seconds)
            case "pulling":
                if note.get("item") and not note.get("current"):
                    self._say(step, f"{note['item']}: {note.get('status', '')}")
            case "cached":
                self._end(step, "CACHED")
                del self._steps[key]
            case "done":
                self._flush(step, seconds)
                self._end(step, f"DONE {seconds:.1f}s")
                del self._steps[key]
            case _:
                pass  # the ids of containers mean nothing to a reader

    def _output(self, step: Step, text: str, seconds: float) -> None:
        *lines, step.rest = (step.rest + text).split("\n")
        self.remember(step, lines)
        for line in lines:
            self._say(step, f"{seconds:.3f} {line}")

    def remember(self, step: Step, lines: list[str]) -> None:
        """Keep the last lines that a step printed, for when it fails."""
        step.tail = [*step.tail, *lines][-_LAST_LINES:]

    def _flush(self, step: Step, seconds: float) -> None:
        if step.rest:
            self._output(step, "\n", seconds)

    def done(self, result: dict[str, Any]) -> None:
        step = Step(self._number(), "exporting to image", [])
        self._say(step, f"writing image {result['ID']} done")
        for name in result.get("Names") or ():
            self._say(step, f"naming to {name} done")
        self._end(step, "DONE 0.0s")
        for warning in result.get("Warnings") or ():
            self._out(f" {warning}")

    def failed(self, message: str) -> None:
        step = self._last
        if step is None or step not in self._steps.values():
            return
        self._flush(step, time.monotonic() - step.began)
        self._say(step, f"ERROR: {message}")
        self.explain(step)

    def explain(self, step: Step) -> None:
        """What the step printed last, and where it stands in the Dockerfile."""
        self._out("------")
        self._out(f" > {step.title}:")
        for line in step.tail:
            self._out(line)
        self._out("------")
        self._quote(step)

    def _quote(self, step: Step) -> None:
        if not step.lines or not self._source or step.lines[0] < 1:
            return
        first, last = step.lines
        self._out(f"{self._file}:{first}\n--------------------")
        upper = min(len(self._source), last + _CONTEXT_LINES)
        for number in range(max(1, first - _CONTEXT_LINES), upper + 1):
            mark = ">>>" if first <= number <= last else "   "
            self._out(f"{number:4} | {mark} {self._source[number - 1]}")
        self._out("--------------------")


class RawJson(Silent):
    """BuildKit's status documents, one to a line."""

    def __init__(self, source: list[str], file: str) -> None:
        super().__init__(source, file)
        self._vertexes: dict[int, dict[str, Any]] = {}

    def _out(self, **document: Any) -> None:
        from sampan.jsontext import encode

        write(2, (encode(document) + "\n").encode())

    def loaded(self, what: str, size: int, seconds: float) -> None:
        now = _now()
        vertex = {"digest": _digest(what), "name": f"[internal] load {what}"}
        self._out(vertexes=[{**vertex, "started": now, "completed": now}])

    def note(self, note: dict[str, Any]) -> None:
        key, kind, now = note.get("step", 0), note["kind"], _now()
        if kind == "started":
            where = " ".join(part for part in (note.get("stage"), note.get("place")) if part)
            name = f"[{where}] {note.get('text', '')}" if where else note.get("text", "")
            self._vertexes[key] = {"digest": _digest(f"{key} {name}"), "name": name, "started": now}
            self._out(vertexes=[self._vertexes[key]])
            return
        vertex = self._vertexes.get(key)
        if vertex is None:
            return
        if kind == "output":
            self._log(vertex, note, now)
        elif kind == "pulling":
            self._status(vertex, note, now)
        elif kind == "cached":
            vertex["cached"] = True
        elif kind == "done":
            vertex["completed"] = now
            self._out(vertexes=[self._vertexes.pop(key)])

    def _log(self, vertex: dict[str, Any], note: dict[str, Any], now: str) -> None:
        import binascii

        data = note.get("text", "").encode("utf-8", "surrogateescape")
        coded = binascii.b2a_base64(data, newline=False).decode()
        stream = 2 if note.get("stderr") else 1
        log = {"vertex": vertex["digest"], "stream": stream, "data": coded, "timestamp": now}
        self._out(logs=[log])

    def _status(self, vertex: dict[str, Any], note: dict[str, Any], now: str) -> None:
        status = {
            "id": note.get("item", ""),
            "vertex": vertex["digest"],
            "name": note.get("status", ""),
            "current": note.get("current", 0),
            "total": note.get("size", 0),
            "timestamp": now,
        }
        self._out(statuses=[status])

    def failed(self, message: str) -> None:
        for vertex in self._vertexes.values():
            if "completed" not in vertex:
                self._out(vertexes=[{**vertex, "completed": _now(), "error": message}])

    def done(self, result: dict[str, Any]) -> None:
        now = _now()
        vertex = {"digest": _digest(result["ID"]), "name": "exporting to image"}
        self._out(vertexes=[{**vertex, "started": now, "completed": now}])


KINDS = {"auto": Plain, "plain": Plain, "tty": Plain, "rawjson": RawJson, "quiet": Silent}


def step_title(note: dict[str, Any]) -> str:
    """How the step of a note is called, "" for one that only changes the configuration."""
    if not note.get("place"):
        return ""
    where = " ".join(part for part in (note.get("stage"), note["place"]) if part)
    return f"[{where}] {_one_line(note.get('text', ''))}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _digest(text: str) -> str:
    import hashlib

    return "sha256:" + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _now() -> str:
    seconds, rest = divmod(time.time_ns(), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09}Z"
