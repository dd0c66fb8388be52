"""`sampan explain`: why a container ended, or could not be started, in sentences."""

from __future__ import annotations

import json

from sampan.cli.diagnosis import examine, explain
from sampan.cli.session import Command, Refused, Session
from sampan.client import calls
from sampan.client.container_calls import archive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values

_HEAD = 8192
_JOURNAL = 1 << 20
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BLOCK = 512


def tell(session: Session, _: Values, refs: list[str]) -> int:
    code = 0
    for ref in refs:
        try:
            document = session.call(calls.inspect(ref))
        except Refused as error:
            session.error(str(error))
            code = 1
            continue
        name = document["Name"].lstrip("/")
        sentences = [*explain(document), *_program(session, document), *_drops(document)]
        session.out(f"{name}: " + " ".join(sentences))
    return code


def _drops(document: dict[str, Any]) -> list[str]:
    """What is missing in its log; known where the engine's files can be read."""
    journal = (document.get("LogPath") or "") + ".drops"
    try:
        with open(journal, encoding="ascii") as file:
            entries = [json.loads(line) for line in file.read(_JOURNAL).split("\n")[:-1]]
    except (OSError, ValueError):
        return []
    count = sum(entry["dropped"] for entry in entries)
    last = entries[-1] if entries else {"reason": "", "time": ""}
    return [f"{count} records of its log were dropped, until {last['time']}: {last['reason']}."]


def _program(session: Session, document: dict[str, Any]) -> list[str]:
    """What is wrong with the program, where it could not be executed."""
    if document["State"]["ExitCode"] not in (126, 127):
        return []
    container = document["Id"]

    def exists(path: str) -> bool:
        return _head(session, container, path) is not None

    for path in _candidates(document):
        head = _head(session, container, path)
        if head is not None:
            return examine(path, head, exists)
    return [f"There is no {document['Path']} in it."]


def _candidates(document: dict[str, Any]) -> list[str]:
    command = document["Path"]
    if "/" in command:
        directory = document["Config"].get("WorkingDir") or "/"
        return [command if command.startswith("/") else f"{directory}/{command}"]
    search = _PATH
    for entry in document["Config"].get("Env") or ():
        if entry.startswith("PATH="):
            search = entry[5:]
    return [f"{directory}/{command}" for directory in search.split(":")]


def _head(session: Session, container: str, path: str, depth: int = 0) -> bytes | None:
    """The beginning of a file in the container, through links; None when it is not there."""
    try:
        answer = session.client.open(archive(container, path))
    except Refused:
        return None
    data = b""
    try:
        for piece in answer.pieces():
            data += piece
            if len(data) >= _BLOCK + _HEAD:
                break
    finally:
        answer.close()
    if data[156:157] == b"2" and depth < 8:  # a link: its target stands in the header
        target = data[157:257].rstrip(b"\0").decode("utf-8", "replace")
        whole = target if target.startswith("/") else f"{path.rpartition('/')[0]}/{target}"
        return _head(session, container, whole, depth + 1)
    return data[_BLOCK : _BLOCK + _HEAD]


EXPLAIN = Command(
    tell,
    "CONTAINER [CONTAINER...]",
    "Say in sentences why a container ended",
    least=1,
)
