"""An ordinary user with a daemon of their own, as the command line starts it.

Run as root in private namespaces: the interpreter and the sources are bound to where the user can
read them, and the user is given subordinate ids, both in this mount namespace only.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dockerlab

USER, NAME = 54321, "ordinary"
FIRST = 200_000
available = os.geteuid() == 0 and bool(dockerlab.BUSYBOX and shutil.which("newuidmap"))


class Ordinary:
    """The user: `place` is their directory, a context with a base image in `rootfs`."""

    def __init__(self, base):
        self.base = base
        self.place = Path(base, "home/context")
        self.state = f"{base}/run/sampan"
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": f"{base}/home",
            "XDG_RUNTIME_DIR": f"{base}/run",
            "PYTHONPATH": f"{base}/src:{base}/site",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": f"{base}/python/lib",
        }
        self.python = f"{base}/python/bin/{os.path.basename(os.path.realpath(sys.executable))}"

    def command(self, *words):
        """`sampan words` of the user."""
        user = ("--reuid", str(USER), "--regid", str(USER), "--clear-groups")
        return ["setpriv", *user, self.python, "-m", "sampan.cli", *words]

    def sampan(self, *words, code=0, stdin=b""):
        """Run it to its end."""
        done = subprocess.run(
            self.command(*words),
            env=self.environ,
            cwd=self.place,
            input=stdin,
            check=False,
            capture_output=True,
            timeout=dockerlab.PATIENCE,
        )
        assert done.returncode == code, done.stderr.decode() + self.log
        return dockerlab.Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def write(self, name, text):
        """A file of the user's."""
        path = self.place / name
        path.write_text(text)
        os.chown(path, USER, USER)

    @property
    def log(self):
        """What the daemon logged."""
        return Path(self.state, "daemon.log").read_text()

    @property
    def daemon(self):
        """The pid of the daemon."""
        return int(Path(self.state, "sampan.pid").read_text())

    def stop(self, number=signal.SIGTERM):
        """End the daemon."""
        pidfd = os.pidfd_open(self.daemon)
        try:
            signal.pidfd_send_signal(pidfd, number)
            assert select.select([pidfd], [], [], dockerlab.PATIENCE)[0], self.log
        finally:
            os.close(pidfd)


@contextmanager
def ordinary():
    """The user; at the end their daemon is gone, and everything of theirs."""
    with ExitStack() as undo:
        base = tempfile.mkdtemp(prefix="sampan-", dir="/tmp")
        undo.callback(shutil.rmtree, base)
        os.chmod(base, 0o755)
        for name, source in (
            ("python", sys.base_prefix),
            ("site", sysconfig.get_path("purelib")),
            ("src", dockerlab.SOURCES),
        ):
            os.mkdir(f"{base}/{name}")
            _bind(source, f"{base}/{name}", undo)
        for name in ("home", "run"):
            os.mkdir(f"{base}/{name}", 0o700)
            os.chown(f"{base}/{name}", USER, USER)
        account = f"{NAME}:x:{USER}:{USER}::/:/bin/sh\n"
        ids = f"{NAME}:{FIRST}:65536\n"
        for path, text in (("passwd", account), ("subuid", ids), ("subgid", ids)):
            given = Path(base, path)
            given.write_text(Path(f"/etc/{path}").read_text() + text)
            _bind(str(given), f"/etc/{path}", undo)
        dockerlab.make_root(f"{base}/home/context/rootfs")
        subprocess.run(["chown", "-R", f"{USER}:{USER}", f"{base}/home"], check=True)
        user = Ordinary(base)
        try:
            yield user
        finally:
            if os.path.exists(f"{user.state}/sampan.pid"):
                user.stop()


def _bind(source, target, undo):
    subprocess.run(["mount", "--bind", source, target], check=True)
    undo.callback(subprocess.run, ["umount", "-l", target], check=True)
