"""Identifiers and names: how they are made, and which strings may be one.

A container id is 64 lower-case hexadecimal characters. A name follows Docker's grammar. Both become
parts of paths, so everything that comes from outside passes through here first: whatever is
accepted has no slash, no dot-dot and no control character. `re` is not used, to keep this
importable everywhere.
"""

from __future__ import annotations

from posix import urandom

ID_LENGTH = 64
SHORT_ID_LENGTH = 12
MAX_NAME_LENGTH = 255

_HEX = frozenset("0123456789abcdef")
_ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME_REST = _ALPHANUMERIC | frozenset("_.-")

_ADJECTIVES = (
    "amber bold brave bright brisk calm clear clever cosy deft eager early fair fleet fond fresh "
    "gentle "
    "glad golden grand happy hardy honest jolly keen kind lively lucky mellow merry modest neat "
    "nimble "
    "noble patient placid plucky polite proud quick quiet ready serene sharp silent sleek smooth "
    "snug "
    "steady still stout sturdy sunny swift tidy tranquil trusty upbeat vivid warm wise witty"
).split()
_BOATS = (
    "ark barge bark barque canoe caravel carrack catamaran catboat clipper coble coracle cutter "
    "dhow "
    "dinghy dory dugout felucca ferry frigate galleon galley gondola hoy hulk jolly junk kayak "
    "keel "
    "ketch launch lighter lugger outrigger packet pilot pinnace pirogue proa punt raft schooner "
    "scow "
    "scull shallop skiff sloop smack sprit tender trawler trimaran tug wherry xebec yacht yawl"
).split()


def new_id() -> str:
    """A random id of 64 hexadecimal characters."""
    return urandom(ID_LENGTH // 2).hex()


def new_name() -> str:
    """A random readable name, `adjective_boat`; the caller sees to it that it is free."""
    first, second = urandom(2)
    return f"{_ADJECTIVES[first % len(_ADJECTIVES)]}_{_BOATS[second % len(_BOATS)]}"


def is_id(text: str) -> bool:
    """Whether `text` is a whole container id."""
    return len(text) == ID_LENGTH and _HEX.issuperset(text)


def short_id(full: str) -> str:
    """The 12 characters that people read."""
    return full[:SHORT_ID_LENGTH]


def check_name(name: str, kind: str = "container") -> str:
    """Return `name` when it may name a container, or what `kind` says.

    Raises:
        InvalidArgument: it is empty, too long, or has a character outside of [a-zA-Z0-9_.-].
    """
    good = (
        2 <= len(name) <= MAX_NAME_LENGTH
        and name[0] in _ALPHANUMERIC
        and _NAME_REST.issuperset(name)
    )
    if not good:
        from sampan.errors import InvalidArgument

        raise InvalidArgument(
            f"Invalid {kind} name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, "
            f"2 to {MAX_NAME_LENGTH} characters"
        )
    return name


def check_container_id(text: str) -> str:
    """Return `text` when it may be the id of a container of the low-level runtime.

    Raises:
        InvalidArgument: it could not be one path component, as runc's rule has it ([\\w+-.], not .
        or ..).
    """
    good = (
        0 < len(text) <= 1024 and (_NAME_REST | {"+"}).issuperset(text) and text not in (".", "..")
    )
    if not good:
        from sampan.errors import InvalidArgument

        raise InvalidArgument(f"invalid container id {text!r}: only [a-zA-Z0-9_+.-] are allowed")
    return text
