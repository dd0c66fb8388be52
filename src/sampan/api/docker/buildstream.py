"""What a build says, as the classic builder of dockerd says it: JSON lines, step after step.

Steps of several stages happen at the same time, and old clients expect one after the other: what a
later step says waits until the steps before it have ended. The last step's id is that of the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.builder.model import NoteKind
from sampan.wire import build as bodies
from sampan.wire import progress

if TYPE_CHECKING:
    from sampan.api.docker.streaming import Lines
    from sampan.builder.model import BuildResult, Note

_SHORT = 12


class Classic:
    """Turns notes into lines."""

    def __init__(self, lines: Lines, *, quiet: bool, removes: bool) -> None:
        """`removes`: say that a step's container was removed, as it always is."""
        self._lines = lines
        self._quiet = quiet
        self._removes = removes
        self._current = 1
        self._waiting: dict[int, list[Note]] = {}
        self._container: dict[int, str] = {}
        self._last: Note | None = None

    def report(self, note: Note) -> None:
        """Take one note."""
        if self._quiet:
            return
        if note.number != self._current:
            self._waiting.setdefault(note.number, []).append(note)
            return
        self._say(note)
        while note.kind is NoteKind.DONE and note.number == self._current < note.total:
            self._current += 1
            for waiting in self._waiting.pop(self._current, ()):
                note = waiting
                self._say(note)

    def flush(self) -> None:
        """Say what waits, because the build failed."""
        for number in sorted(self._waiting):
            for note in self._waiting.pop(number):
                self._say(note)

    def finish(self, result: BuildResult, tags: tuple[str, ...]) -> None:
        """Say what came out."""
        image = str(result.image.id)
        if self._quiet:
            self._lines.add(progress.text(f"{image}\n"))
            return
        if self._last is not None:
            self._done(self._last, result.image.id.hex)
        for warning in result.warnings:
            self._lines.add(progress.text(f"{warning}\n"))
        self._lines.add(progress.built(image))
        self._lines.add(progress.text(f"Successfully built {result.image.id.hex[:_SHORT]}\n"))
        for tag in tags:
            self._lines.add(progress.text(f"Successfully tagged {tag}\n"))

    def _say(self, note: Note) -> None:
        match note.kind:
            case NoteKind.STARTED:
                self._lines.add(progress.text(f"Step {note.number}/{note.total} : {note.text}"))
                self._lines.add(progress.text("\n"))
            case NoteKind.PULLING if note.progress is not None:
                self._lines.report(note.progress)
            case NoteKind.CACHED:
                self._lines.add(progress.text(" ---> Using cache\n"))
            case NoteKind.RUNNING:
                self._container[note.number] = note.text[:_SHORT]
                self._lines.add(progress.text(f" ---> Running in {note.text[:_SHORT]}\n"))
            case NoteKind.OUTPUT:
                text = f"\x1b[91m{note.text}\x1b[0m" if note.is_error else note.text
                self._lines.add(progress.text(text))
            case NoteKind.DONE if note.number == note.total:
                self._last = note
            case NoteKind.DONE:
                self._done(note, note.text)
            case _:
                self._lines.add(progress.text(f"[Warning] {note.text}\n"))

    def _done(self, note: Note, shown: str) -> None:
        container = self._container.get(note.number)
        if container is not None and self._removes:
            self._lines.add(progress.text(f" ---> Removed intermediate container {container}\n"))
        self._lines.add(progress.text(f" ---> {shown[:_SHORT]}\n"))


class Notes:
    """Turns notes into the lines of our own stream, as they come."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def report(self, note: Note) -> None:
        """Take one note. Counts of bytes are dropped when the client does not read."""
        step = note.progress
        if step is not None and step.current < step.total and self._lines.is_full:
            return
        line = bodies.BuildNote(
            kind=note.kind,
            step=note.number,
            total=note.total,
            stage=note.stage,
            text=note.text,
            place=note.place,
            lines=note.lines,
            stderr=note.is_error,
        )
        if step is not None:
            line.item, line.status = step.id, str(step.status)
            line.current, line.size = step.current, step.total
        self._lines.add(progress.line(bodies.BuildLine(note=line)))

    def flush(self) -> None:
        """Nothing waits."""

    def finish(self, result: BuildResult, tags: tuple[str, ...]) -> None:
        """Say what came out."""
        target = result.target
        done = bodies.BuildDone(
            id=str(result.image.id),
            digest=str(target.digest),
            media_type=target.media_type,
            size=target.size,
            names=list(tags),
            warnings=list(result.warnings),
            steps=result.steps,
            cached=result.cached,
            cache_names=list(result.cache_names),
            platforms={str(one.config.platform): str(one.id) for one in result.images},
            provenance=result.provenance.decode(),
        )
        self._lines.add(progress.line(bodies.BuildLine(result=done)))
