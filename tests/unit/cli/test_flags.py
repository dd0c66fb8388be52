"""Flags are parsed as docker parses them, and refused with its sentences."""

from __future__ import annotations

import pytest

from sampan.cli.commands.ps import PS
from sampan.cli.commands.run import RUN
from sampan.cli.container_options import create_body, split_rootfs
from sampan.cli.flags import FlagError, HelpWanted, declared, parse
from sampan.cli.session import Failed


def run(*words):
    flags, rest = parse(RUN.options, list(words), interspersed=False)
    image, command = split_rootfs(flags, rest)
    return create_body(flags, image, command)


def test_flags_end_at_the_image():
    body = run("--rm", "-e", "A=b", "img", "sh", "-e", "--rm")
    assert body == {
        "Image": "img",
        "Cmd": ["sh", "-e", "--rm"],
        "Env": ["A=b"],
        "HostConfig": {"AutoRemove": True, "NetworkMode": "default"},
    }


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "64m"),
        ("-m64m",),
        ("-m=64m",),
        ("--memory", "64m"),
        ("--memory=64m",),
        ("--memory=67108864",),
        ("--memory", "64MiB"),
        ("--memory", "0.0625g"),
    ],
)
def test_one_value_has_many_spellings(words):
    assert run(*words, "img")["HostConfig"]["Memory"] == 64 << 20


def test_switches_stand_together():
    body = run("-itu", "5:6", "img")
    assert (body["Tty"], body["User"]) == (True, "5:6")


def test_two_dashes_end_the_flags():
    assert parse(PS.options, ["-a", "--", "-q"])[1] == ["-q"]


def test_flags_may_follow_arguments_elsewhere():
    values, words = parse(PS.options, ["x", "-a", "y", "--no-trunc=false"])
    assert words == ["x", "y"]
    assert values.on("all")
    assert not values.on("no-trunc")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--x"], "unknown flag: --x"),
        (["-Z"], "unknown shorthand flag: 'Z' in -Z"),
        (["-iZ"], "unknown shorthand flag: 'Z' in -iZ"),
        (["--memory"], "flag needs an argument: --memory"),
        (["-e"], "flag needs an argument: 'e' in -e"),
        (["--=x"], "bad flag syntax: --=x"),
        (
            ["--memory=abc"],
            'invalid argument "abc" for "-m, --memory" flag: invalid size: \'abc\'',
        ),
        (
            ["--cpus", "abc"],
            'invalid argument "abc" for "--cpus" flag: failed to parse abc as a rational number',
        ),
        (
            ["--pids-limit", "x"],
            (
                'invalid argument "x" for "--pids-limit" flag: '
                'strconv.ParseInt: parsing "x": invalid syntax'
            ),
        ),
        (
            ["--rm=maybe"],
            (
                'invalid argument "maybe" for "--rm" flag: '
                'strconv.ParseBool: parsing "maybe": invalid syntax'
            ),
        ),
        (
            ["--mount", "foo"],
            (
                'invalid argument "foo" for "--mount" flag: '
                "invalid field 'foo' must be a key=value pair"
            ),
        ),
        (
            ["--mount", "type=bind,src=/a"],
            'invalid argument "type=bind,src=/a" for "--mount" flag: target is required',
        ),
        (
            ["--ulimit", "x"],
            'invalid argument "x" for "--ulimit" flag: invalid ulimit argument: x',
        ),
    ],
)
def test_sentences_are_dockers(words, sentence):
    with pytest.raises(FlagError) as caught:
        run(*words, *(["img"] if len(words) > 1 or "=" in words[0] else []))
    assert str(caught.value) == sentence


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_is_seen_where_h_is_free(word):
    with pytest.raises(HelpWanted):
        parse(PS.options, [word])
    assert run("-h", "box", "img")["Hostname"] == "box"


def test_everything_about_the_host():
    host = run(
        "--cpus=1.5", "--cpuset-cpus=0-1", "-c", "512", "--pids-limit=-1", "--read-only",
        "--cap-add=SYS_TIME", "--cap-drop", "ALL", "--network=none", "-v", "/a:/b:ro",
        "--mount", "type=bind,source=/c,target=/d,readonly,bind-propagation=rslave",
        "--tmpfs", "/t:size=1m", "--ulimit", "nofile=10:20", "--restart", "on-failure:3",
        "--security-opt", "seccomp=unconfined", "--init", "--log-driver=none", "img",
    )["HostConfig"]  # fmt: skip
    assert host == {
        "Binds": ["/a:/b:ro"],
        "CapAdd": ["SYS_TIME"],
        "CapDrop": ["ALL"],
        "CpuShares": 512,
        "CpusetCpus": "0-1",
        "Init": True,
        "LogConfig": {"Type": "none", "Config": {}},
        "Mounts": [
            {
                "Type": "bind",
                "Source": "/c",
                "Target": "/d",
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rslave"},
            }
        ],
        "NanoCpus": 1_500_000_000,
        "NetworkMode": "none",
        "PidsLimit": -1,
        "ReadonlyRootfs": True,
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "SecurityOpt": ["seccomp=unconfined"],
        "Tmpfs": {"/t": "size=1m"},
        "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
    }


def test_rootfs_takes_the_place_of_the_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    body = run("--rootfs", "root:O", "sh", "-c", "x")
    assert (body["Rootfs"], body["Cmd"]) == (f"{tmp_path}/root:O", ["sh", "-c", "x"])
    assert "Image" not in body


def test_environment_comes_from_files_flags_and_ourselves(tmp_path, monkeypatch):
    (tmp_path / "env").write_text("# comment\nA=1\n\nB\nMISSING\n")
    monkeypatch.setenv("B", "from us")
    monkeypatch.delenv("MISSING", raising=False)
    body = run("--env-file", str(tmp_path / "env"), "-e", "C=", "img")
    assert body["Env"] == ["A=1", "B=from us", "C="]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--env-file", "/nope"], "open /nope: no such file or directory"),
        (["--label-file", "/nope"], "open /nope: no such file or directory"),
        (
            ["--security-opt", "seccomp=/nope"],
            "opening seccomp profile (/nope) failed: open /nope: no such file or directory",
        ),
        (
            ["--rm", "--restart", "always"],
            "conflicting options: cannot specify both --restart and --rm",
        ),
    ],
)
def test_contradictions_are_refused(words, sentence):
    with pytest.raises(Failed) as caught:
        run(*words, "img")
    assert str(caught.value) == sentence


def test_the_table_has_every_flag_that_the_issue_names():
    flags = declared(RUN.options)
    words = (
        "d i t rm name e env-file w u memory m cpus cpuset-cpus cpu-shares pids-limit read-only "
        "cap-add cap-drop network v volume mount entrypoint h hostname l restart stop-signal "
        "stop-timeout init tmpfs ulimit privileged security-opt pull platform cidfile "
        "detach-keys rootfs log-driver log-opt no-healthcheck"
    )
    assert set(words.split()) <= set(flags)
