"""The command line: serve, worker, call, tools, requests, sessions, dashboards, demo, doctor."""

import errno
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

_EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE  # as shells report it


def main() -> None:
    """Run the command line; `worker` without the libraries for help and errors, unless it needs them."""
    command = sys.argv[1] if len(sys.argv) > 1 and "--help" not in sys.argv else ""
    if command == "worker":
        _run_server(_worker)
    elif command == "serve":
        _run_server(_serve)
    else:
        sys.exit(_run_command())


def _run_server(run: Callable[[], None]) -> None:
    from snakepit_otel.cli.detaching import detach
    from snakepit_otel.cli.first_process import exit_with_reaper, has_orphans, run_as_reaper
    from snakepit_otel.system import standard_streams

    detach()
    standard_streams.open_closed(output=False)
    if has_orphans():
        run_as_reaper()
    exit_with_reaper()
    standard_streams.make_output_non_blocking()
    run()


def _serve() -> None:
    # Until `Signals` takes over, there is nothing to shut down.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    from snakepit_otel.cli.app import main as run_command

    run_command()


def _worker() -> None:
    from snakepit_otel.cli.worker_flags import parse

    flags = parse(sys.argv[2:])
    if flags is not None:
        # Little of what is loaded from here on becomes garbage; `run` enables it again.
        gc.disable()
        from snakepit_otel.cli.worker import run

        run(flags)
        return
    # By default gRPC writes a line for every failed connection: whoever reaches the port could fill the log.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from snakepit_otel.cli.app import main as run_command

    run_command()


def _run_command() -> int | str | None:
    """Run a command whose output is its result; return its exit status, a failure if the output is lost."""
    from snakepit_otel.system import standard_streams

    standard_streams.open_closed(output=True)
    output = standard_streams.check_output()
    status: int | str | None = None
    try:
        from snakepit_otel.cli.app import main as run_command

        run_command()
    except SystemExit as error:
        status = error.code
    except standard_streams.OutputLost:
        pass
    with suppress(standard_streams.OutputLost):
        sys.stdout.flush()
    if output.lost is None:
        return status
    if output.lost.errno == errno.EPIPE:
        return status or _EXIT_BROKEN_PIPE
    sys.stderr.write(f"error: the output cannot be written: {output.lost.strerror}\n")
    return status or 1


__all__ = ["main"]
