"""The command line: serve, worker, call, sessions, dashboards, demo, doctor."""

import gc
import os
import sys


def main() -> None:
    """Run the command line; the command `worker` without its libraries, where there is nothing to say to people."""
    from snakepit_otel.cli.worker_flags import parse

    flags = parse(sys.argv[2:]) if sys.argv[1:2] == ["worker"] else None
    if flags is not None:
        # Little of what is loaded from here on becomes garbage; `run` enables it again.
        gc.disable()
        from snakepit_otel.cli.worker import run

        run(flags)
        return
    # Or gRPC writes a line for every connection that fails, which whoever reaches a port can have without end.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from snakepit_otel.cli.app import main as run_command

    run_command()


__all__ = ["main"]
