"""Digests: the names of content.

A digest is `algorithm:hex`. It becomes a path in the content store and a part of URLs, so there is
one way in: `Digest.parse` accepts the three SHA-2 algorithms of the OCI image specification with
exactly their number of lower-case hexadecimal characters and nothing else; `Digest.of` and
`Digester` make digests from bytes. A `Digest` is a `str`, so that it can be a key, a column and a
JSON value without conversion.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from sampan.errors import InvalidArgument

_GRAMMAR: Final = re.compile(
    r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}", re.ASCII
)
SHORT_LENGTH: Final = 12


class Digest(str):
    """`sha256:...`, checked. Made by `parse`, `of` or a `Digester` only."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The digest that `text` spells.

        Raises:
            InvalidArgument: it is not sha256, sha384 or sha512 with lower-case hexadecimal of
            exactly its length.
        """
        if _GRAMMAR.fullmatch(text) is None:
            raise InvalidArgument(f"invalid digest {text[:160]!r}")
        return cls(text)

    @classmethod
    def of(cls, content: bytes) -> Digest:
        """The sha256 digest of `content`."""
        return cls("sha256:" + hashlib.sha256(content).hexdigest())

    @property
    def algorithm(self) -> str:
        """`sha256`, `sha384` or `sha512`."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The hexadecimal part."""
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The first 12 hexadecimal characters, which people read."""
        return self.hex[:SHORT_LENGTH]


class Digester:
    """Hashes content as it passes. `update` of large buffers releases the interpreter lock."""

    __slots__ = ("_hash", "algorithm")

    def __init__(self, algorithm: str = "sha256") -> None:
        if algorithm not in ("sha256", "sha384", "sha512"):
            raise InvalidArgument(f"invalid digest algorithm {algorithm[:40]!r}")
        self.algorithm = algorithm
        self._hash = hashlib.new(algorithm)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take `data` in."""
        self._hash.update(data)

    def digest(self) -> Digest:
        """The digest of everything taken in so far."""
        return Digest(f"{self.algorithm}:{self._hash.hexdigest()}")


def chain_ids(diff_ids: tuple[Digest, ...]) -> tuple[Digest, ...]:
    """The chain id of each layer, bottom first (OCI image specification, config, chain id)."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)
