"""Docker's own clients against Sampan and dockerd, in turns: the docker command and docker-py.

The same program asks both, so its own start is in both figures: `run --rm` and `exec` of busybox
`true` without a network, `ps` with many containers, the output of a container that says much, as it
comes and out of its log, and a life (create, start, wait, remove) through docker-py.
"""

from __future__ import annotations

import shutil
import time
from functools import partial
from typing import TYPE_CHECKING

from peers import BUSYBOX
from timing import Api, Row, interleave, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peers import Engine
    from timing import Runner

MANY = 500
_LOG_MB = 50
RUN, EXEC, PS = "docker run --rm", "docker exec", f"docker ps -a, {MANY} containers"
LOGS, ATTACH = f"docker logs, {_LOG_MB} MB", f"docker run, attached, {_LOG_MB} MB"
LIFE = "life through docker-py"
_TALK = f"yes 'a line of a log, as programs write them' | head -c {_LOG_MB << 20}"
_NONE = ("--network", "none")
_SLEEPER, _TALKER = "client-sleeper", "client-talker"
_BODY = {"Image": BUSYBOX, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}


def measure(engines: Mapping[str, Engine], runner: Runner, rounds: int) -> list[Row]:
    """Every engine that serves Docker's API."""
    served = {name: engine for name, engine in engines.items() if engine.socket}
    found: list[Row] = []
    _prepare(served, runner)
    few = max(2, rounds // 5)
    for figure, words, count in (
        (RUN, ("run", "--rm", *_NONE, BUSYBOX, "true"), rounds),
        (EXEC, ("exec", _SLEEPER, "true"), rounds),
        (ATTACH, ("run", "--rm", *_NONE, "--log-driver", "none", BUSYBOX, "sh", "-c", _TALK), few),
        (LOGS, ("logs", _TALKER), few),
    ):
        cases = {name: partial(runner, command(one, *words)) for name, one in served.items()}
        found += rows(figure, "ms", interleave(cases, count))
    found += _listing(served, runner, rounds)
    for engine in served.values():
        runner(command(engine, "rm", "-f", _SLEEPER, _TALKER))
    return found + _docker_py(served, rounds)


def command(engine: Engine, *words: str) -> list[str]:
    """The docker command of this machine, against one engine."""
    return [shutil.which("docker") or "docker", "-H", f"unix://{engine.socket}", *words]


def _prepare(served: Mapping[str, Engine], runner: Runner) -> None:
    """A container that sleeps, and one that has said much."""
    for engine in served.values():
        for name, argv in ((_SLEEPER, ["sleep", "1000000"]), (_TALKER, ["sh", "-c", _TALK])):
            words = ("run", "-d", *_NONE, "--name", name, BUSYBOX, *argv)
            runner(command(engine, *words))
        runner(command(engine, "wait", _TALKER))


def _listing(served: Mapping[str, Engine], runner: Runner, rounds: int) -> list[Row]:
    """`ps -a` with many containers, which are made and removed through the API."""
    made: dict[str, list[str]] = {}
    for name, engine in served.items():
        api = Api(engine.socket)
        made[name] = [api.call("POST", "/containers/create", _BODY)["Id"] for _ in range(MANY)]
        api.close()
    cases = {name: partial(runner, command(one, "ps", "-a")) for name, one in served.items()}
    found = rows(PS, "ms", interleave(cases, rounds))
    for name, engine in served.items():
        api = Api(engine.socket)
        for container in made[name]:
            api.call("DELETE", f"/containers/{container}")
        api.close()
    return found


def _docker_py(served: Mapping[str, Engine], rounds: int) -> list[Row]:
    """Lives through docker-py; no rows where it is not installed."""
    try:
        import docker  # a client of others, which need not be there
    except ImportError:
        return []
    clients = {
        name: docker.APIClient(f"unix://{engine.socket}", version="auto")
        for name, engine in served.items()
    }
    cases: dict[str, Callable[[], float]] = {
        name: partial(_life, client) for name, client in clients.items()
    }
    found = rows(LIFE, "ms", interleave(cases, rounds))
    for client in clients.values():
        client.close()
    return found


def _life(client) -> float:
    begin = time.perf_counter()
    host = client.create_host_config(network_mode="none")
    made = client.create_container(BUSYBOX, ["true"], host_config=host)
    client.start(made)
    assert client.wait(made)["StatusCode"] == 0
    client.remove_container(made)
    return (time.perf_counter() - begin) * 1e3
