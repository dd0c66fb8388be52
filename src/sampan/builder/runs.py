"""RUN: the command that is run, what it sees, and what it is keyed by."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sampan.builder import platforms
from sampan.builder.commands import Command
from sampan.builder.configure import DEFAULT_SHELL, set_variables
from sampan.builder.files.service import Context, Part
from sampan.builder.language.failure import DockerfileError
from sampan.builder.language.lines import shell_words
from sampan.builder.model import NoteKind
from sampan.builder.mounts import parse
from sampan.builder.scope import environment
from sampan.engine.model import HostConfig

if TYPE_CHECKING:
    from sampan.builder.language import instructions as ast
    from sampan.builder.model import State
    from sampan.builder.mounts import RunMount
    from sampan.builder.stage import StageWork
    from sampan.snapshots.base import Mount

_SCRIPT: Final = "/dev/pipes"


class Runs:
    """The commands of one stage."""

    def __init__(self, stage: StageWork) -> None:
        self._stage = stage

    async def run(self, state: State, one: ast.Run) -> State:
        """A RUN."""
        build, stage = self._stage.build, self._stage
        platforms.check_runs(state.platform, build.engine.images.platform)
        words = _words(state, one)
        arguments = stage.scope.for_commands(environment(state.config.env))
        mounts = tuple(
            parse(one, text, stage.words(state), state.config.working_dir) for text in one.mounts
        )
        host = self._host(one)
        parts = [
            "run",
            words,
            state.config.env,
            arguments,
            state.config.working_dir,
            state.config.user,
            host.network_mode,
            one.security,
            [await self._mount_key(mount) for mount in mounts],
        ]

        command = Command(
            words=words,
            env=set_variables(state.config.env, {**build.globals.proxies(), **arguments}),
            cwd=state.config.working_dir or "/",
            user=state.config.user,
            host=host,
            shown=_shown(state, one),
        )

        async def work(active: str, mount: Mount) -> None:
            await self._mounted(command, mounts, active, mount)

        title = _title(words, arguments)
        return await stage.files_step(state, parts, title, work)

    async def _mounted(
        self, command: Command, mounts: tuple[RunMount, ...], active: str, mount: Mount
    ) -> None:
        """Run a command, with its mounts for as long as it runs."""
        build, stage = self._stage.build, self._stage
        async with build.run_mounts.prepared(
            mounts,
            find=self._find,
            secrets=build.options.secrets,
            ssh=build.options.ssh,
            lease=build.lease,
        ) as prepared:
            await build.commands.run(
                replace(
                    command,
                    env=(*command.env, *prepared.env),
                    mounts=tuple(prepared.mounts),
                    secret_env=tuple(prepared.secret_env),
                ),
                active,
                mount,
                began=lambda container: stage.note(NoteKind.RUNNING, container[:12]),
                output=self._output,
            )

    def _output(self, data: bytes, is_error: bool) -> None:  # noqa: FBT001, RUF100
        text = data.decode("utf-8", "replace")
        self._stage.note(NoteKind.OUTPUT, text, is_error=is_error)

    def _host(self, one: ast.Run) -> HostConfig:
        """The limits, and the network: a step's own wish before the build's."""
        options = self._stage.build.options
        host = options.host or HostConfig(network_mode="default")
        if one.security == "insecure":
            if not options.allow_insecure:
                raise DockerfileError(
                    "RUN --security=insecure is not allowed: build with --allow=security.insecure",
                    one.origin.place,
                )
            host = replace(host, privileged=True)
        mode = host.network_mode
        if one.network != "default":
            if one.network == "host" and mode != "host" and not options.allow_host_network:
                raise DockerfileError(
                    "RUN --network=host is not allowed: build with --network=host or "
                    "--allow=network.host",
                    one.origin.place,
                )
            mode = one.network
        elif mode == "default" and self._stage.build.engine.networks.default == "none":
            self._stage.build.warn(
                "[Warning] commands of RUN had no network: an ordinary user's engine has none but "
                "the machine's, which --network=host gives"
            )
        return replace(host, network_mode=mode)

    async def _find(self, name: str) -> Context | Mount | None:
        found, _ = await self._stage.build.source(name, self._stage)
        return found

    async def _mount_key(self, mount: RunMount) -> list[Any]:
        """What a mount counts for: its place and its files; never what a secret or cache holds."""
        key: list[Any] = [mount.kind, mount.target, mount.id, mount.env, mount.read_only]
        if mount.kind == "bind":
            build = self._stage.build
            source, name = await build.source(mount.from_, self._stage)
            key += [mount.source, name]
            part = Part(source=0, words=[mount.source or "."], is_directory=False)
            if isinstance(source, Context):
                key.append(await build.files.key(source, part))
            elif source is not None and not name:
                key.append(await build.files.tree_key(source, part))
        return key


def _words(state: State, one: ast.Run) -> tuple[str, ...]:
    """The command's words; here-documents are given to the shell as it would read them."""
    if not one.command.is_shell:
        return one.command.words
    shell = state.config.shell or DEFAULT_SHELL
    text = one.command.words[0]
    if not one.heredocs:
        return (*shell, text)
    if len(one.heredocs) == 1 and len(shell_words(text)) == 1:
        content = one.heredocs[0].content
        if content.startswith("#!"):
            return _with_interpreter(content)
        return (*shell, content)
    for document in one.heredocs:
        text += f"\n{document.content}{document.name}"
    return (*shell, text)


def _with_interpreter(content: str) -> tuple[str, ...]:
    """A script with its own interpreter, which reads it from its last argument's descriptor."""
    first, _, _ = content.partition("\n")
    interpreter = first[2:].strip().split(None, 1)
    body = 'printf %s "$1" > /dev/shm/.script; shift; exec "$@" /dev/shm/.script'
    return ("/bin/sh", "-c", body, "sh", content, *interpreter)


def _shown(state: State, one: ast.Run) -> tuple[str, ...]:
    """The command as an error quotes it."""
    if not one.command.is_shell:
        return one.command.words
    return (*(state.config.shell or DEFAULT_SHELL), one.command.words[0])


def _title(words: tuple[str, ...], arguments: dict[str, str]) -> str:
    """The line of history, as docker writes it."""
    shown = " ".join(words)
    if not arguments:
        return f"RUN {shown}"
    pairs = " ".join(f"{name}={value}" for name, value in arguments.items())
    return f"RUN |{len(arguments)} {pairs} {shown}"
