"""The end of a layer worker whose engine was killed in the middle of a job."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import dockerlab
from sampan.kernel import fds

PROGRAM = """
import os, sys
from sampan.layers import worker

def wait(job, fds, parent):
    os.read(fds[0], 1)
    return {}

worker.main(int(sys.argv[1]), {"wait": wait})
"""


def test_a_worker_ends_in_silence_when_nobody_wants_its_answer():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gate, key = os.pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": dockerlab.SOURCES},
            stderr=subprocess.PIPE,
        )
    try:
        fds.send(ours, json.dumps({"do": "wait"}).encode(), [gate])
        # The job is taken before we are gone: its end of the pipe is the worker's only then.
        os.close(gate)
        while os.path.exists(f"/proc/{process.pid}") and not _children(process.pid):
            pass
        ours.close()
        os.write(key, b"x")
        with process.stderr as stream:
            said = stream.read()
        assert (process.wait(60), said) == (0, b"")
    finally:
        os.close(key)
        ours.close()


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return children.read().split()
