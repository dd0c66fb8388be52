"""Builds end to end: what instructions make, seen from inside of the image."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from pathlib import Path

import pytest

from buildlab import BuildLab, context, once, with_builder
from enginelab import eventually
from sampan.builder.failures import CommandFailed
from sampan.builder.language.failure import DockerfileError
from sampan.builder.model import BuildOptions, NoteKind
from sampan.engine.model import HostConfig
from sampan.errors import InvalidArgument, SampanError


def holders(path, secret):
    """The files below `path` that hold `secret`."""
    found = []
    for folder, _, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            if os.path.isfile(file) and secret in Path(file).read_bytes():
                found.append(file)
    return found


FILES = {
    "f": "hello",
    "d": None,
    "d/a.txt": "A",
    "d/b.md": "B",
    "d/l": ("link", "a.txt"),
    "x1": "1",
}


@with_builder
async def test_a_build_makes_files_and_a_config(lab: BuildLab) -> None:
    result = await lab.build(
        "FROM bb:1\nARG X=1\nENV P=q\nRUN echo hi $X $P > /hi\nCOPY f /f\nCOPY d /d\nCOPY x* /w/\n"
        'WORKDIR /w/sub\nUSER bob\nEXPOSE 80\nLABEL a=b\nCMD ["cat", "/hi"]\n',
        FILES,
        args={"X": "2"},
    )
    config = result.image.config.config
    assert await lab.run("/bin/cat", "/hi") == "hi 2 q\n"
    assert await lab.sh("cat /f /d/l /w/x1; pwd; id -u") == "helloA1/w/sub\n1001\n"
    assert config.cmd == ("cat", "/hi")
    assert config.exposed_ports == ("80/tcp",)
    assert config.labels == {"a": "b"}
    assert result.image.names == ("t:1",)
    assert result.cached == 0


@with_builder
async def test_the_same_again_is_cached_whatever_the_times_are(lab: BuildLab) -> None:
    text = "FROM bb:1\nRUN echo x > /x\nCOPY f /f\n"
    first = await lab.build(text, FILES)
    tar = context({"Dockerfile": text, **FILES}, mtime=1_700_000_000, uid=5)
    again = await lab.builder.build(once(tar), BuildOptions(host=HostConfig()), lab.notes.append)
    assert again.cached == again.steps == 2
    assert again.image.id == first.image.id
    changed = await lab.build(text, {**FILES, "f": "other"})
    assert changed.cached == 1
    assert await lab.run("/bin/cat", "/f") == "other"


@with_builder
async def test_the_same_inputs_give_the_same_image(lab: BuildLab) -> None:
    text = "FROM bb:1\nRUN echo x > /x; mkdir /y; echo z > /y/z\nCOPY d /d\nWORKDIR /w\n"
    first = await lab.build(text, FILES)
    again = await lab.build(text, FILES, no_cache=True)
    assert again.cached == 0
    assert again.image.target.digest == first.image.target.digest
    pinned = await lab.build(text, FILES, no_cache=True, epoch=1000)
    assert pinned.image.created == "1970-01-01T00:16:40Z"


@with_builder
async def test_stages(lab: BuildLab) -> None:
    result = await lab.build(
        "ARG B=bb:1\nFROM $B AS one\nRUN echo 1 > /one\nFROM $B AS unused\nRUN false\n"
        "FROM $B AS two\nRUN echo 2 > /two\nFROM one AS last\nCOPY --from=two /two /two\n"
        "COPY --from=0 /one /again\nCOPY --from=bb:1 /etc/passwd /pw\n"
    )
    assert await lab.sh("cat /one /two /again; grep -c root /pw") == "1\n2\n1\n1\n"
    assert result.steps == 5
    assert "unused" not in {note.stage for note in lab.notes}
    one = await lab.build(
        "FROM bb:1 AS one\nRUN echo 1 > /one\nFROM one\nRUN false\n", target="one"
    )
    assert one.image.names == ("t:1",)
    with pytest.raises(InvalidArgument, match="did you mean one"):
        await lab.build("FROM bb:1 AS one\n", target="ones")


@with_builder
async def test_here_documents(lab: BuildLab) -> None:
    await lab.build(
        "FROM bb:1\nENV V=v\nRUN <<E\necho one > /one\necho two > /two\nE\n"
        "RUN cat <<E > /three && echo ok\n$V\nE\nCOPY <<A <<'B' /h/\n$V\nA\n$V\nB\n"
        "RUN <<E\n#!/bin/sh -e\necho $0 > /four\nE\n"
    )
    assert await lab.sh("cat /one /two /three /h/A /h/B") == "one\ntwo\nv\nv\n$V\n"
    assert "script" in await lab.sh("cat /four")


@with_builder
async def test_mounts_of_a_command(lab: BuildLab) -> None:
    await lab.build(
        "FROM bb:1\n"
        "RUN --mount=type=secret,id=s cat /run/secrets/s > /dev/null && ls /run\n"
        "RUN --mount=type=secret,id=s,env=T echo got ${T:+it}\n"
        "RUN --mount=type=cache,target=/c,id=k echo x >> /c/n; cat /c/n\n"
        "RUN --mount=type=cache,target=/c,id=k cat /c/n; echo y >> /c/n\n"
        "RUN --mount=type=bind,source=d,target=/b cat /b/a.txt; ! touch /b/x 2>/dev/null\n"
        "RUN --mount=target=/ctx,rw cat /ctx/f; touch /ctx/new\n"
        "RUN --mount=type=tmpfs,target=/t touch /t/x\n",
        FILES,
        secrets={"s": b"hush-4711"},
    )
    assert lab.output == "secrets\ngot it\nx\nx\nAhello"
    assert await lab.sh("ls -d /c /b /ctx /t /run 2>/dev/null") == ""
    assert holders(lab.lab.path, b"hush-4711") == []


@with_builder
async def test_what_a_failed_step_leaves(lab: BuildLab) -> None:
    text = "FROM bb:1\nRUN echo x > /x\nRUN exit 7\n"
    with pytest.raises(CommandFailed, match="'/bin/sh -c exit 7' returned a non-zero code: 7"):
        await lab.build(text)
    assert {name for image in await lab.engine.images.list() for name in image.names} == {"bb:1"}
    result = await lab.build(text.replace("exit 7", "true"))
    assert result.cached == 1


@with_builder
async def test_a_cancelled_build_kills_its_command(lab: BuildLab) -> None:
    for moment in (NoteKind.RUNNING, NoteKind.OUTPUT):
        await cancelled_at(lab, moment)
    assert lab.engine.list(all=True, owner="builder") == []


async def cancelled_at(lab: BuildLab, moment: NoteKind) -> None:
    task = asyncio.create_task(lab.build("FROM bb:1\nRUN echo on; sleep 1000\n"))
    await eventually(lambda: any(note.kind is moment for note in lab.notes))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@with_builder
async def test_copies(lab: BuildLab) -> None:
    files = {
        "a/1.txt": "1",
        "a/2.md": "2",
        "a/sub/3.txt": "3",
        "run.sh": "#!/bin/sh\n",
        "hard": ("hard", "run.sh"),
        "to-dir": ("link", "a/sub"),
        ".dockerignore": "Dockerfile\n",
    }
    await lab.build(
        "FROM bb:1\nCOPY . /all/\nCOPY a /c\nCOPY --chown=bob:extra --chmod=750 run.sh /bin/r\n"
        "COPY --parents a/sub/3.txt a/1.txt /p/\nCOPY --exclude=*.md a /e\nCOPY to-dir /linked\n"
        'COPY ["a/1.txt", "/with space/"]\nWORKDIR /w\nCOPY a/1.txt x\nCOPY a/?.txt ./\n'
        "COPY a/1.txt run.sh /many/\n",
        files,
    )
    found = await lab.sh(
        "cd /; ls all; echo; ls c; echo; ls p/a p/a/sub e e/sub; cat linked/3.txt;"
        "ls '/with space' /w /many; cat /w/x"
    )
    assert "Dockerfile" not in found
    assert found.splitlines()[:5] == ["a", "hard", "run.sh", "to-dir", ""]
    assert "2.md" not in found.split("e:")[1].split("e/sub")[0]
    assert found.endswith("1")


@with_builder
async def test_add_unpacks_archives(lab: BuildLab) -> None:
    inner = context({"in/one": "1", "in/link": ("link", "one"), "in/hard": ("hard", "in/one")})
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        entry = tarfile.TarInfo("z")
        entry.uid, entry.size, entry.mode = 1001, 1, 0o600
        tar.addfile(entry, io.BytesIO(b"z"))
    files = {"i.tar": inner, "p.tgz": packed.getvalue(), "no.tar": "text"}
    await lab.build(
        "FROM bb:1\nADD i.tar p.tgz /u/\nADD no.tar /n\nCOPY i.tar /copied\n"
        "ADD --unpack=false i.tar /k\n",
        files,
    )
    assert await lab.sh("cat /u/in/link /u/in/hard /u/z /n; ls /copied /k") == (
        "11ztext/copied\n/k\n"
    )


@with_builder
async def test_links_of_an_image_stay_inside_of_it(lab: BuildLab) -> None:
    await lab.build(
        "FROM bb:1\nRUN busybox ln -s /etc /abs; busybox ln -s ../../../../etc /rel; "
        "busybox ln -s /nowhere/x /dangling\nCOPY f /abs/f1\nCOPY f /rel/f2\nCOPY f /dangling\n",
        FILES,
    )
    assert await lab.sh("cat /etc/f1 /etc/f2 /nowhere/x") == "hellohellohello"
    assert not Path("/etc/f1").exists()  # noqa: ASYNC240
    assert not Path("/nowhere").exists()  # noqa: ASYNC240


@with_builder
async def test_triggers_run_in_the_next_build(lab: BuildLab) -> None:
    await lab.build("FROM bb:1\nONBUILD COPY f /f\nONBUILD RUN echo t > /t\n", tags=("base:1",))
    result = await lab.build("FROM base:1\nRUN cat /f /t\n", FILES)
    assert lab.output == "hellot\n"
    assert result.image.config.config.on_build == ()


@with_builder
async def test_a_cache_travels_as_an_image(lab: BuildLab) -> None:
    text = (
        "FROM bb:1 AS one\nRUN echo 1 > /one\nRUN true\nCOPY f /f\n"
        "FROM bb:1\nCOPY --from=one /one /two\nRUN cat /two > /three\n"
    )

    async def forget() -> None:
        await lab.builder.prune()
        await lab.engine.images.remove("t:1", force=True)
        await lab.builder.prune()

    first = await lab.build(text, FILES, cache_to=("c:min",), cache_inline=True)
    assert first.cache_names == ("c:min",)
    await lab.engine.images.tag("t:1", "inline:1")
    everything = await lab.build(text, FILES, cache_to=("c:max",), cache_every_stage=True)
    assert set(everything.cache_names) == {"c:max", "c:max-stage-0", "c:max-stage-1"}
    for source, cached in (("c:min", 2), ("c:max", 5), ("inline:1", 2), ("bb:1", 0), ("no:1", 0)):
        await forget()
        again = await lab.build(text, FILES, cache_from=(source,))
        assert (source, again.cached) == (source, cached)
        assert again.image.config == first.image.config
    assert any("cache of no:1 is not used" in warning for warning in again.warnings)
    assert await lab.sh("cat /three") == "1\n"


@with_builder
async def test_squash_makes_one_layer(lab: BuildLab) -> None:
    text = (
        "FROM bb:1\nRUN echo big > /big; echo k > /kept; rm /bin/yes\nCOPY d /d\n"
        "RUN rm /big; rm -r /d; mkdir /d; echo n > /d/new\n"
    )
    plain = await lab.build(text, FILES)
    result = await lab.build(text, FILES, squash=True)
    base = await lab.engine.images.get("bb:1")
    assert len(plain.image.layers) == len(base.layers) + 3
    assert len(result.image.layers) == len(base.layers) + 1
    assert result.image.layers[:-1] == base.layers
    assert (
        await lab.sh("ls /d; cat /kept /d/new; ls /big /bin/yes 2>/dev/null; true") == "new\nk\nn\n"
    )
    layers = [line for line in result.image.config.history if not line.empty_layer]
    assert len(layers) == len(result.image.layers)
    again = await lab.build(text, FILES, squash=True)
    assert again.image.id == result.image.id
    scratch = await lab.build("FROM scratch\nCOPY f /f\nCOPY d /d\n", FILES, squash=True)
    assert len(scratch.image.layers) == 1


def test_mistakes_change_nothing(tmp_path):
    cases = {
        "FROM bb:1\nCOPY nothing /\n": "file not found in build context",
        "FROM bb:1\nCOPY ../x /\n": "forbidden path outside the build context",
        "FROM bb:1\nCOPY no* /\n": "no source files were specified",
        "FROM bb:1\nCOPY f d /x\n": "must be a directory and end with a /",
        "FROM bb:1\nCOPY --chown=nobody2 f /\n": "no such user",
        "FROM bb:1\nCOPY --chmod=9 f /\n": "invalid chmod",
        "FROM bb:1\nRUN --security=insecure true\n": "not allowed",
        "FROM bb:1\nRUN --network=host true\n": "not allowed",
        "FROM bb:1\nRUN --mount=type=secret,id=no,required true\n": "secret no: not found",
        "FROM bb:1\nRUN --mount=type=bnd,target=/x true\n": "did you mean bind",
        "FROM bb:1\nADD https://example.com/x.git#--upload-pack=x /x\n": "invalid ref",
        "FROM bb:1\nSTOPSIGNAL NOPE\n": "invalid signal",
        "FROM bb:1\nEXPOSE 99999999\n": "invalid containerPort",
        'FROM bb:1\nENV a="${b:?must be}"\n': "b: must be",
        "FROM ${none}\n": "should not be blank",
        "FROM ..\n": "invalid reference",
        "FROM bb:1\nCOPY f /etc\nCOPY d /etc/passwd\n": "not a directory",
    }

    @with_builder
    async def check(lab: BuildLab) -> None:
        for dockerfile, said in cases.items():
            with pytest.raises(SampanError, match=said):
                await lab.build(dockerfile, FILES)
        with pytest.raises(DockerfileError, match="Dockerfile:2:1"):
            await lab.build("FROM bb:1\nRNU x\n")
        with pytest.raises(InvalidArgument, match="Cannot locate"):
            await lab.builder.build(once(context({})), BuildOptions(), lab.notes.append)
        images = await lab.engine.images.list()
        assert [image.names for image in images] == [("bb:1",)]

    check(tmp_path)


@with_builder
async def test_what_a_stage_gives_is_known_by_its_files(lab: BuildLab) -> None:
    noise = "head -c 8 /dev/urandom | busybox od -An -tx1"
    text = (
        f"FROM bb:1 AS made\nRUN {noise} > /m; echo same > /s; busybox chown 7 /s\n"
        "FROM bb:1\nCOPY --from=made /m /m\nCOPY --from=made /s /s\n"
        "RUN --mount=type=bind,from=made,source=/m,target=/b cat /b > /c\n"
        "RUN --mount=type=bind,from=made,source=/s,target=/b cat /b > /d\n"
    )
    await lab.build(text)
    first = await lab.sh("cat /m /c")
    again = await lab.build(text, no_cache_filter=("made",))
    second = await lab.sh("cat /m /c")
    assert second != first
    assert len(set(second.splitlines())) == 1
    assert again.cached == 0  # each stands on one that is new
    await lab.build("FROM bb:1 AS other\nRUN echo same > /s; busybox chown 7 /s\n" + text)
    whole = await lab.build(text.replace("COPY --from=made /m /m\n", ""))
    changed = text.replace("COPY --from=made /m /m\n", "").replace("echo same", "true; echo same")
    cached = await lab.build(changed)
    assert (whole.cached, cached.cached) == (1, 1)  # another command, and the same file /s
    owned = await lab.build(changed.replace("chown 7", "chown 8"))
    assert owned.cached == 0
