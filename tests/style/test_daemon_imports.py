"""What the daemon leaves to others: what inflates foreign bytes, and libraries that it has no use
for. Both are memory of every idle machine; the first is also what a hostile layer would aim at."""

from __future__ import annotations

import subprocess
import sys

CODE = (
    "from sampan.daemon import serve\n"
    "interface = serve._imported()\n"
    "import sys\n"
    "print(*sys.modules)\n"
    "print(open('/proc/self/maps').read())"
)


def test_the_daemon_is_without_what_inflates_and_without_the_cpp_library():
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    modules, _, maps = done.stdout.partition("\n")
    assert "aiohttp" in modules.split()
    heavy = {name.partition(".")[0] for name in modules.split()} & {"isal", "zstandard", "grpc"}
    assert not heavy
    assert "libcrypto" in maps
    assert "libstdc++" not in maps
