"""What the library does, step by step, once for the blocking and the asynchronous face.

A flow is a generator: it yields steps, is sent what they came to, and returns its result. An
error of a step is thrown into it, so `try` and `finally` mean what they say; a flow that is
cancelled runs its clean-up steps too. A `Call` is a step by itself: it comes to the answer's
document. `client.engine` and `client.aio` know how to do the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sampan.client import calls, results
from sampan.client.calls import Call
from sampan.client.credentials import header_for
from sampan.client.streams import STDOUT, SYSTEM_ERROR, Frames
from sampan.errors import (
    DeadlineExceeded,
    ImageNotFound,
    ResourceExhausted,
    SampanError,
    Unavailable,
)

if TYPE_CHECKING:
    from sampan.client.options import ContainerOptions

T = TypeVar("T")
MAX_OUTPUT = 1 << 30


class Open:
    """Perform a call until its head has come; comes to a handle for Read and Close."""

    def __init__(self, call: Call) -> None:
        self.call = call


class Read:
    """The rest of an opened call, as a document. `timeout` in seconds."""

    def __init__(self, handle: Any, timeout: float | None = None) -> None:
        self.handle = handle
        self.timeout = timeout


class Close:
    """Give a handle up."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle


class Each:
    """Perform a call and hand every JSON line of its answer to `function`."""

    def __init__(self, call: Call, function: Callable[[Any], None]) -> None:
        self.call = call
        self.function = function


class Upgrade:
    """Perform a call and take its connection over; comes to a handle for Talk and Close."""

    def __init__(self, call: Call) -> None:
        self.call = call


class Talk:
    """Send `data` (None: leave our half alone) and collect `output` until the peer closes."""

    def __init__(
        self, handle: Any, data: bytes | None, output: Output, timeout: float | None
    ) -> None:
        self.handle = handle
        self.data = data
        self.output = output
        self.timeout = timeout


Step = Call | Open | Read | Close | Each | Upgrade | Talk
Flow = Generator[Step, Any, T]


class Output(Protocol):
    """Who takes what comes out."""

    def begin(self, *, framed: bool) -> None:
        """Say how the output comes."""
        ...

    def feed(self, data: bytes) -> None:
        """Take what came."""
        ...


class Sink:
    """Gives what comes to a function, as it is."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def begin(self, *, framed: bool) -> None:
        """It is never framed."""

    def feed(self, data: bytes) -> None:
        """Hand it on."""
        self._write(data)


class Collector:
    """Puts output together, framed or raw."""

    def __init__(self) -> None:
        self._frames: Frames | None = None
        self._size = 0
        self.stdout = bytearray()
        self.stderr = bytearray()

    def begin(self, *, framed: bool) -> None:
        """Say how the output comes."""
        self._frames = Frames() if framed else None

    def feed(self, data: bytes) -> None:
        """Take what came.

        Raises:
            ResourceExhausted: it is more than MAX_OUTPUT.
        """
        self._size += len(data)
        if self._size > MAX_OUTPUT:
            raise ResourceExhausted(f"output of more than {MAX_OUTPUT} bytes")
        if self._frames is None:
            self.stdout += data
            return
        for stream, payload in self._frames.feed(data):
            if stream == SYSTEM_ERROR:
                raise Unavailable(payload.decode("utf-8", "replace"))
            (self.stdout if stream == STDOUT else self.stderr).extend(payload)


def create(body: dict[str, Any], options: ContainerOptions) -> Flow[str]:
    """Create a container, pulling its image when `pull` allows it; comes to the id."""
    policy = options.get("pull", "missing")
    image = body.get("Image")
    platform = options.get("platform") or ""
    call = calls.create(body, options.get("name") or "", platform)
    if image and policy == "always":
        yield from _pull(image, platform, lambda _: None)
    try:
        answer = yield call
    except ImageNotFound:
        if not image or policy != "missing":
            raise
        yield from _pull(image, platform, lambda _: None)
        answer = yield call
    return str(answer["Id"])


def run(
    body: dict[str, Any], options: ContainerOptions, data: bytes | None, timeout: float | None
) -> Flow[results.RunResult]:
    """Create, wait, attach, start, talk; comes to what the container came to.

    Raises:
        DeadlineExceeded: it did not end in time; it has been killed.
        StartFailed: the command could not be started.
    """
    body |= {"AttachStdout": True, "AttachStderr": True, "AttachStdin": data is not None}
    body |= {"OpenStdin": data is not None, "StdinOnce": data is not None}
    container = yield from create(body, options)
    remove = bool(options.get("remove"))
    handles: list[Any] = []
    try:
        result = yield from _attended(container, data, timeout, handles, remove=remove)
    except BaseException:
        yield from _undo(calls.remove(container, force=True) if remove else calls.kill(container))
        raise
    finally:
        for handle in handles:
            yield Close(handle)
    return result


def _attended(
    container: str,
    data: bytes | None,
    timeout: float | None,
    handles: list[Any],
    *,
    remove: bool,
) -> Flow[results.RunResult]:
    waiting = yield Open(calls.wait(container, "removed" if remove else "next-exit"))
    handles.append(waiting)
    stream = yield Upgrade(calls.attach(container, stdin=data is not None))
    handles.append(stream)
    yield calls.start(container)
    output = Collector()
    deadline = None if timeout is None else time.monotonic() + timeout
    yield Talk(stream, data, output, timeout)
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    ended = yield Read(waiting, left)
    message = (ended.get("Error") or {}).get("Message")
    if message:
        raise Unavailable(f"wait for container {container[:12]}: {message}")
    return results.RunResult(
        container_id=container,
        exit_code=ended["StatusCode"],
        stdout=bytes(output.stdout),
        stderr=bytes(output.stderr),
    )


def _undo(call: Call) -> Flow[None]:
    try:
        yield call
    except SampanError:
        pass  # it is gone already, and the first error is the one to tell


def start(body: dict[str, Any], options: ContainerOptions) -> Flow[str]:
    """Create and start; comes to the id. A container that cannot be started is removed."""
    container = yield from create(body, options)
    try:
        yield calls.start(container)
    except BaseException:
        yield from _undo(calls.remove(container, force=True))
        raise
    return container


def execute(
    container: str, body: dict[str, Any], data: bytes | None, timeout: float | None
) -> Flow[results.ExecResult]:
    """Run another process in a container."""
    process = (yield calls.exec_create(container, body))["Id"]
    stream = yield Upgrade(calls.exec_start(process, tty=body["Tty"]))
    output = Collector()
    try:
        yield Talk(stream, data, output, timeout)
    finally:
        yield Close(stream)
    ended = yield calls.exec_inspect(process)
    return results.ExecResult(
        exit_code=ended.get("ExitCode") or 0,
        stdout=bytes(output.stdout),
        stderr=bytes(output.stderr),
    )


def wait(container: str, timeout: float | None) -> Flow[int]:
    """Wait until a container does not run; comes to its exit code."""
    waiting = yield Open(calls.wait(container))
    try:
        ended = yield Read(waiting, timeout)
    except DeadlineExceeded:
        yield Close(waiting)
        raise
    return int(ended["StatusCode"])


def logs(container: str, options: dict[str, Any]) -> Flow[results.Output]:
    """All of a container's log that there is now."""
    info = yield calls.inspect(container)
    output = Collector()
    output.begin(framed=not (info.get("Config") or {}).get("Tty"))
    stream = yield Open(calls.logs(info["Id"], **options))
    yield Talk(stream, None, output, None)
    return results.Output(stdout=bytes(output.stdout), stderr=bytes(output.stderr))


def _pull(image: str, platform: str, progress: Callable[[results.Progress], None]) -> Flow[None]:
    call = calls.pull(image, platform, header_for(image))
    yield from report(call, progress)


def _progress(line: dict[str, Any]) -> results.Progress:
    if line.get("error"):
        raise Unavailable(str((line.get("errorDetail") or {}).get("message") or line["error"]))
    return results.Progress.parse(line)


def report(call: Call, progress: Callable[[results.Progress], None] | None) -> Flow[None]:
    """Perform a call that tells its progress."""
    tell = progress or (lambda _: None)
    yield Each(call, lambda line: tell(_progress(line)))


def pull(
    call: Call, image: str, progress: Callable[[results.Progress], None] | None
) -> Flow[results.Image]:
    """Pull an image; comes to it."""
    yield from report(call, progress)
    return results.Image.parse((yield calls.image_inspect(image)))


def import_image(call: Call, name: str) -> Flow[results.Image]:
    """Import a file system as an image; comes to it."""
    lines: list[Any] = []
    yield Each(call, lines.append)
    for line in lines:
        _progress(line)
    return results.Image.parse((yield calls.image_inspect(name or lines[-1]["status"])))


def save(call: Call, write: Callable[[bytes], object]) -> Flow[None]:
    """Hand the bytes of an archive to `write`."""
    stream = yield Open(call)
    try:
        yield Talk(stream, None, Sink(write), None)
    except BaseException:
        yield Close(stream)
        raise


def load(call: Call) -> Flow[list[results.Image]]:
    """Load an archive; comes to its images."""
    lines: list[Any] = []
    yield Each(call, lines.append)
    found: list[results.Image] = []
    for line in lines:
        _progress(line)
        word, _, name = line.get("stream", "").strip().partition(": ")
        if word in ("Loaded image", "Loaded image ID"):
            found.append(results.Image.parse((yield calls.image_inspect(name))))
    return list({image.id: image for image in found}.values())
