"""`python -m sampan.daemon`, which is `sampan daemon`: flags, then serve in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from sampan.daemon import config, logging, rootless
from sampan.errors import SampanError
from sampan.kernel import heap

if TYPE_CHECKING:
    from collections.abc import Sequence


def parser() -> argparse.ArgumentParser:
    """The flags; what is not given stays out of the namespace."""
    made = argparse.ArgumentParser(
        prog="sampan daemon",
        description="Serve the Docker Engine API. Containers outlive the daemon.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    made.add_argument("--root", metavar="DIR", help="data that survives a reboot")
    made.add_argument("--state", metavar="DIR", help="sockets and what belongs to this boot")
    made.add_argument("--host", metavar="URL", help="where to listen (unix:///path)")
    made.add_argument("--tcp", metavar="URL", help="listen for certified clients (tcp://host:port)")
    made.add_argument("--tlscacert", dest="tls_ca", metavar="FILE", help="the clients' authority")
    made.add_argument("--tlscert", dest="tls_cert", metavar="FILE", help="our certificate")
    made.add_argument("--tlskey", dest="tls_key", metavar="FILE", help="its key")
    made.add_argument("--config", metavar="FILE", help=f"settings (default {config.CONFIG_FILE})")
    made.add_argument("--group", metavar="NAME", help="who may use the socket besides the owner")
    made.add_argument(
        "--hooks-dir",
        dest="hooks_directories",
        action="append",
        metavar="DIR",
        help="a directory of OCI hooks, in place of those of the settings; may be repeated",
    )
    made.add_argument("--log-level", choices=logging.LEVELS)
    made.add_argument("--log-format", choices=logging.FORMATS)
    made.add_argument(
        "--idle-exit",
        type=int,
        metavar="SECONDS",
        help="leave when for so long no container ran and no request came",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; its exit code."""
    flags = vars(parser().parse_args(argv))
    try:
        load = partial(config.load, flags, os.environ, rootless.enter())
        settings = load()
        logging.configure(settings.log_level, settings.log_format)
        keep_to_ourselves()
        heap.share()
        # Imported late: a wrong flag should not cost the time of a whole server. Until it is ready,
        # next to nothing of what is made becomes garbage.
        gc.disable()
        from sampan.daemon.serve import serve

        asyncio.run(serve(settings, load))
    except SampanError as error:
        sys.stderr.write(f"sampan daemon: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def keep_to_ourselves() -> None:
    """Let no descriptor that we were started with pass to processes that we start."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError:
                continue  # the directory's own


if __name__ == "__main__":
    sys.exit(main())
