"""`python -I -S -B .../shim/__main__.py SOURCE FD`: the spawner, for whoever has no launcher.

SOURCE is the directory that holds the package, FD the SEQPACKET socket of launch messages. The
interpreter is replaced by a sealed copy of itself before anything else happens; the engine's own
launcher starts the sealed copy directly.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Seal, then serve."""
    source, control = sys.argv[1], int(sys.argv[2])
    sys.path.insert(0, source)
    import os

    from sampan.runtime import freeze

    os.set_inheritable(control, True)
    freeze.seal()
    from sampan.shim import spawner

    spawner.main(control)


if __name__ == "__main__":
    main()
