"""`sampan-oci exec`: a process from the command line in a running container."""

from __future__ import annotations

import os
import stat
import sys

from sampan.kernel.capabilities import BITS
from sampan.kernel.identity import is_alive
from sampan.runtime import direct_exec, passing
from sampan.runtime.arguments import Parsed
from sampan.runtime.calling import forward_signals, tell, use_every_cpu, wait, write_pid
from sampan.runtime.failure import InvalidConfig, NeedsInterpreter, RuntimeFailure
from sampan.runtime.state import StateDirectory, status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.direct import Direct
    from sampan.runtime.exec import Execed


def exec_command(root: str, container_id: str, command: list[str], options: Parsed) -> int:
    """Run the process; its exit code, or 0 at once with `--detach`."""
    directory = StateDirectory(root, container_id)
    state = directory.load()
    _check_status(status_of(directory, state), options)
    spec = _process(state["config"]["process"], command, options)
    detached = options.on("detach")
    if spec.get("terminal") and detached and not options.text("console-socket"):
        raise RuntimeFailure(
            0, "cannot allocate tty if sampan-oci will detach without setting console socket"
        )
    use_every_cpu()
    spec["relayed"] = not options.text("console-socket")
    tell(options, "nsexec container setup: joining what the container has")
    if options.on("debug") and (spec.get("execCPUAffinity") or {}).get("initial"):
        _tell_affinity(spec["execCPUAffinity"]["initial"], options)
    execed = _spawn(directory, state, spec, options)
    tell(options, f"child process in init(): {execed.pid}")
    tell(options, f"setns_init: about to exec {spec['args'][0]}")
    try:
        _hand_out(execed, options)
    except BaseException:
        _end(execed.pidfd)
        raise
    return 0 if detached else _wait(execed)


def _tell_affinity(cpus: str, options: Parsed) -> None:
    from sampan.runtime.scheduling import check_affinity, numbers

    check_affinity({"initial": cpus})
    mask = sum(1 << cpu for cpu in numbers(cpus, 1 << 16))
    tell(options, f"nsexec container setup: affinity: {mask:#x}")


def _end(pidfd: int) -> None:
    from sampan.runtime.blank import reap

    reap(pidfd)


def _hand_out(execed: Execed | Direct, options: Parsed) -> None:
    """Terminal and pidfd to their sockets, the pid to its file."""
    if execed.master >= 0 and options.text("console-socket"):
        from sampan.runtime import console

        console.hand_over(options.text("console-socket"), execed.master)
        execed.master = -1
    if options.text("pidfd-socket"):
        passing.hand_pidfd(options.text("pidfd-socket"), execed.pidfd)
    if options.text("pid-file"):
        write_pid(options.text("pid-file"), execed.pid)


def _check_status(status: str, options: Parsed) -> None:
    if status == "stopped":
        raise RuntimeFailure(0, "cannot exec in a stopped container")
    if status == "paused" and not options.on("ignore-paused"):
        raise RuntimeFailure(
            0, "cannot exec in a paused container (use --ignore-paused to override)"
        )


def sub_cgroups(texts: list[str]) -> dict[str, str]:
    """`--cgroup`: a path below the container's (version 2), or `controller,...:path` (version 1).

    Raises RuntimeFailure.
    """
    found: dict[str, str] = {}
    for text in texts:
        controllers, colon, path = text.partition(":")
        if not colon:
            if len(texts) > 1:
                raise RuntimeFailure(
                    0, f"invalid --cgroup argument: {text} (missing <controller>: prefix)"
                )
            return {"": text}
        for controller in controllers.split(","):
            if not controller or controller in found:
                raise RuntimeFailure(
                    0,
                    f"invalid --cgroup argument: {text} "
                    f"(controller {controller!r} is empty or named twice)",
                )
            found[controller] = path
    return found


def _spawn(
    directory: StateDirectory, state: dict[str, Any], spec: dict[str, Any], options: Parsed
) -> Execed | Direct:
    """By the machine, or by the interpreter where that cannot."""
    below = sub_cgroups(options.list("cgroup"))
    ignore_paused = options.on("ignore-paused")
    pidfd = os.pidfd_open(state["pid"])
    try:
        # The pid may have been taken by another process since: only now is its identity sure.
        if not is_alive(state["pid"], state["start_time"]):
            raise RuntimeFailure(0, "cannot exec in a stopped container")
        compiled = _filter(directory, state)
        try:
            return direct_exec.spawn(
                state,
                spec,
                pidfd=pidfd,
                filter_program=compiled,
                sub_cgroups=below,
                ignore_paused=ignore_paused,
            )
        except NeedsInterpreter:
            pass
        from sampan.runtime import freeze

        freeze.seal()
        from sampan.runtime.exec import spawn

        return spawn(
            state,
            spec,
            pidfd=pidfd,
            stdio=(0, 1, 2),
            filter_program=compiled,
            sub_cgroups=below,
            ignore_paused=ignore_paused,
        )
    finally:
        os.close(pidfd)


def _filter(directory: StateDirectory, state: dict[str, Any]) -> tuple[bytes, int] | None:
    """The container's filter as it was compiled for its first process."""
    profile = (state["config"].get("linux") or {}).get("seccomp")
    if not profile:
        return None
    found = directory.load_filter()
    if found is None:
        from sampan.kernel import seccomp

        compiled = seccomp.compile(profile)
        found = compiled.program, compiled.flags
    return found


def _wait(execed: Execed | Direct) -> int:
    forward_signals(execed.pidfd)
    if execed.master >= 0:
        from sampan.runtime import console

        console.relay(execed.master, execed.pidfd)
    code = wait(execed.pidfd)
    os.close(execed.pidfd)
    return code


def _read_process(path: str, limit: int) -> bytes:
    """The text of a process file. A pipe is read once, but the command may be begun again."""
    with open(path, "rb") as file:
        text = file.read(limit)
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return text
    kept = os.memfd_create("sampan-process", 0)
    os.write(kept, text)
    name = f"/proc/self/fd/{kept}"
    words = [name if word == path else word for word in sys.orig_argv]
    sys.orig_argv[:] = [word.replace(f"={path}", f"={name}") for word in words]
    return text


def _process(base: dict[str, Any], command: list[str], options: Parsed) -> dict[str, Any]:
    """The process of `--process`, or the container's own with the flags applied, as runc does."""
    if options.text("process"):
        path = options.text("process")
        from sampan.runtime import bundle, shapes

        spec = bundle.parse(_read_process(path, bundle.MAX_CONFIG + 1), path)
        shapes.check(spec, shapes.PROCESS, "process")
        if not spec.get("args"):
            raise RuntimeFailure(0, "process args cannot be empty")
        passing.preserve(spec, options, listen=False)
        spec["keyring"] = base.get("keyring")
        return spec
    if not command:
        raise RuntimeFailure(0, "exec args cannot be empty")
    spec = {**base, "args": command, "terminal": options.on("tty")}
    spec.pop("consoleSize", None)
    passing.preserve(spec, options, listen=False)
    spec["cwd"] = options.text("cwd") or base["cwd"]
    spec["env"] = [*(base.get("env") or []), *options.list("env")]
    if "no-new-privs" in options.flags:
        spec["noNewPrivileges"] = options.on("no-new-privs")
    if options.list("cap"):
        spec["capabilities"] = _with_capabilities(base, options.list("cap"))
    for flag, key in (("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if options.text(flag):
            spec[key] = options.text(flag)
    spec["user"] = _user(base, options)
    return spec


def _with_capabilities(base: dict[str, Any], names: list[str]) -> dict[str, list[str]]:
    """`--cap` adds to bounding, effective, permitted, and to ambient where inheritable is set."""
    sets = {key: list(values or []) for key, values in (base.get("capabilities") or {}).items()}
    for name in names:
        if name not in BITS:
            raise InvalidConfig(f"--cap: unknown capability {name!r}")
    kinds = ["bounding", "effective", "permitted"]
    if sets.get("inheritable"):
        kinds.append("ambient")  # which holds no more than inheritable: runc adds nothing there
    for kind in kinds:
        found = sets.setdefault(kind, [])
        found += [name for name in names if name not in found]
    return sets


def _user(base: dict[str, Any], options: Parsed) -> dict[str, Any]:
    """`--user` and `--additional-gids`; the latter come on top of the container's own."""
    user = dict(base.get("user") or {})
    if options.text("user"):
        user.pop("home", None)
        uid, colon, gid = options.text("user").partition(":")
        user["uid"] = _identity("uid", uid)
        if colon:
            user["gid"] = _identity("gid", gid)
    if options.list("additional-gids"):
        words = ",".join(options.list("additional-gids")).split(",")
        more = [_identity("additional gid", word) for word in words]
        user["additionalGids"] = [*(user.get("additionalGids") or []), *more]
    return user


def _identity(kind: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) >= 2**32 - 1:
        raise RuntimeFailure(0, f'bad {kind}: "{text}" is not a number in range')
    return int(text)
