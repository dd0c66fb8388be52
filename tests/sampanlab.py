"""The command line `sampan` against a daemon of a test, in a directory of the test's."""

from __future__ import annotations

import os
import subprocess
import sys

import dockerlab

MAIN = "import sys; from sampan.cli.__main__ import main; sys.exit(main(sys.argv[1:]))"


def argv(daemon, *words):
    """The argument vector of `sampan words`."""
    return [sys.executable, "-c", MAIN, "-H", daemon.host, *words]


def environ(daemon, **more):
    """Its environment."""
    return {**daemon.environ, "PYTHONPATH": dockerlab.SOURCES, **more}


def command_line(daemon, place):
    """A function that runs it to its end."""

    def run(*words, stdin=b"", code=0, **more):
        done = subprocess.run(
            argv(daemon, *words),
            env=environ(daemon, **more),
            cwd=place,
            input=stdin,
            check=False,
            capture_output=True,
            timeout=dockerlab.PATIENCE,
        )
        assert done.returncode == code, done.stderr.decode()
        return dockerlab.Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


def on_terminal(daemon, place, *words, rows=24, columns=80, **more):
    """Run it with a terminal as its standard error; the code, and what the terminal was sent."""
    import fcntl
    import struct
    import termios

    ours, theirs = os.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        process = subprocess.Popen(
            argv(daemon, *words),
            env=environ(daemon, TERM="xterm", **more),
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
        )
    finally:
        os.close(theirs)
    said = b""
    try:
        while True:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # EIO: the last one that had it has closed it
                break
            if not piece:
                break
            said += piece
    finally:
        os.close(ours)
    return process.wait(dockerlab.PATIENCE), said.decode()
