"""The command line: serve, worker, call, sessions, dashboards, demo, doctor."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

_NOT_READ = 128 + signal.SIGPIPE
"""The exit status where the reader of the output has gone, as shells have it."""


def main() -> None:
    """Run the command line; the command `worker` without its libraries, where there is nothing to say to people."""
    command = sys.argv[1] if len(sys.argv) > 1 and "--help" not in sys.argv else ""
    if command == "worker":
        _run_server(_worker)
    elif command == "serve":
        _run_server(_serve)
    else:
        sys.exit(_run_command())


def _run_server(run: Callable[[], None]) -> None:
    from snakepit_otel.cli.first_process import end_with_first_process, has_orphans, reap_for_a_child
    from snakepit_otel.system import standard_streams

    standard_streams.open_closed(output=False)
    if has_orphans():
        reap_for_a_child()
    end_with_first_process()
    standard_streams.make_output_non_blocking()
    run()


def _serve() -> None:
    # Until there is something to be ended in good order.
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
    # Or gRPC writes a line for every connection that fails, which whoever reaches a port can have without end.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from snakepit_otel.cli.app import main as run_command

    run_command()


def _run_command() -> int | str | None:
    """Run a command whose output is its result; return its exit status: one of a failure if that is lost."""
    from snakepit_otel.system import standard_streams

    standard_streams.open_closed(output=True)
    output = standard_streams.check_output()
    status: int | str | None = None
    try:
        from snakepit_otel.cli.app import main as run_command

        run_command()
    except SystemExit as leaving:
        status = leaving.code
    except standard_streams.OutputLost:
        pass
    with suppress(standard_streams.OutputLost):
        sys.stdout.flush()
    if output.lost is None:
        return status
    if standard_streams.is_broken_pipe(output.lost):
        return status or _NOT_READ
    sys.stderr.write(f"error: the output cannot be written: {output.lost.strerror}\n")
    return status or 1


__all__ = ["main"]
