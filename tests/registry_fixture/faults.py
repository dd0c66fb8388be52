"""Ways in which a registry misbehaves. Each gives a handler for `FakeRegistry.faults[digest]`.

A handler that returns None lets the registry answer as usual; so a fault that strikes once is one
that returns None from then on.
"""

from __future__ import annotations

from aiohttp import web


def _content(registry, request):
    digest = request.path.rpartition("/")[2]
    return registry.blobs[digest]


async def _cut(request, content, announced, status=200, headers=None):
    """Announce a length, send `content`, and close the connection."""
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = announced
    await response.prepare(request)
    await response.write(content)
    request.transport.close()
    return response


def once(handler):
    """The fault at the first request only."""
    struck = []

    async def fault(registry, request):
        if struck:
            return None
        struck.append(request)
        return await handler(registry, request)

    return fault


def replaced(content):
    """Other bytes than the digest names."""

    async def fault(registry, request):
        return web.Response(body=content)

    return fault


def cut(share=0.5):
    """The connection ends before the announced length, from the start or from the range."""

    async def fault(registry, request):
        content = _content(registry, request)
        return await _cut(request, content[: int(len(content) * share)], len(content))

    return fault


def endless():
    """A body without length that does not end."""

    async def fault(registry, request):
        if request.method == "HEAD":
            return None
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"\0" * 65536)
        except ConnectionError:
            return response  # the client had enough

    return fault


def without_ranges():
    """The first answer is cut; later ones send everything, whatever range was asked for."""
    first = once(cut())

    async def fault(registry, request):
        answer = await first(registry, request)
        return answer or web.Response(body=_content(registry, request))

    return fault


def wrong_range(span):
    """The first answer is cut; later ones are a 206 with another range than was asked for."""
    first = once(cut())

    async def fault(registry, request):
        answer = await first(registry, request)
        content = _content(registry, request)
        headers = {"Content-Range": span.format(last=len(content) - 1, size=len(content))}
        return answer or web.Response(status=206, body=content, headers=headers)

    return fault


def redirect(location, status=307):
    """Another place has it."""

    async def fault(registry, request):
        return web.Response(status=status, headers={"Location": location})

    return fault


def status(code, headers=None, body=b""):
    """An answer with this status."""

    async def fault(registry, request):
        return web.Response(status=code, headers=headers, body=body)

    return fault


def gate(reached, opened):
    """Send half, tell `reached`, wait for `opened`, send the rest."""

    async def fault(registry, request):
        content = _content(registry, request)
        response = web.StreamResponse()
        response.content_length = len(content)
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        reached.set()
        await opened.wait()
        await response.write(content[len(content) // 2 :])
        return response

    return fault
