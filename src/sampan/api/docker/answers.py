"""The shapes of answers: JSON, nothing, an error, a stream.

Every answer carries the headers by which clients recognise the daemon. A stream's head is sent at
once, before there is any content: docker's client waits for it before it goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp.web_response import Response, StreamResponse

from sampan.api import errors
from sampan.version import DOCKER_API_VERSION, VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.web_request import BaseRequest

COMMON = {
    "Api-Version": DOCKER_API_VERSION,
    "Docker-Experimental": "true",
    "Ostype": "linux",
    "Server": f"Sampan/{VERSION} (linux)",
}
_JSON = {**COMMON, "Content-Type": "application/json"}
encode = msgspec.json.Encoder().encode


def json(content: Any, status: int = 200) -> Response:
    """`content` as JSON with a newline behind it, as Go's encoder writes it."""
    return Response(body=encode(content) + b"\n", status=status, headers=_JSON)


def empty(status: int = 204) -> Response:
    """No content."""
    return Response(status=status, headers=COMMON)


def text(content: bytes, headers: Mapping[str, str]) -> Response:
    """Plain text with further headers."""
    merged = {**COMMON, "Content-Type": "text/plain; charset=utf-8", **headers}
    return Response(body=content, headers=merged)


def error(status: int, message: str) -> Response:
    """An error, with the sentence that clients print."""
    if status == 304:
        return empty(304)
    return Response(body=errors.body(message), status=status, headers=_JSON)


def broken_off(status: int, message: str) -> Response:
    """An error in place of a raw stream: docker's command prints what is in the stream, and of an
    answer that is none it tells the status only. So it is plain text, and the connection ends."""
    headers = {**COMMON, "Content-Type": "application/vnd.docker.raw-stream"}
    answer = Response(body=f"{message}\r\n".encode(), status=status, headers=headers)
    answer.force_close()
    return answer


async def stream(
    request: BaseRequest,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> StreamResponse:
    """Begin a chunked answer; its head is on its way when this returns."""
    answer = StreamResponse(headers={**COMMON, "Content-Type": content_type, **(headers or {})})
    await answer.prepare(request)
    return answer
