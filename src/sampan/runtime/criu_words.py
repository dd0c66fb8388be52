"""The messages of CRIU's protocol (criu(8), `swrk`; images/rpc.proto), as far as they are needed.

They are protobuf, by hand: a field is its number and kind as a varint, then a varint, or a length
and as many bytes. Options have CRIU's names.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Value = bool | int | str | bytes | list[bytes] | list[str]
    Fields = Mapping[int, Value]

DUMP, RESTORE, PRE_DUMP, NOTIFY = 1, 2, 4, 6  # kinds of requests, and of answers
CGROUP_MODES = {"ignore": 0, "soft": 3, "full": 4, "strict": 5}

_KIND, _OPTIONS, _DONE = 1, 2, 3  # fields of a request
_SUCCESS, _RESTORED, _NOTICE, _MESSAGE = 2, 4, 5, 9  # fields of an answer
VARINT, BYTES = 0, 2  # kinds of fields
_FIXED = {1: 8, 5: 4}  # kinds of fields that are not needed, and their bytes
_LONGEST = 63  # bits of a varint
_NUMBERS = {
    "images_dir_fd": 1,
    "pid": 2,
    "leave_running": 3,
    "ext_unix_sk": 4,
    "tcp_established": 5,
    "evasive_devices": 6,
    "shell_job": 7,
    "file_locks": 8,
    "log_level": 9,
    "log_file": 10,
    "ps": 11,
    "notify_scripts": 12,
    "root": 13,
    "parent_img": 14,
    "track_mem": 15,
    "auto_dedup": 16,
    "work_dir_fd": 17,
    "link_remap": 18,
    "manage_cgroups": 24,
    "cg_root": 25,
    "rst_sibling": 26,
    "inherit_fd": 27,
    "manage_cgroups_mode": 34,
    "external": 37,
    "empty_ns": 38,
    "freeze_cgroup": 44,
    "tcp_skip_in_flight": 46,
    "lazy_pages": 48,
    "orphan_pts_master": 50,
    "config_file": 51,
    "lsm_profile": 53,
    "lsm_mount_context": 63,
}


def request(kind: int, options: Mapping[str, Value]) -> bytes:
    """A request of one kind."""
    fields = {_NUMBERS[name]: value for name, value in options.items()}
    return message({_KIND: kind, _OPTIONS: message(fields)})


def acknowledgement() -> bytes:
    """The answer to a notice: that it may go on."""
    return message({_KIND: NOTIFY, _DONE: True})


def page_server(address: str, port: int) -> bytes:
    """Where the pages go to."""
    return message({1: address, 2: port})


def inherited(name: str, fd: int) -> bytes:
    """A descriptor of CRIU's, in place of the file of that name."""
    return message({1: name, 2: fd})


def cgroup_root(controller: str, path: str) -> bytes:
    """The cgroup that those of a hierarchy are restored below."""
    return message({1: controller, 2: path})


class Answer:
    """What CRIU says.

    Raises:
        ValueError: it is no message of the protocol.
    """

    __slots__ = ("is_success", "kind", "notice", "pid", "said")

    def __init__(self, data: bytes) -> None:
        fields = decode(data)
        notice = decode(_raw(fields, _NOTICE))
        self.kind = _number(fields, _KIND)
        self.is_success = bool(_number(fields, _SUCCESS))
        self.said = _raw(fields, _MESSAGE).decode("utf-8", "replace")
        self.notice = _raw(notice, 1).decode("utf-8", "replace")
        restored = decode(_raw(fields, _RESTORED))
        self.pid = _number(notice, 2) or _number(restored, 1)


def message(fields: Fields) -> bytes:
    """Fields by their numbers, as protobuf; one field for each entry of a list."""
    parts = []
    for number, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int):
                parts.append(_varint(number << 3 | VARINT) + _varint(int(one)))
            else:
                content = one.encode() if isinstance(one, str) else one
                parts.append(_varint(number << 3 | BYTES) + _varint(len(content)) + content)
    return b"".join(parts)


def decode(data: bytes) -> dict[int, int | bytes]:
    """The fields of a message by their numbers, the last one where there are several.

    Raises ValueError for what is no message.
    """
    found: dict[int, int | bytes] = {}
    for number, kind, start, end in walk(data, 0, len(data)):
        if kind == VARINT:
            found[number] = _read(data, start)[0]
        elif kind == BYTES:
            found[number] = data[start:end]
    return found


def walk(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, kind, begin, end) of each field of the message that `data[at:end]` is.

    Raises ValueError for what is no message.
    """
    while at < end:
        key, at = _read(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            size = _read(data, at)[1] - at
        elif kind == BYTES:
            size, at = _read(data, at)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"field {number} is of the unknown kind {kind}")
        if at + size > end:
            raise ValueError(f"field {number} ends behind the message")
        yield number, kind, at, at + size
        at += size


def _varint(value: int) -> bytes:
    """Seven bits in each byte, the lowest first; the highest bit says that more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read(data: bytes, at: int) -> tuple[int, int]:
    """(a varint, where the next thing begins)."""
    value = 0
    for shift in range(0, _LONGEST + 1, 7):
        if at >= len(data):
            raise ValueError("the message ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")


def _raw(fields: dict[int, int | bytes], number: int) -> bytes:
    found = fields.get(number, b"")
    return found if isinstance(found, bytes) else b""


def _number(fields: dict[int, int | bytes], number: int) -> int:
    found = fields.get(number, 0)
    return found if isinstance(found, int) else 0
