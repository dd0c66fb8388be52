"""What a build shows on a terminal: a picture of all steps, drawn again in place as BuildKit does.

    [+] Building 1.2s (4/6)
     => [internal] load build context                        0.0s
     => CACHED [2/4] COPY src /src                           0.0s
     => [3/4] RUN make                                       1.1s
     => => # cc -o main main.c

Below a running step are the last lines that it printed. A timer draws it ten times a second,
between two pieces of Python, so there is no thread. What programs print is shown without its
control characters: it must not draw elsewhere. At the end the whole picture stays, without their
lines.
"""

from __future__ import annotations

import os
import signal
import time

from sampan.cli.buildprogress import Plain, Step, step_title
from sampan.cli.session import write
from sampan.cli.units import decimal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

_SECONDS = 0.1
_TAIL = 6
_ROOM = 8  # columns for a time
_HIDE, _SHOW = b"\x1b[?25l", b"\x1b[?25h"


class Terminal(Plain):
    """Draws on standard error."""

    def __init__(self, source: list[str], file: str) -> None:
        super().__init__(source, file)
        self._began = time.monotonic()
        self._all: list[Step] = []
        self._drawn = 0
        self._is_drawing = False
        self._is_closed = False
        self._before = signal.signal(signal.SIGALRM, self._tick)
        write(2, _HIDE)
        signal.setitimer(signal.ITIMER_REAL, _SECONDS, _SECONDS)

    def close(self) -> None:
        """Let go of the terminal."""
        if self._is_closed:
            return
        self._is_closed = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
        write(2, _SHOW)

    def loaded(self, what: str, size: int, seconds: float) -> None:
        step = self._new(0, f"[internal] load {what}", [])
        word = "dockerfile" if "definition" in what else "context"
        step.details = [f"transferring {word}: {decimal_size(size)}"]
        step.began -= seconds
        step.ended = time.monotonic()

    def _new(self, key: int, title: str, lines: list[int]) -> Step:
        step = Step(self._number(), title, lines)
        self._all.append(step)
        if key:
            self._steps[key] = step
        return step

    def note(self, note: dict[str, Any]) -> None:
        key, kind = note.get("step", 0), note["kind"]
        if kind == "started":
            if title := step_title(note):
                self._new(key, title, note.get("lines") or [])
            return
        step = self._steps.get(key)
        if step is None:
            return
        self._last = step
        if kind == "output":
            self._take(step, note.get("text", ""))
        elif kind == "pulling" and note.get("item"):
            self._pulled(step, note)
        elif kind == "cached":
            step.title = f"CACHED {step.title}"
        if kind in ("cached", "done"):
            step.ended = time.monotonic()
        if kind == "done":
            del self._steps[key]

    def _take(self, step: Step, text: str) -> None:
        """What a command printed: whole lines go to its tail."""
        *lines, step.rest = (step.rest + text).split("\n")
        self.remember(step, [_shown(line) for line in lines])

    def _pulled(self, step: Step, note: dict[str, Any]) -> None:
        size = note.get("size") or 0
        progress = f" {decimal_size(note.get('current') or 0)} / {decimal_size(size)}"
        text = f"{note['item']}: {note.get('status', '')}{progress if size else ''}"
        kept = [line for line in step.details if not line.startswith(f"{note['item']}: ")]
        step.details = [*kept, text]

    def done(self, result: dict[str, Any]) -> None:
        step = self._new(0, "exporting to image", [])
        step.ended = step.began
        names = [f"naming to {name}" for name in result.get("Names") or ()]
        step.details = [f"writing image {result['ID']}", *names]
        self._finish("FINISHED")
        for warning in result.get("Warnings") or ():
            self._out(f" {_shown(warning)}")

    def failed(self, message: str) -> None:
        if self._last is not None and self._last.ended is None:
            self._last.ended = time.monotonic()
            self._last.title = f"ERROR {self._last.title}"
            if self._last.rest:
                self.remember(self._last, [_shown(self._last.rest)])
        self._finish("ERROR")
        if self._last is not None and self._last in self._steps.values():
            self.explain(self._last)

    def _finish(self, word: str) -> None:
        self.close()
        self._draw(self._picture(0, word))

    def _tick(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_drawing or self._is_closed:
            return
        try:
            height = os.get_terminal_size(2).lines
        except OSError:
            return
        self._draw(self._picture(max(3, height - 1), ""))

    def _picture(self, height: int, word: str) -> list[str]:
        """The lines; of more than `height` those of steps that have ended go first (0: all)."""
        now = time.monotonic()
        ended = sum(step.ended is not None for step in self._all)
        head = f"[+] Building {now - self._began:.1f}s ({ended}/{len(self._all)})"
        blocks = [
            (step.ended is None, self._block(step, now, is_live=not word)) for step in self._all
        ]
        room = height - 1
        while height and sum(len(block) for _, block in blocks) > room:
            at = next((at for at, (is_running, _) in enumerate(blocks) if not is_running), 0)
            del blocks[at]
        return [f"{head} {word}".rstrip(), *(line for _, block in blocks for line in block)]

    def _block(self, step: Step, now: float, *, is_live: bool) -> list[str]:
        seconds = f"{(now if step.ended is None else step.ended) - step.began:.1f}s"
        lines = [_columns(f" => {step.title}", seconds)]
        lines += [_columns(f" => => {text}", "") for text in step.details]
        if is_live and step.ended is None:
            lines += [_columns(f" => => # {text}", "") for text in step.tail[-_TAIL:]]
        return lines

    def _draw(self, lines: list[str]) -> None:
        self._is_drawing = True
        up = f"\x1b[{self._drawn}A\r" if self._drawn else ""
        text = up + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"
        write(2, text.encode("utf-8", "replace"))
        self._drawn = len(lines)
        self._is_drawing = False


def _columns(left: str, right: str) -> str:
    """A line that fits the terminal, with a time at its end."""
    try:
        width = os.get_terminal_size(2).columns
    except OSError:
        width = 80
    width = max(width or 80, 20)
    text = _shown(left)
    room = width - _ROOM
    if not right:
        return text[: width - 1]
    return f"{text[:room]:{room}}{right:>{_ROOM - 1}}"


def _shown(text: str) -> str:
    """Text without what moves the cursor or changes its colour; of a line written over itself the
    last state."""
    last = text.rstrip("\r").rpartition("\r")[2].replace("\t", " ")
    return "".join(char for char in last if char.isprintable())
