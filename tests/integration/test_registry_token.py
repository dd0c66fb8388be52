"""Debian's docker-registry behind a token server: who asks for which scope gets which token.

The registry believes tokens that the test's authority has signed, and says 401 with the realm of
the server to everybody else (distribution specification, token authentication).
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import time

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from certificates import Authority
from imagelab import store
from realregistry import PASSWORD, USER, available, real_registry
from registry_fixture import BASIC, tar
from sampan.errors import SampanError, Unauthenticated
from sampan.registry.credentials import Credentials

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked as root"),
    pytest.mark.skipif(not available, reason="docker-registry is not installed"),
]
ALICE = Credentials(USER, PASSWORD)
SERVICE, ISSUER = "the registry", "the tokens"
LIFETIME = 60


class TokenServer:
    """Everybody may pull from `public/`, the user may do everything."""

    def __init__(self, directory) -> None:
        self.authority = Authority(directory)
        certificate, key = self.authority.issue("tokens")
        der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(
            serialization.Encoding.DER
        )
        self._chain = base64.b64encode(der).decode()
        self._key = serialization.load_pem_private_key(key.read_bytes(), None)
        self.asked = []

    async def __aenter__(self):
        app = web.Application()
        app.router.add_get("/token", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/token"
        return self

    async def __aexit__(self, *_) -> None:
        await self._runner.cleanup()

    async def _answer(self, request):
        sent = request.headers.get("Authorization")
        self.asked.append((sent, *request.query.getall("scope", [])))
        if sent not in (None, BASIC) or request.query.get("service") != SERVICE:
            return web.Response(status=401)
        allowed = []
        for scope in request.query.getall("scope", []):
            kind, name, actions = scope.split(":")
            if sent is None and not name.startswith("public/"):
                continue
            granted = actions.split(",") if sent else ["pull"]
            allowed.append({"type": kind, "name": name, "actions": granted})
        return web.json_response({"token": self._token(allowed), "expires_in": LIFETIME})

    def _token(self, access) -> str:
        now = int(time.time())
        head = {"typ": "JWT", "alg": "ES256", "x5c": [self._chain]}
        claims = {"iss": ISSUER, "sub": USER, "aud": SERVICE, "access": access, "jti": str(now)}
        claims |= {"exp": now + LIFETIME, "nbf": now - 5, "iat": now}
        text = f"{packed(json.dumps(head).encode())}.{packed(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{packed(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


async def pieces(content):
    yield content


def test_push_pull_and_mount_by_tokens(tmp_path):
    (tmp_path / "r").mkdir()
    root = gzip.compress(tar({"etc/hello": os.urandom(300_000)}))

    async def main():
        async with TokenServer(tmp_path / "tokens") as tokens:
            auth = {
                "token": {
                    "realm": tokens.url,
                    "service": SERVICE,
                    "issuer": ISSUER,
                    "rootcertbundle": str(tokens.authority.path),
                }
            }
            with real_registry(tmp_path / "r", auth=auth) as name:
                await walk(name, tokens)

    async def walk(name, tokens):
        async with store(tmp_path / "a") as here, store(tmp_path / "b") as there:
            image = await here.service.import_tar(pieces(root), f"{name}/public/x:1")
            with pytest.raises(SampanError):
                await here.service.push(f"{name}/public/x:1")
            await here.service.push(f"{name}/public/x:1", auth=ALICE)
            assert (BASIC, "repository:public/x:pull,push") in tokens.asked
            await here.service.tag(f"{name}/public/x:1", f"{name}/private/x:1")
            await here.service.push(f"{name}/private/x:1", auth=ALICE)
            mounted = "repository:private/x:pull,push", "repository:public/x:pull"
            assert (BASIC, *mounted) in tokens.asked
            assert (await there.pull(f"{name}/public/x:1")).id == image.id
            assert (None, "repository:public/x:pull") in tokens.asked
            with pytest.raises((Unauthenticated, SampanError)):
                await there.pull(f"{name}/private/x:1")
            with pytest.raises(Unauthenticated):
                await there.pull(f"{name}/private/x:1", auth=Credentials(USER, "wrong"))
            assert (await there.pull(f"{name}/private/x:1", auth=ALICE)).id == image.id
            assert await there.service.login(name, ALICE) == ""

    asyncio.run(main())
