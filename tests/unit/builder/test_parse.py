"""Instructions, flags, forms, and what is said about mistakes."""

from __future__ import annotations

import pytest

from sampan.builder.language import instructions as ast
from sampan.builder.language.failure import DockerfileError
from sampan.builder.language.stages import plan, sources_of
from sampan.errors import InvalidArgument


def one(text):
    """The first instruction behind a FROM."""
    return plan(f"FROM a\n{text}\n".encode()).stages[0].instructions[0]


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("RUN a  b", "command", ast.Command(("a  b",), is_shell=True)),
        ('RUN ["a", "b c"]', "command", ast.Command(("a", "b c"), is_shell=False)),
        ("RUN ['a']", "command", ast.Command(("['a']",), is_shell=True)),
        ("RUN --mount=type=tmpfs,target=/x --network=none a", "mounts", ("type=tmpfs,target=/x",)),
        ("RUN --network=none a", "network", "none"),
        ("CMD a b", "command", ast.Command(("a b",), is_shell=True)),
        ("CMD []", "command", ast.Command((), is_shell=False)),
        ("CMD", "command", ast.Command((), is_shell=True)),
        ('ENTRYPOINT ["x"]', "command", ast.Command(("x",), is_shell=False)),
        ("ENV a=b", "pairs", (("a", "b"),)),
        ('ENV a=b c="d e" f=g\\ h', "pairs", (("a", "b"), ("c", '"d e"'), ("f", "g\\ h"))),
        ("ENV a b c", "pairs", (("a", "b c"),)),
        ('LABEL "a b"=c', "pairs", (('"a b"', "c"),)),
        ("ARG a", "pairs", (("a", None),)),
        ("ARG a= b=c", "pairs", (("a", ""), ("b", "c"))),
        ("COPY a b /c", "sources", ("a", "b")),
        ('COPY ["a b", "/c d"]', "target", "/c d"),
        ("COPY --from=x --chown=1:2 --chmod=755 a /c", "from_", "x"),
        ("COPY --link --parents a /c", "link", True),
        ("COPY --link=false a /c", "link", False),
        ("COPY --exclude=*.md --exclude=x a /c", "exclude", ("*.md", "x")),
        ("ADD --checksum=sha256:1 http://x /c", "checksum", "sha256:1"),
        ("ADD --keep-git-dir=true g /c", "keep_git_dir", True),
        ("ADD --unpack=true g /c", "unpack", True),
        ("VOLUME /a /b", "paths", ("/a", "/b")),
        ('VOLUME ["/a b"]', "paths", ("/a b",)),
        ("EXPOSE 80 443/udp $P", "ports", ("80", "443/udp", "$P")),
        ("USER a:b", "user", "a:b"),
        ("WORKDIR /a b", "path", "/a b"),
        ("STOPSIGNAL SIGTERM", "signal", "SIGTERM"),
        ('SHELL ["a", "-c"]', "words", ("a", "-c")),
        ("MAINTAINER some one", "name", "some one"),
        ("HEALTHCHECK NONE", "command", None),
        ("HEALTHCHECK --interval=1m30s CMD x", "interval", 90_000_000_000),
        ("HEALTHCHECK --retries=3 CMD x", "retries", 3),
        ("ONBUILD RUN a b", "text", "RUN a b"),
        ("ONBUILD COPY --from=x a b", "text", "COPY --from=x a b"),
    ],
)
def test_instructions(text, names, expected):
    assert getattr(one(text), names) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("RUNN x", "Dockerfile:2:1: unknown instruction: RUNN (did you mean RUN?)"),
        ("COPPY a b", "did you mean COPY?"),
        ("COPY --chonw=1 a b", "Dockerfile:2:6: unknown flag: --chonw (did you mean --chown?)"),
        ("COPY --from a b", "missing a value on flag: --from"),
        ("COPY --link=maybe a b", "expecting boolean value for flag --link"),
        ("COPY --from=a --from=b c d", "duplicate flag specified: --from"),
        ("COPY a", "COPY requires at least two arguments"),
        ("ADD --from=x a b", "unknown flag: --from"),
        ("RUN", "RUN requires at least one argument"),
        ("RUN --network=hots x", "did you mean host?"),
        ("RUN --security=unsafe x", "use one of insecure, sandbox"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV a=b c", "can't find = in 'c'"),
        ("ENV =b", "names can not be blank"),
        ("LABEL a", "LABEL must have two arguments"),
        ("ARG =x", "ARG names can not be blank"),
        ("SHELL a b", "SHELL requires the arguments to be in JSON form"),
        ("STOPSIGNAL a b", "exactly one argument"),
        ("HEALTHCHECK CDM x", "did you mean CMD?"),
        ("HEALTHCHECK CMD", "missing command"),
        ("HEALTHCHECK NONE x", "takes no arguments"),
        ("HEALTHCHECK --interval=1x CMD x", "invalid duration"),
        ("HEALTHCHECK --interval=1us CMD x", "cannot be less than 1ms"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries must be a number"),
        ("ONBUILD ONBUILD RUN x", "chaining ONBUILD"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD RNU x", "did you mean RUN?"),
        ("USER --x a", "USER has no flags"),
        ("FROM b ASS c", "did you mean AS?"),
        ("FROM b AS 1c", "invalid name for build stage"),
        ("FROM b c", "either one or three arguments"),
        ("VOLUME []", "can not be an empty string"),
    ],
)
def test_mistakes(text, said):
    with pytest.raises(DockerfileError) as caught:
        one(text)
    assert said in str(caught.value)


def test_what_comes_before_the_first_stage():
    program = plan(b"ARG V=1\nARG W\nFROM a:$V AS One\nFROM one\n")
    assert [arg.pairs for arg in program.globals] == [(("V", "1"),), (("W", None),)]
    assert [stage.title for stage in program.stages] == ["one", "stage-1"]
    with pytest.raises(DockerfileError, match="the first instruction must be FROM"):
        plan(b"RUN x\nFROM a\n")
    with pytest.raises(DockerfileError, match="the file has no FROM"):
        plan(b"ARG x\n")
    with pytest.raises(DockerfileError, match=r":2:1: duplicate name x"):
        plan(b"FROM a AS x\nFROM b AS X\n")


def test_stages_are_found_by_name_and_number():
    program = plan(b"FROM a AS x\nFROM b AS y\nFROM c\n")
    assert program.target("").index == 2
    assert program.target("X").index == 0
    assert program.target("1").index == 1
    assert program.find("y", before=1) is None
    assert program.find("9") is None
    with pytest.raises(InvalidArgument, match="could not be found"):
        program.target("yy" * 50)


def test_where_files_come_from():
    assert list(sources_of(one("COPY --from=x a b"))) == ["x"]
    assert list(sources_of(one("RUN --mount=type=bind,from=x,target=/a b"))) == ["x"]
    assert list(sources_of(one("RUN --mount=target=/a b"))) == []
