"""`sampan-oci`: the command line of the runtime.

One table from command to function. Errors are one sentence with exit status 1, as runc's callers
expect; `run` and `exec` end with the process's own status.
"""

from __future__ import annotations

import gc
import posix
import sys
from posix import _exit as end

from sampan.runtime import commands
from sampan.runtime.arguments import Parsed, UsageError, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

DEFAULT_ROOT = "/run/sampan-oci"
_MAKERS = ("create", "run")
_NOT_BEGUN = "unable to start container process: error during container init"  # runc's words


def start() -> NoReturn:
    """Run the command of this process and end it, without the clean-up of an interpreter."""
    gc.disable()  # it would run a hundred times over what is imported
    status = main()
    if _is_pack_old() and not _is_module():
        from sampan.runtime import packing

        packing.refresh()
    end(status)


def main() -> int:
    """Run one command; its exit status."""
    words = sys.argv[1:]
    try:
        options = parse(words, commands.GLOBAL)
        if options.text("log-format", "text") not in ("text", "json"):
            raise UsageError(f'unknown log-format "{options.text("log-format")}"')
        if options.text("log"):
            _check_log(options.text("log"))
        if options.on("version"):
            return _version()
        if options.on("help") or not options.rest or options.rest[0] in ("help", "h"):
            _print(commands.usage(_program()) + "\n")
            return 0
        return _command(options)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # the edge: no traceback reaches a user
        return _failed(words, error)


def _is_pack_old() -> bool:
    """Whether modules were looked for elsewhere than in the pack, or there was none."""
    missed = [finder.missed for finder in sys.meta_path if hasattr(finder, "missed")]
    return missed != [False]


def _is_module() -> bool:
    """Whether this is `python -m sampan.runtime`, and not the launcher."""
    return sys.argv[0].endswith("__main__.py")


def _program() -> str:
    """The name that the launcher was called by: who takes the place of another runtime, by a link,
    answers to its name."""
    return "sampan-oci" if _is_module() or sys.argv[0] == "-c" else sys.argv[0]


def _version() -> int:
    from sampan.version import OCI_RUNTIME_SPEC_VERSION, VERSION

    own = f"commit: sampan-{VERSION}\nspec: {OCI_RUNTIME_SPEC_VERSION}\n"
    _print(f"{_program()} version {VERSION}\n{own}")
    return 0


def _check_log(path: str) -> None:
    """The file of `--log` is made at once, as under runc: a caller looks for it."""
    flags = posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC
    try:
        posix.close(posix.open(path, flags, 0o644))
    except OSError as error:
        raise UsageError(f"unable to open log file {path}: {error.strerror}") from error


def _failed(words: list[str], error: Exception) -> int:
    """Tell the caller; the exit status. `exec` has 255, as 1 could be the command's own."""
    from sampan.errors import SampanError
    from sampan.runtime.failure import RuntimeFailure
    from sampan.runtime.log import Log

    try:
        options = parse(words, commands.GLOBAL)
    except UsageError:
        options = Parsed()
    form = "json" if options.text("log-format") == "json" else "text"
    log = Log(options.text("log"), form, debug=options.on("debug"))
    if isinstance(error, UsageError):
        log.failure(str(error))
    elif not isinstance(error, (OSError, SampanError, LookupError, ValueError)):
        defect = f"{type(error).__name__}: {error}"
        log.failure("defect of sampan-oci, please report it: " + defect)
    elif options.rest[0] == "exec":
        log.failure(f"exec failed: {_sentence(error)}")
        return 255
    elif isinstance(error, RuntimeFailure) and error.operation and options.rest[0] in _MAKERS:
        log.failure(f"{_program()} {options.rest[0]} failed: {_NOT_BEGUN}: {_sentence(error)}", "")
    elif str(error).startswith("exec ") and options.rest[0] == "run":
        log.failure(_sentence(error), "")  # the line of the process itself, which could not execute
    else:
        log.failure(_sentence(error))
    return 1


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.strerror.lower()}: {error.filename}"
    if isinstance(error, LookupError) and error.args:
        return str(error.args[0])
    if isinstance(error, OSError) and error.strerror and not getattr(error, "operation", ""):
        return error.strerror
    return str(error)


def _command(options: Parsed) -> int:
    name, *words = options.rest
    if name not in commands.COMMANDS:
        raise UsageError(f"No help topic for '{name}'")
    open_ended = name in commands.OPEN_ENDED
    parsed = parse(words, commands.flags_of(name), open_ended=open_ended)
    if parsed.on("help"):
        _print(commands.command_usage(_program(), name) + "\n")
        return 0
    for flag in ("systemd-cgroup", "debug", "log", "log-format"):
        if flag in options.flags:
            parsed.flags[flag] = options.flags[flag]
    _check_count(name, len(parsed.rest))
    if name == "list" and options.text("root"):
        posix.stat(options.text("root"))  # one that is named must be there, as under runc
    return _dispatch(name, options.text("root") or _default_root(), parsed)


def _check_count(name: str, count: int) -> None:
    least, most = commands.COMMANDS[name][3]
    if least == most and count != least:
        raise UsageError(f'{_program()}: "{name}" requires exactly {least} argument(s)')
    if count < least:
        raise UsageError(f'{_program()}: "{name}" requires a minimum of {least} argument(s)')
    if count > most:
        raise UsageError(f'{_program()}: "{name}" requires a maximum of {most} argument(s)')


def _default_root() -> str:
    """Where the state is: an ordinary user has a place of its own, as under runc."""
    if posix.geteuid() == 0:
        return DEFAULT_ROOT
    import os

    own = os.environ.get("XDG_RUNTIME_DIR")
    return f"{own}/sampan-oci" if own else DEFAULT_ROOT


def _dispatch(name: str, root: str, parsed: Parsed) -> int:
    """Each command's module is imported when it is its turn: a start is counted in milliseconds."""
    first = parsed.rest[0] if parsed.rest else ""
    match name:
        case "create":
            from sampan.runtime.launch import create_command

            create_command(root, first, parsed)
        case "run":
            from sampan.runtime.launch import run_command

            return run_command(root, first, parsed)
        case "exec":
            from sampan.runtime.joining import exec_command

            return exec_command(root, first, parsed.rest[1:], parsed)
        case "checkpoint" | "restore":
            return _by_criu(name, root, first, parsed)
        case "features":
            from sampan.runtime.features import document

            _print_json(document())
        case "plan":
            _print_plan(parsed)
        case "spec":
            from sampan.runtime.specification import write

            write(parsed.text("bundle") or ".", rootless=parsed.on("rootless"))
        case "state" | "list":
            _describe(name, root, first, parsed)
        case "pause" | "resume" | "ps" | "update" | "events":
            _on_running(name, root, first, parsed)
        case _:
            _verb(name, root, first, parsed)
    return 0


def _verb(name: str, root: str, first: str, parsed: Parsed) -> None:
    from sampan.runtime import verbs

    if name == "start":
        verbs.start(root, first)
    elif name == "kill":
        signal = parsed.rest[1] if len(parsed.rest) > 1 else "SIGTERM"
        verbs.kill(root, first, signal, everyone=parsed.on("all"))
    elif name == "delete":
        verbs.delete(root, first, force=parsed.on("force"))


def _by_criu(name: str, root: str, first: str, parsed: Parsed) -> int:
    if name == "restore":
        from sampan.runtime import restoring

        return restoring.restore(root, first, parsed)
    from sampan.runtime import checkpointing

    checkpointing.checkpoint(root, first, parsed)
    return 0


def _describe(name: str, root: str, first: str, parsed: Parsed) -> None:
    from sampan.runtime import description

    if name == "state":
        _print_json(description.describe(root, first))
    else:
        _print(description.listing(root, parsed.text("format"), quiet=parsed.on("quiet")))


def _on_running(name: str, root: str, first: str, parsed: Parsed) -> None:
    if name == "update":
        from sampan.runtime.updating import update

        update(root, first, parsed)
        return
    if name == "events":
        from sampan.runtime import watching

        interval, once = parsed.text("interval"), parsed.on("stats")
        watching.events(root, first, interval, once=once, tell=watching.print_line)
        return
    from sampan.runtime import pausing

    if name == "pause":
        pausing.pause(root, first)
    elif name == "resume":
        pausing.resume(root, first)
    else:
        form = parsed.text("format")
        _print(pausing.processes(root, first, form, parsed.rest[1:]))


def _print_plan(parsed: Parsed) -> None:
    """`plan`: what a bundle would do, in the order it would be done, without doing it."""
    from sampan.kernel import cgroups
    from sampan.runtime import bundle, facts, plan, shapes, validate

    spec = bundle.load(bundle.directory(parsed.text("bundle")))
    shapes.check(spec, shapes.CONFIG)
    validate.check(spec)
    path = (spec.get("linux") or {}).get("cgroupsPath") or "ID"
    known = facts.facts_of(cgroups.manager(path), spec["root"]["path"])
    built = plan.build(spec, known)
    lines = [operation.describe() for operation in built.before_gate]
    after = [operation.describe() for operation in built.after_gate]
    if parsed.text("format") == "json":
        _print_json({"beforeStart": lines, "afterStart": after})
        return
    numbered = [f"{number:3}  {line}" for number, line in enumerate(lines, 1)]
    numbered.append("     wait for start")
    numbered += [f"{number:3}  {line}" for number, line in enumerate(after, len(lines) + 1)]
    _print("\n".join(numbered) + "\n")


def _print_json(document: dict[str, Any]) -> None:
    from sampan.jsontext import encode

    _print(encode(document, "  ") + "\n")


def _print(text: str) -> None:
    try:
        posix.write(1, text.encode())
    except BrokenPipeError:
        pass


if __name__ == "__main__":
    start()
