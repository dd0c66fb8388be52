"""Authentication with one registry: the `WWW-Authenticate` challenge and its answer.

Nothing is sent before the registry asks. A `Basic` challenge is answered with the credentials, on
the registry's own origin. A `Bearer` challenge names a token server (the realm): an anonymous token
may be fetched from any public https server; the credentials themselves are shown only to the
registry's own host, to a host of the same registered domain, or to one that the configuration
names. A realm that the rules refuse is an error and not a silent fall back to anonymous.

Tokens are kept per scope until shortly before they expire, in memory.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from sampan.errors import FailedPrecondition, Unauthenticated, Unavailable
from sampan.registry import http
from sampan.registry.hosts import Origin, shown
from sampan.spec import documents

if TYPE_CHECKING:
    from sampan.registry.credentials import Credentials
    from sampan.registry.hosts import Endpoint
    from sampan.spec.reference import Reference

_SCHEME: Final = re.compile(r"\s*,?\s*([A-Za-z]+)(?:\s+|$)", re.ASCII)
_PARAMETER: Final = re.compile(
    r'\s*,?\s*([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))', re.ASCII
)
_MAX_CHALLENGE: Final = 8192
_MAX_TOKEN_ANSWER: Final = 256 << 10
_LIFETIME: Final = 60  # seconds, when the token server names none
_MARGIN: Final = 10
_TOKEN: Final = frozenset("token access_token expires_in issued_at refresh_token".split())


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in which a registry wants to be shown who is asking."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(text: str) -> list[Challenge]:
    """The challenges of a `WWW-Authenticate` header; what does not follow the grammar ends it."""
    challenges: list[Challenge] = []
    text, position = text[:_MAX_CHALLENGE], 0
    while position < len(text):
        scheme = _SCHEME.match(text, position)
        if scheme is None:
            break
        position = scheme.end()
        parameters: dict[str, str] = {}
        while (found := _PARAMETER.match(text, position)) is not None:
            value = found[3] if found[2] is None else re.sub(r"\\(.)", r"\1", found[2])
            parameters.setdefault(found[1].lower(), value)
            position = found.end()
        challenges.append(Challenge(scheme[1].lower(), parameters))
    return challenges


class Authenticator:
    """Answers the challenges of one endpoint for one repository, on behalf of one user."""

    def __init__(
        self,
        client: http.HttpClient,
        endpoint: Endpoint,
        reference: Reference,
        credentials: Credentials | None,
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._reference = reference
        self._credentials = None if endpoint.mirror else credentials
        self._challenge: Challenge | None = None
        self._tokens: dict[str, tuple[str, float]] = {}
        self._lock = asyncio.Lock()
        self.refresh_token = ""

    def settle(self, endpoint: Endpoint) -> None:
        """The same server, now that it is known how to speak with it."""
        self._endpoint = endpoint

    @property
    def is_anonymous(self) -> bool:
        """Whether we have nothing to show."""
        return self._credentials is None

    async def authorization(self, actions: str, also: str = "") -> str | None:
        """The `Authorization` for `pull` or `pull,push`; None before the registry asked for any.

        `also` names a second repository, to be pulled from.
        """
        if self._credentials is not None and self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        match self._challenge:
            case None:
                return None
            case Challenge(scheme="basic"):
                return None if self._credentials is None else self._credentials.basic()
            case challenge:
                return f"Bearer {await self._token(challenge, actions, also)}"

    async def login(self) -> str:
        """The `Authorization` that a challenge without a scope wants; what a token server gives to
        keep is in `refresh_token` then."""
        challenge = self._challenge
        assert challenge is not None
        assert self._credentials is not None
        if challenge.scheme == "basic":
            return self._credentials.basic()
        token, _ = await self._fetch_token(challenge, "", keep=True)
        return f"Bearer {token}"

    async def challenged(self, header: str, refused: str | None) -> None:
        """Take the challenge of a 401 answer, to a request that carried `refused`.

        Raises:
            Unauthenticated: the registry refused what we showed, or asks for what we do not have.
        """
        challenges = {entry.scheme: entry for entry in reversed(parse_challenges(header))}
        chosen = challenges.get("bearer") or challenges.get("basic")
        if chosen is None:
            raise Unauthenticated(f"{self._who}: it asks for a login in a way that is not known")
        if chosen.scheme == "basic":
            if self._credentials is None or not self._credentials.username:
                raise Unauthenticated(f"{self._who}: no basic auth credentials")
            if refused is not None:
                raise Unauthenticated(f"{self._who}: it refused the user name or the password")
        self._tokens = {
            scope: entry for scope, entry in self._tokens.items() if f"Bearer {entry[0]}" != refused
        }
        self._challenge = chosen

    @property
    def _who(self) -> str:
        return f"log in to {self._reference.registry}"

    async def _token(self, challenge: Challenge, actions: str, also: str) -> str:
        scope = f"repository:{self._reference.repository}:{actions}"
        if also:
            scope += f" repository:{also}:pull"
        async with self._lock:
            token, until = self._tokens.get(scope, ("", 0.0))
            if time.monotonic() >= until:
                token, lifetime = await self._fetch_token(challenge, scope)
                self._tokens[scope] = token, time.monotonic() + max(lifetime - _MARGIN, _MARGIN)
            return token

    async def _fetch_token(
        self, challenge: Challenge, scope: str, *, keep: bool = False
    ) -> tuple[str, int]:
        realm = self._realm(challenge)
        query = {"scope": scope.split(" ")} if scope else {}
        if keep:
            query |= {"offline_token": ["true"], "client_id": ["sampan"]}
        if service := challenge.parameters.get("service"):
            query["service"] = [service]
        if self._credentials is not None and self._credentials.identity_token:
            return await self._exchange(realm, query, self._credentials.identity_token)
        headers: dict[str, str] = {}
        if self._credentials is not None and self._credentials.username:
            query["account"] = [self._credentials.username]
            headers["Authorization"] = self._credentials.basic()
        return await self._ask("GET", realm.extend_query(query), headers, None)

    async def _exchange(
        self, realm: URL, query: dict[str, list[str]], token: str
    ) -> tuple[str, int]:
        form = aiohttp.FormData(
            {
                **{key: " ".join(values) for key, values in query.items()},
                "grant_type": "refresh_token",
                "refresh_token": token,
                "client_id": "sampan",
            }
        )
        return await self._ask("POST", realm, {}, form)

    async def _ask(
        self, method: str, realm: URL, headers: dict[str, str], form: aiohttp.FormData | None
    ) -> tuple[str, int]:
        home = self._endpoint.origin
        authorization = headers.pop("Authorization", None)
        # The realm was checked against the registry; from here it is the home of its own request,
        # so that a redirect of the token server takes the credentials nowhere else.
        async with self._client.request(
            method,
            realm,
            home=home if authorization is None and form is None else Origin.of(realm),
            authorization=authorization,
            data=form,
            timeout=http.SHORT,
        ) as response:
            self._check_status(response.status, realm)
            content = await http.read_bounded(response, _MAX_TOKEN_ANSWER, "a token")
        token, lifetime, self.refresh_token = _read_token(content, realm)
        return token, lifetime

    def _check_status(self, status: int, realm: URL) -> None:
        if status in (401, 403):
            raise Unauthenticated(f"{self._who}: the token server refused the user or the password")
        if status == 429 or status >= 500:
            raise Unavailable(f"ask {shown(realm)} for a token: it answered {status}")
        if status != 200:
            raise Unauthenticated(f"{self._who}: the token server {shown(realm)} answered {status}")

    def _realm(self, challenge: Challenge) -> URL:
        """The token server, when we may speak with it.

        Raises:
            FailedPrecondition: we may not, or not with these credentials.
        """
        text, home = challenge.parameters.get("realm", ""), self._endpoint.origin
        try:
            realm = URL(text)
        except ValueError:
            realm = URL()
        if realm.scheme not in ("http", "https") or not realm.host:
            raise FailedPrecondition(
                f"{self._who}: the realm {text[:200]!r} is not a URL of http(s)"
            )
        self._client.hosts.check_target(realm, home)
        if self._credentials is not None and not self._client.hosts.trusts_realm(
            self._reference, home, realm
        ):
            raise FailedPrecondition(
                f"{self._who}: refuse to show the credentials to {realm.host}, "
                "which is another host and not configured as its realm"
            )
        return realm


def _read_token(content: bytes, realm: URL) -> tuple[str, int, str]:
    fields = documents.parse(content, f"token of {realm.host}", _TOKEN, _MAX_TOKEN_ANSWER)
    token = fields.text("token", "") or fields.text("access_token", "")
    if not token or not token.isascii() or not token.isprintable():
        raise Unauthenticated(f"token of {realm.host}: the answer has no token")
    lifetime = min(fields.integer("expires_in", _LIFETIME), 86_400)
    return token, lifetime, fields.text("refresh_token", "")
