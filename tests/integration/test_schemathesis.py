"""schemathesis against our own description: what it makes of the schemas, and what comes back.

The description is generated from the typed bodies and served by the daemon itself. Each operation
is called with a few requests that the description allows; every answer must be one that it names,
with a body of the schema that it names for it.
"""

from __future__ import annotations

import os

import pytest

import dockerlab

schemathesis = pytest.importorskip("schemathesis")
docker = pytest.importorskip("docker")
requests = pytest.importorskip("requests")
hypothesis = pytest.importorskip("hypothesis")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]
# Streams that end with the client, and what asks registries, which are not here.
STREAMS = ("/events", "/wait", "/attach", "/logs", "/stats", "/exec/{name}/start", "/build")
ELSEWHERE = ("/distribution/", "/auth", "/images/create", "/push", "/images/search", "/privileges")
EXAMPLES = 3


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        tar = dockerlab.tar_of(f"{made.base}/rootfs")
        made.exchange("POST", "/images/create?fromSrc=-&repo=bb:1&changes=CMD+sh", tar)
        yield made


@pytest.fixture(scope="module")
def session(daemon):
    """A client of the unix socket, as docker-py makes one."""
    made = requests.Session()
    adapter = docker.transport.UnixHTTPAdapter(f"http+unix://{daemon.socket}", timeout=30)
    made.mount("http://localhost/", adapter)
    yield made
    made.close()
    adapter.close()


def is_answerable(path):
    return not any(part in path for part in (*STREAMS, *ELSEWHERE))


def test_answers_are_what_the_description_says(daemon, session):
    description = daemon.ask("GET", "/v1.55/openapi.json")[1]
    schema = schemathesis.openapi.from_dict(description)
    operations = [found.ok() for found in schema.get_all_operations()]
    called = [one for one in operations if is_answerable(one.path)]
    wrong = [why for one in called for why in refused(one, session)]
    assert wrong == []
    assert len(called) > 80
    assert daemon.ask("GET", "/_ping") == (200, b"OK")


def refused(operation, session):
    """What is wrong with the answers to a few requests that the description allows."""
    found = []

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy())
    def run(case):
        answer = case.call(session=session, base_url="http://localhost/v1.55")
        if answer.status_code == 500:
            found.append(f"{case.method} {answer.request.url}: {answer.text[:200]}")
        elif answer.content and case.method != "HEAD":
            try:
                operation.validate_response(answer)
            except (AssertionError, schemathesis.errors.FailureGroup) as error:
                found.append(f"{case.method} {answer.request.url}: {str(error)[:300]}")

    run()
    return found
