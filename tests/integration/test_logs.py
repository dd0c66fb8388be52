"""Logs as a user sees them: drivers, options, rotation with compression, attributes."""

from __future__ import annotations

import gzip
import json
import os

import pytest

from enginelab import Lab, eventually, with_engine
from sampan.engine.engine import Engine
from sampan.engine.model import HostConfig, LogConfig, LogDriver, LogQuery, WaitCondition
from sampan.errors import NotImplementedHere

WRITE = "i=0; while [ $i -lt 3000 ]; do echo number $i of many lines; i=$((i+1)); done"


async def end(lab: Lab, engine: Engine, log: LogConfig, *command: str, **more: object) -> str:
    """A container that has run to its end; its id."""
    made = await engine.create(lab.config_of(*command, **more), HostConfig(log=log))
    ended = engine.arm_wait(made.id, WaitCondition.NEXT_EXIT)
    await engine.start(made.id)
    await ended
    return made.id


@with_engine
async def test_rotated_files_are_compressed_and_read(lab: Lab, engine: Engine) -> None:
    log = LogConfig(driver=LogDriver.LOCAL, max_size=30_000, max_file=5)
    ref = await end(lab, engine, log, "sh", "-c", WRITE)
    path = engine.get(ref).log_path
    folder = os.path.dirname(path)

    def is_settled() -> bool:
        """The child that compresses may not have begun yet when the container has ended."""
        names = os.listdir(folder)
        return any(name.endswith(".gz") for name in names) and not any(
            "packing" in name for name in names
        )

    await eventually(is_settled)
    for name in [name for name in os.listdir(folder) if name.endswith(".gz")]:
        with gzip.open(f"{folder}/{name}") as file:
            assert all(json.loads(line)["stream"] == "stdout" for line in file)
    lines = (await lab.output(engine, ref)).splitlines()
    first = int(lines[0].split()[1])
    assert first > 0
    assert lines == [f"number {number} of many lines" for number in range(first, 3000)]
    assert await lab.output(engine, ref, LogQuery(tail=1500)) == "\n".join(lines[-1500:]) + "\n"
    assert len(os.listdir(folder)) >= 5


@with_engine
async def test_records_carry_what_was_asked_for(lab: Lab, engine: Engine) -> None:
    log = LogConfig(labels=("^team$",), env=("^SHIP_",), tag="{{.Name}}/{{.ID}}")
    more = {"labels": {"team": "deck", "other": "x"}, "env": ("SHIP_NAME=junk", "HOME=/")}
    ref = await end(lab, engine, log, "echo", "one", **more)
    (record,) = [record async for record in engine.logs(ref)]
    tag = f"{engine.get(ref).name}/{ref[:12]}"
    assert record.attributes == {"team": "deck", "SHIP_NAME": "junk", "tag": tag}
    assert record.data == b"one\n"


@with_engine
async def test_a_hostile_line_is_one_record(lab: Lab, engine: Engine) -> None:
    """What looks like a record, an escape sequence or a line of a terminal is text."""
    forged = r'\r{"log":"no","stream":"stderr","time":"2001-01-01T00:00:00Z"}\033]0;x\007\303('
    ref = await end(lab, engine, LogConfig(tag="x"), "sh", "-c", f"printf '{forged}\\n'; echo end")
    records = [record async for record in engine.logs(ref)]
    assert [record.stream for record in records] == ["stdout", "stdout"]
    assert records[0].data.startswith(b'\r{"log":"no"')
    assert records[1].data == b"end\n"


@with_engine
async def test_without_a_log_nothing_is_kept(lab: Lab, engine: Engine) -> None:
    ref = await end(lab, engine, LogConfig(driver=LogDriver.NONE), "echo", "one")
    assert "container.log" not in os.listdir(engine.services.layout.container(ref))
    with pytest.raises(NotImplementedHere, match="does not support reading"):
        engine.logs(ref)
