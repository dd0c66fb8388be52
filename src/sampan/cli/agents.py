"""`--ssh`: the agents that a build may use, as paths of their sockets.

    default, id            the agent of SSH_AUTH_SOCK
    id=SOCKET              another agent
    id=KEY[,KEY]           files of keys: an agent of our own has them while the block lasts

Keys never leave this machine's agents, and never reach the daemon.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager

from sampan.cli.session import Failed
from sampan.client import buildquery

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence


@contextmanager
def running(texts: Sequence[str]) -> Iterator[dict[str, str]]:
    """id -> socket, for the block."""
    with ExitStack() as undo:
        found: dict[str, str] = {}
        for text in texts:
            name, paths = buildquery.agent(text)
            is_agent = buildquery.is_socket(paths[0])
            found[name] = paths[0] if is_agent else _of_keys(name, paths, undo)
        yield found


def _of_keys(name: str, keys: list[str], undo: ExitStack) -> str:
    """An agent that has these keys until the end; it asks for passphrases at the terminal."""
    import subprocess
    import tempfile

    place = undo.enter_context(tempfile.TemporaryDirectory(prefix="sampan-ssh-"))
    path = os.path.join(place, "agent")
    try:
        agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        undo.callback(_end, agent)
        assert agent.stdout is not None
        agent.stdout.readline()  # it has told its variables, so it listens
        done = subprocess.run(
            ["ssh-add", "-q", *keys], env={**os.environ, "SSH_AUTH_SOCK": path}, check=False
        )
    except FileNotFoundError as error:
        problem = f"files of keys need {error.filename}, which is not installed"
        raise Failed(f"ssh {name}: {problem}") from error
    if done.returncode:
        raise Failed(f"ssh {name}: ssh-add did not take {', '.join(keys)}")
    return path


def _end(agent: subprocess.Popen[bytes]) -> None:
    agent.terminate()
    agent.wait()
    if agent.stdout is not None:
        agent.stdout.close()
