"""Small Dockerfiles with their contexts, built here and by others, to compare what comes out.

A case names which peers can build it at all: dockerd's classic builder knows no here-documents, no
RUN --mount and no COPY --chmod; Debian's buildah has no here-documents, --parents or --exclude.
What none of them knows is compared with what the reference says, written down as `expect`.
`APART` has every difference that is meant, with its reason.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from dataclasses import dataclass, field

DOCKER, BUILDAH = "dockerd", "buildah"
BOTH = (DOCKER, BUILDAH)
TIME = 1_600_000_000


@dataclass(frozen=True, kw_only=True)
class Case:
    """One build. `expect` is for what no peer can: lines of `ls`-like facts that must be there."""

    name: str
    dockerfile: str
    files: dict = field(default_factory=dict)
    args: dict = field(default_factory=dict)
    target: str = ""
    labels: dict = field(default_factory=dict)
    peers: tuple = BOTH
    before: str = ""  # a Dockerfile whose image the case's FROM names as parent:NAME
    expect: tuple = ()


def archive(files, mode="w"):
    """A tar of texts, as the content of a file."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w" if mode == "w:gz" else mode) as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.mtime, entry.mode = TIME, 0o640
            entry.uid, entry.gid = 1001, 1002
            if isinstance(text, tuple):
                entry.type = tarfile.SYMTYPE if text[0] == "link" else tarfile.LNKTYPE
                entry.linkname = text[1]
                tar.addfile(entry)
            elif text is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o750
                tar.addfile(entry)
            else:
                entry.size = len(text)
                tar.addfile(entry, io.BytesIO(text.encode()))
    content = target.getvalue()
    return gzip.compress(content, mtime=TIME) if mode == "w:gz" else content


TREE = {
    "a.txt": "A",
    "b.md": "B",
    "dir": None,
    "dir/one.txt": "1",
    "dir/two.md": "2",
    "dir/sub": None,
    "dir/sub/three.txt": "3",
    "dir/link": ("link", "one.txt"),
    "dir/.hidden": "h",
    "empty": "",
    "empty-dir": None,
    "tolink": ("link", "a.txt"),
    "todir": ("link", "dir/sub"),
    "with space.txt": "s",
    "star[1].txt": "*",
}
PACKED = {
    "p.tar": archive({"in/one": "1", "in/l": ("link", "one"), "in/h": ("hard", "in/one")}),
    "p.tgz": archive({"gz/x": "x", "gz": None}, "w:gz"),
    "p.txz": archive({"xz/x": "x"}, "w:xz"),
    "p.tbz": archive({"bz/x": "x"}, "w:bz2"),
    "text.tar": "no archive",
}


def copying(name, *lines, **more):
    """A case that copies from TREE."""
    text = "FROM bb:1\n" + "".join(f"{line}\n" for line in lines)
    return Case(name=name, dockerfile=text, files=TREE, **more)


def plain(name, *lines, **more):
    """A case without files."""
    text = "FROM bb:1\n" + "".join(f"{line}\n" for line in lines)
    return Case(name=name, dockerfile=text, **more)


CASES = (
    # configuration
    plain("env-pairs", "ENV a=1 b='two words' c=\"three $a\" d=four\\ words"),
    plain("env-legacy", "ENV key some value with  blanks"),
    plain("env-override", "ENV a=1", "ENV a=2 b=$a", "ENV c=${a}x${b}y"),
    plain("env-escapes", "ENV a=\\$x b='$x' c=\"\\$x\" d=a\\\\b"),
    plain("env-in-run", "ENV a='x y'", 'RUN echo "$a" > /o; env | head -n 1 > /dev/null'),
    plain("env-modifiers", "ENV e=", "ENV a=${x:-d} b=${e:-d} c=${e:+s} d=${x:+s}"),
    plain(
        "env-modifiers-unset",
        "ENV e=",
        "ENV a=${x-n}${e-m}",
        "RUN echo [$a] > /o",
        peers=(),
        expect=("o 644 0:0 '[n]\\n'",),
    ),
    plain("label-pairs", "LABEL a=1 'b c'=\"d e\"", "LABEL a=2 f=$HOME"),
    plain("label-legacy", "LABEL legacy some words"),
    plain("label-lines", "LABEL a=1 \\", "  b=2 \\", "# a comment inside", "  c=3"),
    plain("labels-given", "LABEL a=1 b=1", labels={"a": "2", "z": "y"}),
    plain("cmd-shell", "CMD echo $HOME"),
    plain("cmd-exec", 'CMD ["echo", "a b", "$HOME"]'),
    plain("cmd-empty", 'CMD ["echo"]', "CMD []"),
    plain("cmd-bad-json", "CMD [echo, 'x']"),
    plain("entrypoint-shell", "ENTRYPOINT exec top"),
    plain("entrypoint-drops-cmd", 'FROM bb:1 AS x\nCMD ["a"]', 'ENTRYPOINT ["b"]', 'CMD ["c"]'),
    plain("shell", 'SHELL ["/bin/sh", "-ec"]', "RUN echo $0 > /o", "CMD echo"),
    plain("expose", "EXPOSE 80 443/tcp 53/udp", "EXPOSE 80/tcp 9000-9002"),
    plain("expose-variable", "ARG p=8080", "ENV q=9090", "EXPOSE $p ${q}/udp"),
    plain("volume-words", "VOLUME /a /b"),
    plain("volume-json", 'VOLUME ["/c d", "/e"]'),
    plain("volume-content", "RUN mkdir /v; echo x > /v/x", "VOLUME /v"),
    plain("user", "USER bob", "RUN id -u > /tmp/o"),
    plain("user-numbers", "USER 1234:4321", "RUN id -u > /tmp/o; id -g >> /tmp/o"),
    plain("user-variable", "ARG who=bob", "USER ${who}"),
    plain("stopsignal", "STOPSIGNAL SIGUSR1"),
    plain("stopsignal-number", "STOPSIGNAL 9"),
    plain("maintainer", "MAINTAINER Some One <some@one.example>"),
    plain(
        "health-shell", "HEALTHCHECK --interval=5s --timeout=1m30s --retries=3 CMD true || false"
    ),
    plain("health-exec", 'HEALTHCHECK --start-period=2s CMD ["true"]'),
    plain("health-none", "HEALTHCHECK CMD true", "HEALTHCHECK NONE"),
    plain("workdir", "WORKDIR /w", "WORKDIR x", "WORKDIR ../y", "RUN pwd > /o"),
    plain("workdir-variable", "ENV d=/some", "WORKDIR $d/where/"),
    plain("workdir-link", "RUN mkdir /real; ln -s /real /l", "WORKDIR /l/in", "RUN pwd > /o"),
    plain("lower-case", "run echo x > /o", "env a=b", 'cmd ["true"]'),
    plain("comments", "# one", "RUN echo a \\", "  # two", "  b > /o", "  # three"),
    plain("blank-lines", "", "RUN echo a; \\", "", "  echo b > /o"),
    Case(
        name="escape", dockerfile="# escape=`\nFROM bb:1\nRUN echo a `\n  b > /o\nENV a=`$x b=\\\n"
    ),
    Case(name="windows-lines", dockerfile="FROM bb:1\r\nRUN echo a \\\r\n  b > /o\r\nENV a=b\r\n"),
    Case(name="byte-order-mark", dockerfile="\ufeffFROM bb:1\nENV a=b\n"),
    Case(name="no-line-end", dockerfile="FROM bb:1\nENV a=b"),
    # arguments
    plain("arg-default", "ARG a=1", "RUN echo $a > /o"),
    plain("arg-given", "ARG a=1", "RUN echo $a > /o", args={"a": "2"}),
    plain("arg-none", "ARG a", 'RUN echo "[$a]" > /o'),
    plain("arg-before-env", "ARG a=1", "ENV a=2", "RUN echo $a > /o", args={"a": "3"}),
    plain("arg-into-env", "ARG v=1", "ENV V=${v:-0}", args={"v": "7"}),
    plain("arg-order", "RUN echo [$a] > /o", "ARG a=1", "RUN echo [$a] >> /o"),
    Case(
        name="arg-global",
        dockerfile="ARG base=bb:1\nARG v=1\nFROM $base\nARG v\nARG w\nRUN echo [$v$w$base] > /o\n",
    ),
    Case(
        name="arg-global-chain",
        dockerfile="ARG n=bb\nARG base=${n}:1\nFROM ${base}\nENV a=b\n",
        args={"n": "bb"},
    ),
    Case(
        name="arg-scopes",
        dockerfile="FROM bb:1 AS a\nARG v=1\nRUN echo $v > /o\nFROM bb:1\n"
        "RUN echo [$v] > /p\nCOPY --from=a /o /o\n",
        args={"v": "2"},
    ),
    # running
    plain("run-shell", "RUN echo a && echo b > /o || true"),
    plain("run-exec", 'RUN ["/bin/sh", "-c", "echo $0 > /o"]'),
    plain("run-lines", "RUN echo one > /o \\", "  && echo two >> /o \\", "  && true"),
    plain("run-deletes", "RUN rm /etc/motd"),
    plain("run-deletes-directory", "RUN rm -r /etc/conf; mkdir /etc/conf; echo n > /etc/conf/new"),
    plain("run-modes", "RUN touch /s /d; chmod 4755 /s; mkdir /t; chmod 1777 /t; chown 5:6 /d"),
    plain("run-links", "RUN echo x > /x; ln /x /y; ln -s x /z; ln -s /nowhere /n; mkfifo /f"),
    plain("run-replaces", "RUN rm -r /etc/conf; echo file > /etc/conf", "RUN rm /etc/conf"),
    plain("run-nothing", "RUN true", "RUN touch /x; rm /x"),
    plain("run-many", *(f"RUN echo {n} > /f{n}" for n in range(4)), "RUN cat /f? > /all; rm /f0"),
    plain("run-tmp", "RUN echo t > /tmp/t"),
    # copies
    copying("copy-file", "COPY a.txt /x"),
    copying("copy-file-slash", "COPY a.txt /x/"),
    copying("copy-file-into", "COPY a.txt /etc"),
    copying("copy-deep", "COPY a.txt /new/deep/name"),
    copying("copy-relative", "WORKDIR /w", "COPY a.txt b", "COPY b.md ./", "COPY empty ."),
    copying("copy-many", "COPY a.txt b.md dir /x/"),
    copying("copy-directory", "COPY dir /x"),
    copying("copy-directory-slash", "COPY dir/ /x/"),
    copying("copy-everything", "COPY . /all"),
    copying(
        "copy-merge", "RUN mkdir -p /m/sub; echo old > /m/one.txt; echo k > /m/k", "COPY dir /m"
    ),
    copying("copy-star", "COPY *.txt /x/"),
    copying("copy-question", "COPY ?.txt /x/"),
    copying("copy-class", "COPY [ab].* /x/"),
    copying("copy-star-directory", "COPY d* /x/"),
    copying("copy-star-inside", "COPY dir/*.txt /x/"),
    copying("copy-json", 'COPY ["with space.txt", "/sp ace/"]'),
    copying("copy-escaped", 'COPY ["star[[]1].txt", "/x"]'),
    copying("copy-link", "COPY tolink /x"),
    copying("copy-link-in-directory", "COPY dir/link /x"),
    copying("copy-link-to-directory", "COPY todir /x"),
    copying("copy-links-kept", "COPY . /x/"),
    copying("copy-empty", "COPY empty /e", "COPY empty-dir /d"),
    copying("copy-chown", "COPY --chown=bob:extra a.txt /x", "COPY --chown=7 dir /d"),
    copying("copy-chown-numbers", "COPY --chown=5:6 dir /new/d/"),
    copying("copy-chown-group", "COPY --chown=:extra a.txt /x", peers=(BUILDAH,)),
    copying("copy-chmod", "COPY --chmod=751 a.txt dir /x/", peers=(BUILDAH,)),
    copying("copy-user", "USER bob", "WORKDIR /w", "COPY a.txt ."),
    copying(
        "copy-through-link", "RUN mkdir /real; ln -s /real /l", "COPY a.txt /l/", "COPY b.md /l/c"
    ),
    copying("copy-over-link", "RUN ln -s /etc/motd /l", "COPY a.txt /l"),
    copying("copy-over-file", "RUN echo old > /x; chmod 600 /x", "COPY a.txt /x"),
    copying("copy-variables", "ENV n=a d=/dest", "ARG e=txt", "COPY $n.${e} ${d}/"),
    copying("copy-same-twice", "COPY a.txt /x", "COPY b.md /x"),
    copying("copy-dot-slash", "COPY ./dir/./sub/../one.txt /x"),
    # ignore files
    Case(
        name="ignore-simple",
        dockerfile="FROM bb:1\nCOPY . /x/\n",
        files={**TREE, ".dockerignore": "*.md\n# comment\n\nempty*\n"},
    ),
    Case(
        name="ignore-exceptions",
        dockerfile="FROM bb:1\nCOPY . /x/\n",
        files={**TREE, ".dockerignore": "**\n!dir/sub\n!a.txt\n"},
    ),
    Case(
        name="ignore-deep",
        dockerfile="FROM bb:1\nCOPY . /x/\n",
        files={**TREE, ".dockerignore": "**/*.txt\n!dir/one.txt\n/dir/.hidden\n"},
    ),
    Case(
        name="ignore-order",
        dockerfile="FROM bb:1\nCOPY . /x/\n",
        files={
            **TREE,
            ".dockerignore": "!a.txt\n*.txt\ndir\n!dir/two.md\nDockerfile\n.dockerignore\n",
        },
    ),
    Case(
        name="ignore-classes",
        dockerfile="FROM bb:1\nCOPY . /x/\n",
        files={**TREE, ".dockerignore": "[a-b].*\ndir/?ub\n./empty/\n"},
    ),
    # archives
    Case(name="add-tar", dockerfile="FROM bb:1\nADD p.tar /u/\n", files=PACKED),
    Case(name="add-gzip", dockerfile="FROM bb:1\nADD p.tgz /u\n", files=PACKED),
    Case(name="add-xz", dockerfile="FROM bb:1\nADD p.txz /u/\n", files=PACKED),
    Case(name="add-bzip2", dockerfile="FROM bb:1\nADD p.tbz /u/\n", files=PACKED),
    Case(name="add-no-archive", dockerfile="FROM bb:1\nADD text.tar /u/\n", files=PACKED),
    Case(name="add-plain", dockerfile="FROM bb:1\nADD a.txt dir /u/\n", files=TREE),
    Case(name="copy-archive", dockerfile="FROM bb:1\nCOPY p.tgz /u/\n", files=PACKED),
    Case(
        name="add-over",
        dockerfile="FROM bb:1\nRUN mkdir -p /u/in; echo old > /u/in/one\nADD p.tar /u\n",
        files=PACKED,
    ),
    # stages
    Case(
        name="stages",
        dockerfile="FROM bb:1 AS one\nRUN mkdir /d; echo 1 > /d/1; chown 7:8 /d/1\nFROM bb:1\n"
        "COPY --from=one /d /e\nCOPY --from=0 /d/1 /f\n",
    ),
    Case(
        name="stage-from-stage",
        dockerfile="FROM bb:1 AS one\nENV a=1\nWORKDIR /w\nRUN echo 1 > 1\nFROM one\n"
        "RUN echo $a > 2\n",
    ),
    Case(
        name="stage-target",
        dockerfile="FROM bb:1 AS one\nENV a=1\nFROM bb:1 AS two\nENV b=2\nFROM two\nENV c=3\n",
        target="two",
    ),
    Case(
        name="stage-from-image",
        dockerfile="FROM scratch\nCOPY --from=bb:1 /etc/conf /conf\n",
    ),
    Case(
        name="stage-link-source",
        dockerfile="FROM bb:1 AS one\nRUN mkdir /d; echo x > /d/x; ln -s d /l; ln -s /d/x /m\n"
        "FROM bb:1\nCOPY --from=one /l/x /x\nCOPY --from=one /m /m\n",
    ),
    Case(
        name="stage-star",
        dockerfile="FROM bb:1 AS one\nRUN mkdir /d; echo x > /d/x; echo y > /d/y\n"
        "FROM bb:1\nCOPY --from=one /d/* /t/\n",
    ),
    Case(name="scratch", dockerfile='FROM scratch\nCOPY dir /\nCMD ["/x"]\n', files=TREE),
    Case(name="scratch-directory", dockerfile="FROM scratch\nCOPY dir /a/b\n", files=TREE),
    # triggers
    Case(
        name="onbuild",
        before="FROM bb:1\nONBUILD COPY a.txt /trig\nONBUILD RUN echo $HOME > /t\n"
        "ONBUILD ENV o=1\n",
        dockerfile="FROM parent:onbuild\nRUN cat /trig /t > /all\n",
        files=TREE,
    ),
    plain("onbuild-kept", "ONBUILD RUN echo a", "ONBUILD COPY . /x"),
    Case(
        name="onbuild-once",
        before="FROM bb:1\nONBUILD RUN echo x >> /n\n",
        dockerfile="FROM parent:onbuild-once AS m\nFROM m\nRUN cat /n > /o\n",
    ),
    Case(
        name="inherited",
        before="FROM bb:1\nENV a=1\nLABEL l=1\nEXPOSE 1\nVOLUME /v\nUSER bob\nWORKDIR /w\n"
        'CMD ["x"]\nSTOPSIGNAL 3\nHEALTHCHECK CMD true\n',
        dockerfile="FROM parent:inherited\nENV b=2\nLABEL m=2\nEXPOSE 2\nVOLUME /u\n",
    ),
    # mounts, which dockerd's classic builder has not
    Case(
        name="mount-bind",
        dockerfile="FROM bb:1\nRUN --mount=type=bind,source=dir,target=/m cat /m/one.txt > /o\n",
        files=TREE,
        peers=(BUILDAH,),
    ),
    Case(
        name="mount-from",
        dockerfile="FROM bb:1 AS a\nRUN echo x > /x\nFROM bb:1\n"
        "RUN --mount=from=a,target=/a cat /a/x > /o\n",
        peers=(BUILDAH,),
    ),
    Case(
        name="mount-tmpfs",
        dockerfile="FROM bb:1\nRUN --mount=type=tmpfs,target=/t touch /t/x; ls /t > /o\n",
        peers=(BUILDAH,),
    ),
    Case(
        name="mount-cache",
        dockerfile="FROM bb:1\nRUN --mount=type=cache,target=/c echo x > /c/x\n"
        "RUN --mount=type=cache,target=/c cat /c/x > /o\n",
        peers=(BUILDAH,),
    ),
    # what neither knows: the reference says what comes out
    Case(
        name="heredoc-run",
        dockerfile="FROM bb:1\nRUN <<E\necho 1 > /o\necho 2 >> /o\nE\n",
        peers=(),
        expect=("o 644 0:0 '1\\n2\\n'",),
    ),
    Case(
        name="heredoc-copy",
        dockerfile="FROM bb:1\nENV v=V\nCOPY <<A <<'B' /h/\n$v\nA\n$v\nB\n",
        peers=(),
        expect=("h/A 644 0:0 'V\\n'", "h/B 644 0:0 '$v\\n'"),
    ),
    Case(
        name="heredoc-tabs",
        dockerfile="FROM bb:1\nCOPY <<-E /x\n\t\ta\n\tb\n\tE\n",
        peers=(),
        expect=("x 644 0:0 'a\\nb\\n'",),
    ),
    Case(
        name="copy-parents",
        dockerfile="FROM bb:1\nCOPY --parents dir/sub/three.txt a.txt /p/\n"
        "COPY --parents ./dir/./sub /q/\n",
        files=TREE,
        peers=(),
        expect=(
            "p/dir/sub/three.txt 644 0:0 '3'",
            "p/a.txt 644 0:0 'A'",
            "q/sub/three.txt 644 0:0 '3'",
        ),
    ),
    Case(
        name="copy-exclude",
        dockerfile="FROM bb:1\nCOPY --exclude=**/*.txt --exclude=link dir /x/\n",
        files=TREE,
        peers=(),
        expect=(
            "x/two.md 644 0:0 '2'",
            "x/.hidden 644 0:0 'h'",
            "!x/one.txt",
            "!x/link",
            "!x/sub/three.txt",
        ),
    ),
    Case(
        name="copy-chmod-symbolic",
        dockerfile="FROM bb:1\nCOPY --chmod=u=rwX,go=rX dir /x\n",
        files=TREE,
        peers=(),
        expect=("x/one.txt 644 0:0 '1'", "x/sub 755 0:0 directory"),
    ),
    Case(
        name="arg-platform",
        dockerfile="FROM bb:1\nARG TARGETARCH\nARG TARGETOS\nRUN echo $TARGETOS > /o\n",
        peers=(),
        expect=("o 644 0:0 'linux\\n'",),
    ),
    Case(
        name="variable-modifiers",
        dockerfile="FROM bb:1\nARG s=foo.bar.baz\nENV a=${s#*.} b=${s##*.} c=${s%.*}\n"
        "ENV d=${s%%.*} e=${s//./-}\n"
        "RUN echo $a $b $c $d $e > /o\n",
        peers=(),
        expect=("o 644 0:0 'bar.baz baz foo.bar foo foo-bar-baz\\n'",),
    ),
)

# (peer, case, difference): what is meant to differ, and why. All three are patterns.
APART: tuple[tuple[str, str, str], ...] = (
    # buildah's CMD in shell form has the default shell whatever SHELL says.
    (BUILDAH, "shell", "config Cmd:*"),
    # Every port of a range, as dockerd has it; buildah keeps the range as one word.
    (BUILDAH, "expose", "config ExposedPorts:*"),
    # buildah makes the directories of VOLUME in the image; dockerd and BuildKit do not.
    (BUILDAH, "volume-*", "files *: None here, '755 0:0 directory' there"),
    (BUILDAH, "inherited", "files [uv]: None here, '755 0:0 directory' there"),
    # BuildKit cleans the path of a WORKDIR (system.NormalizeWorkdir); both peers keep the slash.
    ("*", "workdir-variable", "config WorkingDir: '/some/where' here, '/some/where/' there"),
    # buildah takes the backslash for the escape character whatever the directive says.
    (BUILDAH, "escape", "config Env:*"),
    # Directories on the way belong to --chown's owner, and that of WORKDIR to USER, in BuildKit.
    (DOCKER, "copy-chown-numbers", "files new: '755 5:6 directory' here, '755 0:0 directory' *"),
    (DOCKER, "copy-user", "files w: '755 1001:1002 directory' here, '755 0:0 directory' there"),
    (DOCKER, "inherited", "files w: '755 1001:1002 directory' here, '755 0:0 directory' there"),
    # A link at the target is followed, as dockerd and BuildKit do; buildah replaces it.
    (BUILDAH, "copy-over-link", "files *"),
    # buildah takes names that it found by a wildcard for wildcards again, and fails.
    (BUILDAH, "copy-star", "*"),
    (BUILDAH, "copy-escaped", "*"),
)
