"""Sentences about the end of containers, and about programs that could not be executed."""

from __future__ import annotations

import struct

import pytest

from sampan.cli import diagnosis
from sampan.cli.commands import completion


def document(code=0, status="exited", memory=0, **state):
    state = {"Status": status, "ExitCode": code, "Error": "", **state}
    return {"State": state, "HostConfig": {"Memory": memory}, "RestartCount": 0}


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (document(), "by itself, successfully"),
        (document(3), "by itself with 3"),
        (document(137), "SIGKILL (137)"),
        (document(139), "SIGSEGV"),
        (document(137, OOMKilled=True, memory=64 << 20), "memory limit of 64 MiB"),
        (document(127), "not found (127)"),
        (document(126), "could not be executed"),
        (document(status="created"), "never been started"),
        (document(status="created", Error="no such device"), "no such device"),
        (document(status="running", Pid=7), "process 7"),
    ],
)
def test_ends(state, sentence):
    assert sentence in " ".join(diagnosis.explain(state))


def elf(machine=62, loader=b"/lib/ld.so\0"):
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01", 2, machine, 1, 0, 64, 0, 0, 64, 56,
                       1, 0, 0, 0)  # fmt: skip
    segment = struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(loader), len(loader), 1)
    return head + segment + loader


def test_programs(monkeypatch):
    monkeypatch.setattr(diagnosis.os, "uname", lambda: type("U", (), {"machine": "x86_64"}))

    def look(head, *there):
        return " ".join(diagnosis.examine("/x", head, lambda path: path in there))

    assert "carriage return" in look(b"#!/bin/sh\r\necho\r\n", "/bin/sh")
    assert "interpreter /bin/bash" in look(b"#!/bin/bash -e\n")
    assert look(b"#!/bin/sh\n", "/bin/sh") == ""
    assert "for arm64, and this host is amd64" in look(elf(183))
    assert "loader /lib/ld.so" in look(elf())
    assert look(elf(), "/lib/ld.so") == ""
    assert "neither an ELF program" in look(b"hello")


def test_every_command_is_completed():
    paths = [path for path, _, _ in completion.table()]
    assert {"run", "volume rm", "container ls"} <= set(paths)
    for made in (completion._bash(), completion._zsh(), completion._fish()):
        assert "--health-cmd" in made or "-l health-cmd" in made
