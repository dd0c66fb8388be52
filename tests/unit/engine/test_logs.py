from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from sampan.engine.containers import Wait
from sampan.engine.logs import PIECE, LogReader
from sampan.engine.model import LogQuery, LogRecord, WaitCondition, WaitResult
from sampan.shim import rotation

if TYPE_CHECKING:
    from pathlib import Path

BASE = 1_700_000_000


def line(number: int, stream: str = "stdout", text: str | None = None) -> str:
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(BASE + number))
    entry = {"log": text or f"line {number}\n", "stream": stream, "time": f"{clock}.000000005Z"}
    return json.dumps(entry) + "\n"


def read(path: Path, **query) -> list[LogRecord]:
    async def main() -> list[LogRecord]:
        return [record async for record in LogReader(str(path)).read(LogQuery(**query))]

    return asyncio.run(main())


def numbers(records: list[LogRecord]) -> list[int]:
    return [int(record.data.split()[1]) for record in records]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Three files of ten records each; every fifth is of stderr."""
    path = tmp_path / "container.log"
    for index, name in enumerate(("container.log.2", "container.log.1", "container.log")):
        lines = [
            line(n, "stderr" if n % 5 == 0 else "stdout")
            for n in range(index * 10, index * 10 + 10)
        ]
        (tmp_path / name).write_text("".join(lines))
    return path


def test_oldest_first_over_all_files(log: Path):
    records = read(log)
    assert numbers(records) == list(range(30))
    assert records[0] == LogRecord("stderr", BASE * 10**9 + 5, b"line 0\n")


def test_streams_and_times(log: Path):
    assert numbers(read(log, stdout=False)) == [0, 5, 10, 15, 20, 25]
    assert numbers(read(log, stdout=False, stderr=False)) == []
    since, until = ((BASE + n) * 10**9 + 5 for n in (8, 12))
    assert numbers(read(log, since=since, until=until)) == [8, 9, 10, 11, 12]


def test_tail_counts_only_what_is_wanted(log: Path):
    assert numbers(read(log, tail=3)) == [27, 28, 29]
    assert numbers(read(log, tail=14)) == list(range(16, 30))
    assert numbers(read(log, tail=1000)) == list(range(30))
    assert numbers(read(log, tail=0)) == []
    assert numbers(read(log, tail=3, stdout=False)) == [15, 20, 25]
    assert numbers(read(log, tail=2, until=(BASE + 12) * 10**9 + 5)) == [11, 12]


def test_tail_of_a_file_of_many_pieces(tmp_path: Path):
    path = tmp_path / "container.log"
    count = 3 * PIECE // len(line(10**6))
    path.write_text("".join(line(n) for n in range(count)))
    tail = count - count // 4
    assert numbers(read(path, tail=tail)) == list(range(count - tail, count))


def test_no_log_yet(tmp_path: Path):
    assert read(tmp_path / "container.log") == []


def test_what_is_no_record_is_passed_over(tmp_path: Path):
    path = tmp_path / "container.log"
    hostile = ("garbage\n", "{}\n", '{"log":5}\n', "\0\n", '{"log":"a","stream":"s","time":"x"}\n')
    path.write_text(line(1) + "".join(hostile) + "x" * (2 * PIECE) + "\n" + line(2) + line(3)[:-9])
    assert numbers(read(path)) == [1, 2]
    assert numbers(read(path, tail=2)) == [1, 2]
    assert numbers(read(path, tail=1)) == [2]


def test_two_records_in_a_line_are_none(tmp_path: Path):
    path = tmp_path / "container.log"
    path.write_text(line(1) + line(2).rstrip("\n") + line(3) + line(4))
    assert numbers(read(path)) == [1, 4]


def test_a_record_in_a_line_does_not_become_another(tmp_path: Path):
    path = tmp_path / "container.log"
    forged = line(9, "stderr")
    path.write_text(line(1, text=f"line 1 {forged}"))
    [record] = read(path)
    assert record.stream == "stdout"
    assert record.data.decode() == f"line 1 {forged}"


def test_follow_goes_on_through_rotation(tmp_path: Path):
    path = tmp_path / "container.log"

    async def main() -> list[int]:
        end = Wait(WaitCondition.NOT_RUNNING)
        got: list[int] = []
        async for record in LogReader(str(path), end).read(LogQuery(follow=True)):
            got.append(int(record.data.split()[1]))
            write(got[-1] + 1, end)
        return got

    def write(number: int, end: Wait) -> None:
        if number == 50:
            end.resolve(WaitResult(exit_code=0))
            return
        if number % 7 == 0:
            if os.path.exists(f"{path}.1"):
                os.rename(f"{path}.1", f"{path}.2")
            os.rename(path, f"{path}.1")
        with path.open("a") as file:
            file.write(line(number))

    path.write_text(line(0))
    assert asyncio.run(main()) == list(range(50))


def test_follow_of_a_log_that_is_not_there_ends_with_the_container(tmp_path: Path):
    async def main() -> list[LogRecord]:
        end = Wait(WaitCondition.NOT_RUNNING)
        reader = LogReader(str(tmp_path / "container.log"), end)
        asyncio.get_running_loop().call_soon(end.resolve, WaitResult(exit_code=0))
        return [record async for record in reader.read(LogQuery(follow=True))]

    assert asyncio.run(main()) == []


def rotate(path: Path) -> None:
    """As the shim does: the elders first, then the log itself."""
    count = 1
    while path.with_name(f"{path.name}.{count}").exists():
        count += 1
    for number in range(count, 1, -1):
        os.rename(f"{path}.{number - 1}", f"{path}.{number}")
    os.rename(path, f"{path}.1")


def test_a_file_is_found_in_the_middle_of_a_rotation(tmp_path: Path):
    path = tmp_path / "container.log"
    path.write_text(line(2))
    (tmp_path / "container.log.2").write_text(line(1))
    (tmp_path / "container.log.3").write_text(line(0))
    assert numbers(read(path)) == [0, 1, 2]


def test_follow_loses_nothing_of_a_log_that_rotates_all_the_time(tmp_path: Path):
    path = tmp_path / "container.log"
    total = 2000

    async def main() -> list[LogRecord]:
        end = Wait(WaitCondition.NOT_RUNNING)

        def write() -> None:
            for number in range(total):
                with path.open("a") as file:
                    file.write(line(number))
                if number % 20 == 19:
                    rotate(path)

        writing = asyncio.create_task(asyncio.to_thread(write))
        writing.add_done_callback(lambda _: end.resolve(WaitResult(exit_code=0)))
        reader = LogReader(str(path), end)
        records = [record async for record in reader.read(LogQuery(follow=True))]
        await writing
        return records

    assert numbers(asyncio.run(main())) == list(range(total))


def packed(path: Path) -> None:
    """As the shim does: the inode's number in the header, then the plain file goes."""
    inode = path.stat().st_ino
    target = os.open(f"{path}.gz", os.O_WRONLY | os.O_CREAT)
    source = os.open(path, os.O_RDONLY)
    rotation.deflate(source, target, f"container.log.{inode}".encode())
    os.close(source)
    os.close(target)
    path.unlink()


def test_packed_files_are_read_in_order(log: Path):
    packed(log.with_name("container.log.2"))
    packed(log.with_name("container.log.1"))
    assert numbers(read(log)) == list(range(30))
    assert numbers(read(log, tail=15)) == list(range(15, 30))


def test_a_reader_finds_its_place_when_its_file_is_packed(log: Path):
    async def main() -> list[int]:
        seen = []
        async for record in LogReader(str(log)).read(LogQuery()):
            seen += numbers([record])
            if len(seen) == 3:
                packed(log.with_name("container.log.2"))
            if len(seen) == 13:
                packed(log.with_name("container.log.1"))
        return seen

    assert asyncio.run(main()) == list(range(30))


def test_a_damaged_packed_file_ends_where_it_is_damaged(log: Path):
    packed(log.with_name("container.log.2"))
    path = log.with_name("container.log.2.gz")
    path.write_bytes(path.read_bytes()[:60])
    assert numbers(read(log))[-20:] == list(range(10, 30))
