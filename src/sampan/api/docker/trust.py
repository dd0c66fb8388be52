"""/system/trust and /distribution/{name}/verify: the policy, and what it says of an image. Not in
Docker's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sampan.api.docker import answers
from sampan.api.docker.images import credentials_of, platform_of
from sampan.wire import distribution as bodies

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call
    from sampan.images.policy import Requirements

_decode = msgspec.json.Decoder(bodies.VerifyRequest)


async def show(call: Call) -> StreamResponse:
    """GET /system/trust"""
    policy = call.engine.images.policy()
    return answers.json(
        bodies.Trust(
            default=_requirements(policy.default),
            scopes=[
                bodies.TrustScope(
                    transport=transport, scope=scope, requirements=_requirements(asked)
                )
                for transport, scopes in sorted(policy.transports.items())
                for scope, asked in sorted(scopes.items())
            ],
        )
    )


async def verify(call: Call) -> StreamResponse:
    """POST /distribution/{name}/verify?platform"""
    body = await call.json(_decode) or bodies.VerifyRequest()
    verdict = await call.engine.images.verify(
        call.name,
        keys=[key.encode() for key in body.keys],
        platform=platform_of(call),
        auth=credentials_of(call),
    )
    return answers.json(
        bodies.Verified(
            digest=str(verdict.digest),
            scope=verdict.scope,
            signers=[
                bodies.Signer(key=key.name, fingerprint=key.fingerprint, identity=name)
                for key, name in verdict.signers
            ],
        )
    )


def _requirements(asked: Requirements) -> list[bodies.Requirement]:
    return [
        bodies.Requirement(
            type=one.kind,
            keys=[*one.key_paths, *("(in the policy)" for _ in one.key_texts)],
            identity=one.identity.match,
        )
        for one in asked
    ]


PATHS = {("GET", "/system/trust"): show}
NAMED = {("POST", "distribution", "verify"): verify}
