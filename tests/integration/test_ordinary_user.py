"""The whole platform for a user who is not root: `sampan` and the daemon that it starts.

Each scenario runs in mount, pid and network namespaces of its own, where the user is known and has
a range of ids. Nothing there is root but newuidmap and newgidmap.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import dockerlab
from sampan.kernel import mounts

UID = 54321
ROOT = Path(__file__).parents[2]
NEEDED = [Path(sys.base_prefix), Path(sys.prefix), ROOT]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="making a user known needs root"),
    pytest.mark.skipif(
        not (shutil.which("newuidmap") and dockerlab.BUSYBOX), reason="needs uidmap and busybox"
    ),
]

# What is done: `sampan` with words; the exit code behind each output.
BEGIN = """
cd "$HOME"
s() { sampan "$@" 2>&1; echo "$1 $?"; }
"""
END = """
kill $(cat "$XDG_RUNTIME_DIR/sampan/sampan.pid")
"""


def closed(path):
    """The directory on the way to `path` that an ordinary user does not get through, or None."""
    for place in [*reversed(path.parents), path]:
        if not place.stat().st_mode & 1:
            return place
    return None


def prepare(base):
    """As root of the namespaces: the user's name and ids, and a way to the interpreter."""
    for name, line in (
        ("passwd", f"plain:x:{UID}:{UID}::{base}/home:/bin/sh\n"),
        ("group", f"plain:x:{UID}:\n"),
        ("subuid", Path(base, "ids").read_text()),
        ("subgid", Path(base, "ids").read_text()),
    ):
        file = Path(base, name)
        known = Path("/etc", name).read_text() if name in ("passwd", "group") else ""
        file.write_text(known + line)
        Path("/etc", name).touch()
        subprocess.run(["mount", "--bind", file, f"/etc/{name}"], check=True)
    trees = {
        path: mounts.clone_tree(os.open(path, os.O_PATH), recursive=False)
        for path in NEEDED
        if closed(path)
    }
    for place in {closed(path) for path in trees}:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", place], check=True)
    for path, tree in trees.items():
        path.mkdir(parents=True, exist_ok=True)
        mounts.move_mount(tree, os.open(path, os.O_PATH))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


@pytest.fixture
def user():
    """Runs a script as the user; its output."""
    base = tempfile.mkdtemp(prefix="sampan-user-", dir="/tmp")
    os.chmod(base, 0o755)
    for name in ("home", "run"):
        os.mkdir(f"{base}/{name}", 0o700)
    dockerlab.make_root(f"{base}/rootfs")
    Path(base, "home/tour.tar").write_bytes(dockerlab.tar_of(f"{base}/rootfs"))
    subprocess.run(["chown", "-R", f"{UID}:{UID}", f"{base}/home", f"{base}/run"], check=True)

    def run(script, ids="plain:200000:65536\n"):
        Path(base, "ids").write_text(ids)
        Path(base, "script").write_text(BEGIN + script + END)
        words = ["unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child"]
        words += ["--mount-proc", "--propagation", "private", sys.executable, __file__, base]
        environ = {**os.environ, "PYTHONPATH": f"{ROOT}/tests:{ROOT}/src"}
        done = subprocess.run(
            words, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=50,
            stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        return done.stdout.decode()

    yield run
    subprocess.run(["rm", "-rf", base], check=True)


EXPECTED = """
import 0
overlay
0
1000 5
run 0
run 0
exec 7
uid=1000 gid=1000 groups=1000
exec 0
line
exec 0
line
commit 0
A /lines
A /mark
diff 0
one
stop 0
commit 0
one
rm 0
written
run 0
more
run 0
build 0
built
run 0
save 0
rmi 0
Loaded image: made:1
load 0
no problems
system 0
"""


def test_a_life_without_root(user):
    said = user("""
    s import tour.tar bb:1 | sed 1d
    cat "$HOME/.local/share/sampan/snapshotter"
    s run --rm bb:1 sh -c 'id -u; touch /x; chown 1000:5 /x; stat -c "%u %g" /x'
    s run --rm --network host bb:1 sh -c '[ -d /sys/class/net/lo ]'
    s run -d --name one bb:1 sleep 1000 | sed 1d
    s exec one sh -c 'echo written >/mark; exit 7'
    s exec --user 1000:1000 one id
    s exec one sh -c 'echo line >>/lines; cat /lines'
    s cp one:/lines - | tar -xO lines
    s commit one live:1 | sed 1d
    s diff one
    s stop -t 0 one
    s commit one made:1 | sed 1d
    s rm one
    s run --rm -v kept:/v made:1 sh -c 'cat /mark; echo more >/v/x'
    s run --rm -v kept:/v made:1 cat /v/x
    mkdir context
    printf 'FROM bb:1\nRUN echo built >/b && chown 5 /b\nCMD ["cat","/b"]\n' >context/Dockerfile
    s build -q -t built:1 context | sed 1d
    s run --rm built:1
    s save -o made.tar made:1
    s rmi made:1 | sed '/^[UD]/d'
    s load -q -i made.tar
    s system check | sed 's/.*: //'
    """)
    assert said.replace("run 0\nexec 7", "exec 7").split("\n") == EXPECTED.lstrip().split("\n")


def test_what_needs_root_is_told(user):
    said = user("""
    s import tour.tar bb:1
    s run --rm --memory 64m bb:1 true
    s run --rm -p 8080:80 bb:1 true
    s network create mine
    s run -d --name one bb:1 sleep 1000
    s pause one
    s update --memory 64m one
    s rm -f one
    """)
    assert "so these limits cannot hold" in said
    assert said.count("the engine does not run as root") == 4, said


if __name__ == "__main__":
    prepare(sys.argv[1])
    run_dir = f"{sys.argv[1]}/run"
    environ = {"HOME": f"{sys.argv[1]}/home", "XDG_RUNTIME_DIR": run_dir, "USER": "plain"}
    environ["PATH"] = f"{ROOT}/.venv/bin:/usr/local/bin:/usr/bin:/bin"
    words = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups"]
    words += ["--inh-caps=-all", "sh", f"{sys.argv[1]}/script"]
    os.execvpe(words[0], words, environ)
