"""A fake engine behind the real API on a real unix socket, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from sampan.api.docker.app import DockerAPI
from sampan.engine import model
from sampan.errors import ContainerNotFound, ImageNotFound, NotFound, Unauthenticated

NOW = 1_795_404_802_515_408_573
ID = "a06b45320ac212918ebb757e243dfa9d85f23a0113487c1d8c70731468abef69"
EXEC = "730e19cdcdbccb34944998720c6b9ecb85edff57529f661b62c21ea7046a29cd"


def container(**changes):
    """A running container, as the engine would give it."""
    made = model.Container(
        id=ID,
        name="c1",
        created_at=NOW,
        config=model.ContainerConfig(
            image="alpine:3.10",
            command=("sh", "-c", "true && sleep 1"),
            env=("A=b",),
            hostname="h1",
            labels={"k": "v"},
        ),
        host=model.HostConfig(network_mode="none"),
        path="sh",
        args=("-c", "true && sleep 1"),
        image_id="sha256:" + "6" * 64,
        image_name="alpine:3.10",
        state=model.State(status=model.Status.RUNNING, pid=42, started_at=NOW),
    )
    return replace(made, **changes)


class Wait:
    """An armed wait that ends when the fake says so."""

    def __init__(self, engine):
        self.engine = engine
        self.future = asyncio.get_running_loop().create_future()
        self.cancelled = False

    def __await__(self):
        return self.future.__await__()

    def cancel(self):
        self.cancelled = True


class FakeEngine:
    """The engine's methods, with a memory of what was asked and a list of what to raise."""

    def __init__(self):
        self.calls = []
        self.raises = {}
        self.containers = {ID: container()}
        self.execs = {}
        self.waits = []
        self.attached = []
        self.log = []
        self.follow = None
        self.feed = asyncio.Queue()
        self.closed_streams = []
        self.pull_steps = []
        self.pull_error = None
        self.images = SimpleNamespace(
            list=self._images,
            get=self._image,
            import_tar=self._import,
            pull=self.pull,
            login=self._login,
        )
        self.imported = None
        self.readings = []

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)

        async def called(*arguments, **options):
            self.calls.append((name, arguments, options))
            if name in self.raises:
                raise self.raises[name]
            return SimpleNamespace(ids=(), space_reclaimed=0)

        return called

    def get(self, ref):
        for found in self.containers.values():
            if ref in (found.id, found.name):
                return found
        raise ContainerNotFound(f"No such container: {ref}")

    def list(self, all=False, filters=None, limit=None):  # noqa: A002 - Docker's word
        self.calls.append(("list", (), {"all": all, "filters": filters, "limit": limit}))
        return list(self.containers.values())

    async def create(self, config, host, name=None, platform=None):
        self.calls.append(("create", (config, host), {"name": name, "platform": platform}))
        if "create" in self.raises:
            raise self.raises["create"]
        return model.Created(id=ID, warnings=("careful",))

    def arm_wait(self, ref, condition=model.WaitCondition.NOT_RUNNING):
        self.calls.append(("arm_wait", (ref, condition), {}))
        self.get(ref)
        self.waits.append(Wait(self))
        return self.waits[-1]

    async def attach(self, ref, attachment):
        self.calls.append(("attach", (ref,), {}))
        self.attached.append(attachment)
        if "attach" in self.raises:
            os.close(attachment.fd)
            raise self.raises["attach"]

    async def exec_create(self, ref, config):
        self.execs[EXEC] = model.Exec(id=EXEC, container_id=self.get(ref).id, config=config)
        return EXEC

    def exec_inspect(self, exec_id):
        if exec_id not in self.execs:
            raise NotFound(f"No such exec instance: {exec_id}")
        return self.execs[exec_id]

    async def exec_settled(self, exec_id):
        return self.exec_inspect(exec_id)

    async def exec_start(self, exec_id, attachment=None):
        self.calls.append(("exec_start", (exec_id,), {"detached": attachment is None}))
        if attachment is not None:
            self.attached.append(attachment)
        if "exec_start" in self.raises:
            os.close(attachment.fd)
            raise self.raises["exec_start"]

    async def log_pieces(self, ref, query):
        self.calls.append(("logs", (ref, query), {}))
        try:
            if self.log:
                yield self.log
            if query.follow:
                yield [await self.feed.get()]
                await self.feed.get()
        finally:
            self.closed_streams.append("logs")

    async def events(self, since=None, until=None, filters=None):
        self.calls.append(("events", (since, until, filters), {}))
        try:
            while True:
                yield await self.feed.get()
        finally:
            self.closed_streams.append("events")

    async def stats(self, ref):
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]

    async def _login(self, server, credentials):
        raise Unauthenticated(f"log in to {server}: it refused {credentials.username}")

    async def pull(
        self, reference, *, platform=None, every_platform=False, auth=None, progress=None
    ):
        self.calls.append(("pull", (reference,), {"platform": platform, "auth": auth}))
        try:
            for step in self.pull_steps:
                progress(step)
                await asyncio.sleep(0)
            if self.pull_error:
                raise self.pull_error
            if self.follow:
                await self.feed.get()
        finally:
            self.closed_streams.append("pull")

    async def _images(self, filters=None):
        return []

    async def _image(self, ref):
        raise ImageNotFound(f"No such image: {ref}")

    async def _import(self, content, reference=None, *, message="", changes=(), progress=None):
        body = b"".join([part async for part in content])
        self.imported = (body, reference, list(changes), message)
        return SimpleNamespace(id="sha256:8b")


@dataclass
class Answer:
    """One answer, with its body whole."""

    status: int
    headers: dict
    body: bytes = b""

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Client:
    """One connection, byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    engine: FakeEngine
    path: str
    server: object = None
    extra: list = field(default_factory=list)

    async def ask(self, method, path, body=None, **headers):
        await self.send(method, path, body, **headers)
        return await self.answer(method)

    async def send(self, method, path, body=None, **headers):
        content = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        lines = [f"{method} {path} HTTP/1.1", f"Host: {headers.pop('Host', 'localhost')}"]
        if isinstance(body, (dict, list)):
            lines.append("Content-Type: application/json")
        if content is not None:
            lines.append(f"Content-Length: {len(content)}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + (content or b""))
        await self.writer.drain()

    async def head(self):
        raw = await self.reader.readuntil(b"\r\n\r\n")
        status, *lines = raw.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        return Answer(int(status.split(" ")[1]), headers)

    async def answer(self, method="GET"):
        answer = await self.head()
        if method == "HEAD" or answer.status in (204, 304):
            return answer
        if answer.headers.get("transfer-encoding") == "chunked":
            while chunk := await self.chunk():
                answer.body += chunk
        else:
            answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
        return answer

    async def chunk(self):
        size = int(await self.reader.readline(), 16)
        content = await self.reader.readexactly(size)
        await self.reader.readexactly(2)
        return content

    async def another(self):
        reader, writer = await asyncio.open_unix_connection(self.path)
        self.extra.append(writer)
        return Client(reader, writer, self.engine, self.path)


@asynccontextmanager
async def serving(path):
    """The API on a socket, and a client of it."""
    engine = FakeEngine()
    api = DockerAPI(engine)
    protocols = api.server()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    server = await asyncio.get_running_loop().create_unix_server(protocols, sock=listener)
    reader, writer = await asyncio.open_unix_connection(path)
    client = Client(reader, writer, engine, path, protocols)
    try:
        yield client
    finally:
        for each in (writer, *client.extra):
            each.close()
        server.close()
        await protocols.aclose(1)


@pytest.fixture
def scenario(tmp_path):
    """Run an async function of a client against the API."""

    def run(play):
        async def main():
            async with asyncio.timeout(20), serving(str(tmp_path / "docker.sock")) as client:
                await play(client)

        asyncio.run(main())

    return run


@pytest.fixture
def make_container():
    """The maker of containers."""
    return container
