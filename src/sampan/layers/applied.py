"""What unpacking or making a layer answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.spec.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedLayer:
    """What came out: the digest of the tar stream, the bytes of file content, the entries."""

    diff_id: Digest
    size: int
    entries: int
