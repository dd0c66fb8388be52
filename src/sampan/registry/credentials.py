"""Credentials for one registry, as clients hand them over.

Docker's clients send them per request in the `X-Registry-Auth` header: base64url of a JSON object.
They are kept in memory for one operation, never written down, and never shown: `repr` leaves the
secrets out.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final

from sampan.errors import InvalidArgument
from sampan.spec import documents

_MAX_HEADER: Final = 64 << 10
_AUTH: Final = frozenset(
    "username password email serveraddress identitytoken registrytoken auth".split()
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """User and password, or one of the two kinds of token that stand for them."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)  # exchanged at the token server
    registry_token: str = field(default="", repr=False)  # shown to the registry as it is

    @classmethod
    def from_header(cls, text: str) -> Credentials | None:
        """The credentials in an `X-Registry-Auth` header, None when it carries none.

        Raises:
            InvalidArgument: it is not base64url of a JSON object. The message does not quote it.
        """
        if not text:
            return None
        if len(text) > _MAX_HEADER:
            raise InvalidArgument("registry credentials: the header is too long")
        try:
            content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            fields = documents.parse(content, "registry credentials", _AUTH, _MAX_HEADER)
        except (binascii.Error, ValueError, InvalidArgument):
            raise InvalidArgument("registry credentials: not base64url of a JSON object") from None
        credentials = cls(
            username=fields.text("username", ""),
            password=fields.text("password", ""),
            identity_token=fields.text("identitytoken", ""),
            registry_token=fields.text("registrytoken", ""),
        )
        return credentials if credentials != cls() else None

    def basic(self) -> str:
        """The value of an `Authorization` header for basic authentication."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()
