"""What a Dockerfile may say and probably should not: the rules that `--check` knows.

The names of the rules are those of Docker's build checks, so `# check=skip=...` means the same
here. `check=skip=all` silences everything, `error=true` makes a finding a failure. A rule is a
function over one instruction or the whole program; it never expands what it cannot know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sampan.builder.language import instructions as ast
from sampan.builder.language.failure import Place, nearest
from sampan.builder.language.words import Expander, WordError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sampan.builder.language.ignore import Ignore
    from sampan.builder.language.stages import Program, Stage

_SECRET: Final = re.compile(
    r"(?i)(?:^|[_-])(api[_-]?key|access[_-]?key|auth|credentials?|key|pass(?:wd|word)?|pword|"
    r"secret|token)(?:$|[_-])"
)
_PUBLIC: Final = re.compile(r"(?i)(?:^|[_-])public(?:$|[_-])")
_RESERVED: Final = ("context", "scratch")
_KNOWN_TO_SHELL: Final = frozenset(("PATH", "HOME", "HOSTNAME", "TERM", "PWD"))
_PORT: Final = re.compile(r"[0-9]+(-[0-9]+)?(/([A-Za-z]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Warn:
    """One finding."""

    rule: str
    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Checked:
    """All findings in the order of the file; `failed`: the file wants them to be errors."""

    warnings: tuple[Warn, ...]
    failed: bool


def check(
    program: Program, ignore: Ignore | None = None, known: frozenset[str] = frozenset()
) -> Checked:
    """The findings of a program. `ignore` is the context's; `known` are names that are given."""
    skipped, is_error = _directive(program.directives.get("check", ""))
    found = [*_program_rules(program), *_casing(program)]
    for stage in program.stages:
        found += _stage_rules(program, stage, known)
        for one in stage.instructions:
            for rule in _RULES:
                found += rule(one)
            if ignore is not None:
                found += _ignored(one, ignore)
    kept = [warn for warn in found if warn.rule not in skipped and "all" not in skipped]
    kept.sort(key=lambda warn: (warn.place.line, warn.rule))
    return Checked(tuple(dict.fromkeys(kept)), failed=is_error and bool(kept))


def _directive(text: str) -> tuple[frozenset[str], bool]:
    """`skip=A,B;error=true`."""
    skipped: set[str] = set()
    is_error = False
    for part in text.split(";"):
        name, _, value = part.strip().partition("=")
        if name.strip() == "skip":
            skipped.update(word.strip() for word in value.split(","))
        elif name.strip() == "error":
            is_error = value.strip().lower() == "true"
    return frozenset(skipped), is_error


# whole files


def _program_rules(program: Program) -> Iterator[Warn]:
    for stage in program.stages:
        base, place = stage.base, stage.base.origin.place
        written = base.origin.rest.split()
        if base.name in _RESERVED:
            yield Warn("ReservedStageName", f"Stage name {base.name!r} is reserved", place)
        if len(written) > 2 and written[-1] != written[-1].lower():
            yield Warn("StageNameCasing", f"Stage name {written[-1]!r} should be lowercase", place)
        if len(written) > 2 and written[-2].isupper() != base.origin.word.isupper():
            text = f"'{written[-2]}' and '{base.origin.word}' keywords' casing do not match"
            yield Warn("FromAsCasing", text, place)
        yield from _from_rules(program, base, place)
    for one in _everything(program):
        if one.origin.blank_continuation:
            yield Warn("NoEmptyContinuation", "Empty continuation line", one.origin.place)


def _from_rules(program: Program, base: ast.From, place: Place) -> Iterator[Warn]:
    defaults = {name: value for arg in program.globals for name, value in arg.pairs}
    bare = re.sub(r"[${}\"']", "", base.platform)
    if bare == "TARGETPLATFORM":
        text = (
            f"Setting platform to predefined {base.platform} in FROM is redundant as this is the "
            "default behavior"
        )
        yield Warn("RedundantTargetPlatform", text, place)
    elif base.platform and "$" not in base.platform:
        text = f"FROM --platform flag should not use constant value {base.platform!r}"
        yield Warn("FromPlatformFlagConstDisallowed", text, place)
    words = Expander({name: value or "" for name, value in defaults.items()}, program.escape)
    try:
        image = words.word(base.image)
    except WordError:
        return
    for name in sorted(words.unset - _platforms()):
        hint = nearest(name, defaults)
        text = f"FROM argument '{name}' is not declared{hint}"
        yield Warn("UndefinedArgInFrom", text, place)
    if not words.unset and (not image or image.endswith((":", "@")) or "::" in image):
        text = f"Default value for ARG {base.image} results in empty or invalid base image name"
        yield Warn("InvalidDefaultArgInFrom", text, place)


def _platforms() -> frozenset[str]:
    parts = ("PLATFORM", "OS", "ARCH", "VARIANT")
    return frozenset(f"{side}{part}" for side in ("TARGET", "BUILD") for part in parts)


def _everything(program: Program) -> Iterator[ast.Instruction]:
    yield from program.globals
    for stage in program.stages:
        yield stage.base
        yield from stage.instructions


def _casing(program: Program) -> Iterator[Warn]:
    """Instructions are written in one case: that of most of them."""
    everything = list(_everything(program))
    upper = sum(one.origin.word.isupper() for one in everything)
    wanted = upper * 2 >= len(everything)
    case = "uppercase" if wanted else "lowercase"
    for one in everything:
        word = one.origin.word
        if word != (word.upper() if wanted else word.lower()):
            text = f"Command '{word}' should match the case of the command majority ({case})"
            yield Warn("ConsistentInstructionCasing", text, one.origin.place)


# stages


def _stage_rules(program: Program, stage: Stage, known: frozenset[str]) -> Iterator[Warn]:
    yield from _repeated(stage)
    yield from _relative(program, stage)
    yield from _undefined(program, stage, known)


def _repeated(stage: Stage) -> Iterator[Warn]:
    for kind, name in (
        (ast.Cmd, "CMD"),
        (ast.Entrypoint, "ENTRYPOINT"),
        (ast.HealthCheck, "HEALTHCHECK"),
    ):
        found = [one for one in stage.instructions if isinstance(one, kind)]
        for one in found[:-1]:
            text = (
                f"Multiple {name} instructions should not be used in the same stage because only "
                "the last one will be used"
            )
            yield Warn("MultipleInstructionsDisallowed", text, one.origin.place)


def _relative(program: Program, stage: Stage) -> Iterator[Warn]:
    """A first WORKDIR that is relative depends on the base image."""
    if program.find(stage.base.image, stage.index) is not None:
        return
    for one in stage.instructions:
        if isinstance(one, ast.Workdir):
            if not one.path.startswith(("/", "$", '"/', "'/")):
                text = (
                    f"Relative workdir {one.path!r} can have unexpected results if the base image "
                    "changes"
                )
                yield Warn("WorkdirRelativePath", text, one.origin.place)
            return


def _undefined(program: Program, stage: Stage, known: frozenset[str]) -> Iterator[Warn]:
    """Variables that nobody declared; the base's own environment is not known here."""
    defined = set(_KNOWN_TO_SHELL | known)
    parent = program.find(stage.base.image, stage.index)
    while parent is not None:
        for one in parent.instructions:
            defined.update(_declares(one))
        parent = program.find(parent.base.image, parent.index)
    for one in stage.instructions:
        words = Expander(dict.fromkeys(defined, "x"), program.escape)
        for text in _expanded(one):
            try:
                words.word(text)
            except WordError:
                continue
        for name in sorted(words.unset):
            hint = nearest(name, defined)
            text = f"Usage of undefined variable '${name}'{hint}"
            yield Warn("UndefinedVar", text, one.origin.place)
        defined.update(_declares(one))


def _declares(one: ast.Instruction) -> Iterator[str]:
    if isinstance(one, (ast.Env, ast.Arg)):
        for name, _ in one.pairs:
            yield name


def _expanded(one: ast.Instruction) -> list[str]:
    match one:
        case ast.Env() | ast.Label():
            return [value for _, value in one.pairs]
        case ast.Copy():
            return [*one.sources, one.target, one.chown, one.from_]
        case ast.Workdir():
            return [one.path]
        case ast.User():
            return [one.user]
        case ast.Volume():
            return list(one.paths)
        case ast.Expose():
            return list(one.ports)
        case _:
            return []


# single instructions


def _json_form(one: ast.Instruction) -> Iterator[Warn]:
    if isinstance(one, (ast.Cmd, ast.Entrypoint)) and one.command.is_shell and one.command.words:
        text = (
            f"JSON arguments recommended for {one.origin.name} to prevent unintended behavior "
            "related to OS signals"
        )
        yield Warn("JSONArgsRecommended", text, one.origin.place)


def _deprecated(one: ast.Instruction) -> Iterator[Warn]:
    if isinstance(one, ast.Maintainer):
        text = "Maintainer instruction is deprecated in favor of using label"
        yield Warn("MaintainerDeprecated", text, one.origin.place)
    if isinstance(one, (ast.Env, ast.Label)) and one.legacy:
        name = one.origin.name
        text = f'"{name} key=value" should be used instead of legacy "{name} key value" format'
        yield Warn("LegacyKeyValueFormat", text, one.origin.place)


def _secrets(one: ast.Instruction) -> Iterator[Warn]:
    if isinstance(one, (ast.Env, ast.Arg)):
        for name, _ in one.pairs:
            if _SECRET.search(name) and not _PUBLIC.search(name):
                text = (
                    f"Do not use ARG or ENV instructions for sensitive data "
                    f'({one.origin.name} "{name}")'
                )
                yield Warn("SecretsUsedInArgOrEnv", text, one.origin.place)


def _ports(one: ast.Instruction) -> Iterator[Warn]:
    if not isinstance(one, ast.Expose):
        return
    for port in one.ports:
        if "$" in port:
            continue
        match = _PORT.fullmatch(port)
        if match is None:
            text = (
                "EXPOSE instruction should not define an IP address or host-port mapping, found "
                f"'{port}'"
            )
            yield Warn("ExposeInvalidFormat", text, one.origin.place)
        elif match[3] and match[3] != match[3].lower():
            text = f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"
            yield Warn("ExposeProtoCasing", text, one.origin.place)


def _ignored(one: ast.Instruction, ignore: Ignore) -> Iterator[Warn]:
    if not isinstance(one, ast.Copy) or one.from_:
        return
    for source in one.sources:
        path = source.strip("/").removeprefix("./")
        if not path or re.search(r"[*?\[$<]|://", path):
            continue
        if ignore.excludes(path):
            verb = one.origin.name.title()
            text = f"Attempting to {verb} file {source!r} that is excluded by .dockerignore"
            yield Warn("CopyIgnoredFile", text, one.origin.place)


_RULES: Final[tuple[Callable[[ast.Instruction], Iterator[Warn]], ...]] = (
    _json_form,
    _deprecated,
    _secrets,
    _ports,
)
