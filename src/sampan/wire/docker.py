"""Bodies of the Docker Engine API, as typed structs: how they are meant, and what all nouns share.

One struct per JSON object that crosses the socket, named after what it is, in the module of its
noun. Field order is the order in which dockerd 28 writes them. A struct that is read accepts null
wherever Go's decoder does (everywhere), ignores members it does not know, and refuses a wrong type;
a struct that is written carries the defaults that dockerd writes, so a converter only fills in what
it knows. `UNSET` marks members that dockerd leaves out when they are empty, or that only some
versions of the API have.

These types belong to the edge: the API turns them into the engine's model and back, and nobody
below imports them.
"""

from __future__ import annotations

import msgspec
from msgspec import field

NO_TIME = "0001-01-01T00:00:00Z"


class Body(msgspec.Struct, rename="pascal"):
    """Base of the objects whose members are in PascalCase."""


class ErrorMessage(msgspec.Struct):
    """Body of every answer that is an error."""

    message: str


class Identifier(Body, kw_only=True):
    """An exec session was made."""

    id: str


class Credentials(msgspec.Struct, rename="lower", kw_only=True):
    """Body of POST /auth, and the document inside of X-Registry-Auth."""

    user_name: str | None = field(default="", name="username")
    password: str | None = ""
    email: str | None = ""
    auth: str | None = ""
    server_address: str | None = field(default="", name="serveraddress")
    identity_token: str | None = field(default="", name="identitytoken")
    registry_token: str | None = field(default="", name="registrytoken")
