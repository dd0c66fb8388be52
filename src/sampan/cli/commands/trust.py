"""`verify` and `trust show`: who vouches for an image, and what the policy asks."""

from __future__ import annotations

from sampan.cli.session import Command, Failed, Session
from sampan.cli.tables import show as table
from sampan.client import calls
from sampan.client.credentials import header_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values

_HEADERS = {"Keys": "KEYS", "Requires": "REQUIRES", "Scope": "SCOPE", "Transport": "TRANSPORT"}


def verify(session: Session, flags: Values, names: list[str]) -> int:
    image = names[0]
    keys = [_read(path) for path in flags.many("key")]
    call = calls.verify(image, keys, flags.text("platform"), header_for(image))
    found = session.call(call)
    if flags.on("quiet"):
        session.out(found["Digest"])
        return 0
    session.out(f"{image}: {found['Digest']}")
    for one in found["Signers"]:
        session.out(f"signed by {one['Fingerprint']} for {one['Identity']}")
    if not found["Signers"]:
        session.out(f"accepted by the policy ({found['Scope'] or 'every registry'}) unsigned")
    return 0


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read(1 << 16)
    except (OSError, ValueError) as error:
        raise Failed(f"read key {path}: {getattr(error, 'strerror', None) or error}") from None


def show(session: Session, flags: Values, _: list[str]) -> int:
    policy = session.call(calls.trust())
    rows = [_row("", "default", policy["Default"])]
    rows += [_row(one["Transport"], one["Scope"], one["Requirements"]) for one in policy["Scopes"]]
    table(session, rows, "Transport Scope Requires Keys", _HEADERS, flags.text("format"))
    return 0


def _row(transport: str, scope: str, requirements: list[dict[str, Any]]) -> dict[str, Any]:
    keys = [key for one in requirements for key in one["Keys"]]
    return {
        "Keys": ", ".join(keys),
        "Requires": ", ".join(one["Type"] for one in requirements),
        "Scope": scope,
        "Transport": transport,
    }


VERIFY = Command(
    verify,
    "[OPTIONS] IMAGE",
    "Check who vouches for an image at its registry, by the policy or by keys",
    """\
  -k, --key list          File of a public key (PEM); one of them must have
                          signed
      --platform string   Platform whose manifest may be signed instead of
                          the index
  -q, --quiet             Only print the digest
""",
    least=1,
    most=1,
    names="trust verify, verify",
)
SHOW = Command(
    show,
    "[OPTIONS]",
    "Show the trust policy",
    """\
      --format string   Format output using a custom template:
                        'json' or a Go template
""",
    most=0,
)
