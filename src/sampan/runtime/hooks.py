"""Hooks: programs of others that run at six points of a container's life (config.md).

prestart and createRuntime run beside the runtime when the namespaces and mounts are there and the
root is not yet `/`; createContainer runs inside the namespaces at the same point; startContainer
runs inside after the start gate, with what the command itself will have; poststart runs beside the
runtime after the command was executed, poststop after everything was removed.

Each gets the OCI state on its standard input and must end with 0 within its timeout. What it prints
is kept, up to a limit, for the error. This module is imported only where a configuration has hooks.
"""

from __future__ import annotations

import _signal
import os
import select
import time

from sampan.jsontext import encode
from sampan.kernel import process
from sampan.runtime.failure import InvalidConfig, RuntimeFailure, reason
from sampan.runtime.operations import Operation
from sampan.runtime.stage import ASKS_FOR_HOOKS, Stage
from sampan.version import OCI_RUNTIME_SPEC_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

KINDS = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)

_KEPT = 4096  # bytes of output for the error, of each stream
_ALL_SIGNALS = range(1, 65)


def check(hooks: dict[str, Any]) -> None:
    """Raises InvalidConfig where a hook is malformed."""
    for kind in KINDS:
        entries = hooks.get(kind) or []
        for index, hook in enumerate(entries if isinstance(entries, list) else [None]):
            field = f"hooks.{kind}[{index}]"
            _need(isinstance(hook, dict), field, "must be an object")
            path = hook.get("path")
            good = isinstance(path, str) and path.startswith("/") and "\0" not in path
            _need(good, f"{field}.path", "must be absolute")
            for key in ("args", "env"):
                words = hook.get(key) or []
                good = isinstance(words, list) and all(
                    isinstance(word, str) and "\0" not in word for word in words
                )
                _need(good, f"{field}.{key}", "must be a list of strings")
            timeout = hook.get("timeout")
            good = timeout is None or (type(timeout) is int and timeout > 0)
            _need(good, f"{field}.timeout", "must be a positive number of seconds")


def _need(condition: bool, field: str, problem: str) -> None:
    if not condition:
        raise InvalidConfig(f"{field}: {problem}")


def state(
    spec: dict[str, Any], container_id: str, bundle: str, status: str = "", pid: int = 0
) -> dict[str, Any]:
    """The OCI state that a hook reads (runtime.md, "State")."""
    found = {
        "ociVersion": spec.get("ociVersion", OCI_RUNTIME_SPEC_VERSION),
        "id": container_id,
        "status": status,
        "pid": pid,
        "bundle": bundle,
        "annotations": spec.get("annotations") or {},
    }
    if not pid:
        del found["pid"]
    return found


def beside(spec: dict[str, Any], described: dict[str, Any], pid: int) -> Callable[[], None]:
    """What runs the hooks that run here while the child `pid` waits."""
    asked = {**described, "status": "creating", "pid": pid}

    def run_both() -> None:
        for kind in ("prestart", "createRuntime"):
            run(spec, kind, asked, described["bundle"])

    return run_both


def run(spec: dict[str, Any], kind: str, described: dict[str, Any], directory: str = "") -> None:
    """Run the hooks of one kind in order, in `directory` where one is given.

    Raises RuntimeFailure with the first that fails.
    """
    hooks = (spec.get("hooks") or {}).get(kind) or []
    if not hooks:
        return
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if directory:
            os.chdir(directory)
        run_all(kind, hooks, described, dict(os.environ))
    finally:
        os.fchdir(before)
        os.close(before)


def run_stopped(spec: dict[str, Any], container_id: str, bundle: str) -> None:
    """Run the poststop hooks. One that fails is told on standard error, and the others go on."""
    hooks = (spec.get("hooks") or {}).get("poststop") or []
    described = state(spec, container_id, bundle, "stopped")
    for hook in hooks:
        try:
            run({"hooks": {"poststop": [hook]}}, "poststop", described, bundle)
        except OSError as error:
            os.write(2, f"sampan-oci: warning: {error}\n".encode("utf-8", "replace"))


def run_all(
    kind: str, hooks: list[dict[str, Any]], described: dict[str, Any], environment: dict[str, str]
) -> None:
    """Run `hooks`; those without an environment of their own get `environment`, as under runc."""
    text = encode(described).encode()
    for index, hook in enumerate(hooks):
        try:
            _run(hook, text, environment)
        except OSError as error:
            said = str(error) if isinstance(error, RuntimeFailure) else reason(error)
            if not isinstance(error, RuntimeFailure):
                said = f"fork/exec {hook['path']}: {said}"
            failed = f"error running {kind} hook #{index}: {said}"
            raise RuntimeFailure(error.errno or 0, failed) from error


def _run(hook: dict[str, Any], text: bytes, environment: dict[str, str]) -> None:
    if hook.get("env"):
        pairs = (entry.partition("=") for entry in hook["env"])
        environment = {name: value for name, equals, value in pairs if name and equals}
    pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
    ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
    theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
    try:
        pid = os.posix_spawn(
            hook["path"],
            hook.get("args") or [hook["path"]],
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate(theirs)],
            setsigdef=[number for number in _ALL_SIGNALS if number not in (9, 19, 32, 33)],
            setsigmask=[],
        )
    except BaseException:
        _close(ours)
        raise
    finally:
        _close(theirs)
    _attend(pid, ours, text, hook.get("timeout"))


def _attend(pid: int, ours: list[int], text: bytes, timeout: int | None) -> None:
    """Feed and watch the hook `pid` until it ends. Raises RuntimeFailure unless it ends well."""
    pidfd = process.pidfd_open(pid)
    deadline = None if timeout is None else time.monotonic() + timeout
    output: dict[int, bytes] = {ours[1]: b"", ours[2]: b""}
    try:
        late = not _watch(pidfd, ours[0], text, output, deadline)
        if late:
            process.pidfd_send_signal(pidfd, process.SIGKILL)
        result = process.wait_pidfd(pidfd)
    finally:
        os.close(pidfd)
        _close(ours)
    if late:
        raise RuntimeFailure(0, f"hook ran past specified timeout of {timeout:.1f}s")
    code, signal = result or (0, 0)
    if code:
        how = f"signal: {_name_of(signal)}" if signal else f"exit status {code}"
        out, err = (text.decode("utf-8", "replace") for text in output.values())
        raise RuntimeFailure(0, f"{how}, stdout: {out}, stderr: {err}")


def _name_of(number: int) -> str:
    return (_signal.strsignal(number) or str(number)).lower()


def _watch(
    pidfd: int, stdin: int, text: bytes, output: dict[int, bytes], deadline: float | None
) -> bool:
    """Write `text`, read output, until the process ends; False when the deadline passed before."""
    for fd in (stdin, *output):
        os.set_blocking(fd, False)
    ready = select.poll()
    ready.register(pidfd, select.POLLIN)
    ready.register(stdin, select.POLLOUT)
    for fd in output:
        ready.register(fd, select.POLLIN)
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        events = dict(ready.poll(left))
        for fd in [fd for fd in output if fd in events]:
            if not _keep(fd, output):
                ready.unregister(fd)
        if pidfd in events or not events:
            return bool(events)
        if stdin in events:
            text = _feed(stdin, text)
            if not text:
                ready.unregister(stdin)
                _end(stdin)


def _feed(fd: int, text: bytes) -> bytes:
    """What of `text` is still to be written."""
    try:
        return text[os.write(fd, text) :]
    except BlockingIOError:
        return text
    except BrokenPipeError:  # it does not read
        return b""


def _end(fd: int) -> None:
    """Close the pipe behind `fd`, so that its end is seen; the number stays the owner's."""
    null = os.open("/", os.O_PATH | os.O_CLOEXEC)
    os.dup2(null, fd, inheritable=False)
    os.close(null)


def _keep(fd: int, output: dict[int, bytes]) -> bool:
    """Read what is there; False at the end. What is beyond the limit is thrown away."""
    try:
        data = os.read(fd, 65536)
    except BlockingIOError:
        return True
    output[fd] = (output[fd] + data)[:_KEPT]
    return bool(data)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


class RuntimeHooks(Operation):
    """Let the parent run prestart and createRuntime hooks, and wait for them."""

    __slots__ = ()

    def execute(self, stage: Stage) -> None:
        stage.ask_parent(ASKS_FOR_HOOKS)

    def describe(self) -> str:
        return "wait for the prestart and createRuntime hooks"


class ContainerHooks(Operation):
    """Run hooks inside: createContainer beside the root, or startContainer as the command itself.

    The pid in the state is the one inside, as under runc.
    """

    __slots__ = ("described", "environment", "hooks", "kind")

    def __init__(
        self,
        kind: str,
        hooks: list[dict[str, Any]],
        described: dict[str, Any],
        environment: list[str],
    ) -> None:
        self.kind, self.hooks, self.described = kind, hooks, described
        self.environment = environment

    def execute(self, stage: Stage) -> None:
        if self.kind == "createContainer":
            os.fchdir(stage.rootfs)
        pairs = (entry.partition("=") for entry in self.environment)
        environment = {name: value for name, _, value in pairs}
        run_all(self.kind, self.hooks, {**self.described, "pid": os.getpid()}, environment)

    def describe(self) -> str:
        return f"run the {self.kind} hooks"
