"""The API and its own description: answers are as it says, and nothing that is sent breaks it."""

from __future__ import annotations

import collections
import http.client
import json
import os
import random
from urllib.parse import quote, urlencode

import pytest

import dockerlab

jsonschema = pytest.importorskip("jsonschema")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]
# These ask registries, which are not here; other tests have some.
ELSEWHERE = ("/distribution/", "/auth", "/images/create", "/push", "/plugins/privileges")
NAMES = ["shown", "nosuch", "bb:1", "v1", "none", "..", "%", "a" * 300, "\u00e9", " ", "sha256:0"]
VALUES = ["", "0", "1", "-1", "true", "x", "{}", "[]", '{"a":["b"]}', '{"a":1}', "9" * 25, "\n\x01"]
GARBAGE = [b"", b"null", b"[]", b"{", b'"x"', b"\xff\xfe", b'{"HostConfig":7}', b"[" * 2000]
CASES = 5


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        tar = dockerlab.tar_of(f"{made.base}/rootfs")
        made.exchange("POST", "/images/create?fromSrc=-&repo=bb:1&changes=CMD+sh", tar)
        body = {"Image": "bb:1", "Cmd": ["sleep", "1000"], "Healthcheck": {"Test": ["CMD", "true"]}}
        assert made.ask("POST", "/containers/create?name=shown", body)[0] == 201
        assert made.ask("POST", "/containers/shown/start")[0] == 204
        made.ask("POST", "/volumes/create", {"Name": "v1"})
        yield made


@pytest.fixture(scope="module")
def described(daemon):
    """The description, as the daemon serves it."""
    status, found = daemon.ask("GET", "/v1.50/openapi.json")
    assert status == 200
    return found


def resolved(described, schema):
    return {**schema, "components": described["components"]}


def check(described, operation, status, content):
    """Whether an answer is what the description says."""
    responses = operation["responses"]
    kind = responses.get(str(status)) or responses["2XX" if status < 300 else "default"]
    if status == 304 or "content" not in kind:
        return
    schema = kind["content"]["application/json"]["schema"]
    jsonschema.validate(json.loads(content), resolved(described, schema))


@pytest.mark.parametrize(
    "path",
    [
        "/containers/json",
        "/containers/{name}/json",
        "/containers/{name}/top",
        "/containers/{name}/changes",
        "/images/json",
        "/images/{name}/json",
        "/images/{name}/history",
        "/info",
        "/networks",
        "/networks/{name}",
        "/system/df",
        "/version",
        "/volumes",
        "/volumes/{name}",
    ],
)
def test_answers_are_as_described(daemon, described, path):
    noun = path.split("/")[1]
    name = {"images": "bb:1", "networks": "bridge", "volumes": "v1"}.get(noun, "shown")
    status, _, content = daemon.exchange("GET", path.replace("{name}", name))
    assert status == 200, content
    check(described, described["paths"][path]["get"], status, content)


def test_every_handler_is_described(described):
    count = sum(len(operations) for operations in described["paths"].values())
    assert count >= 100
    assert "/containers/{name}/attach/ws" in described["paths"]
    names = [
        operation["operationId"]
        for operations in described["paths"].values()
        for operation in operations.values()
    ]
    assert len(names) == len(set(names))


def value_of(dice, described, schema):
    """Something that a schema allows, often; sometimes anything."""
    if dice.random() < 0.05:
        return dice.choice([None, 0, "x", [], {}])
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return value_of(dice, described, described["components"]["schemas"][name])
    if "anyOf" in schema:
        return value_of(dice, described, dice.choice(schema["anyOf"]))
    match schema.get("type"):
        case "object":
            members = list(schema.get("properties", {}).items())
            chosen = dice.sample(members, min(len(members), dice.randint(0, 4)))
            return {key: value_of(dice, described, inner) for key, inner in chosen}
        case "array":
            inner = schema.get("items") or {"type": "string"}
            return [value_of(dice, described, inner) for _ in range(dice.randint(0, 2))]
        case "string":
            return dice.choice(["", "x", "bb:1", "/", "../..", "a=b", "10m", "\u0000", "none"])
        case "integer" | "number":
            return dice.choice([0, 1, -1, 7, 1 << 31, -(1 << 63)])
        case "boolean":
            return dice.choice([True, False])
    return None


def requests_of(dice, described, path, operation):
    """(path with query, body, content type) of a few requests."""
    body = operation.get("requestBody")
    for _ in range(CASES):
        query = {
            one["name"]: dice.choice(VALUES)
            for one in operation["parameters"]
            if one["in"] == "query" and dice.random() < 0.5
        }
        target = path.replace("{name}", quote(dice.choice(NAMES), safe=":"))
        content = dice.choice(GARBAGE)
        if body is not None and dice.random() < 0.7:
            schema = body["content"]["application/json"]["schema"]
            content = json.dumps(value_of(dice, described, schema)).encode()
        yield f"{target}?{urlencode(query)}", content


def send(daemon, method, target, content):
    """The status, and the body of an error; streams are left after their head."""
    connection = dockerlab.UnixConnection(daemon.socket)
    try:
        connection.request(method, target, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read() if answer.status >= 400 else b""
    except http.client.BadStatusLine:
        return 0, b""
    finally:
        connection.close()


def test_nothing_that_is_sent_breaks_it(daemon, described):
    """Every operation with odd queries, names and bodies: a sentence, never a defect."""
    dice = random.Random(8)
    seen = collections.Counter()
    for path, operations in described["paths"].items():
        if any(part in path for part in ELSEWHERE):
            continue
        for method, operation in operations.items():
            for target, content in requests_of(dice, described, path, operation):
                status, answer = send(daemon, method.upper(), target, content)
                seen[status] += 1
                assert status not in (0, 500), (method, target, content, status, answer)
                if status >= 400 and method != "head":
                    check(described, operation, status, answer)
                    assert json.loads(answer)["message"]
    assert sum(seen.values()) > 400
    assert {200, 201, 204, 400, 404} <= set(seen), seen  # it came into the house, too
    assert daemon.ask("GET", "/_ping") == (200, b"OK")
