"""`snakepit-otel worker` as a script that Elixir's Snakepit starts in place of its own of the same name.

Snakepit looks for that name in command lines when it cleans up after a run that died.
"""

import gc
import sys
from pathlib import Path

if __name__ == "__main__":
    # The directory of this file is not for imports.
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]

    from snakepit_otel.cli.worker_flags import parse
    from snakepit_otel.system import standard_streams

    standard_streams.open_closed(output=False)
    standard_streams.make_output_non_blocking()
    flags = parse(sys.argv[1:])
    if flags is not None:
        # Little of what is loaded from here on becomes garbage; `run` enables it again.
        gc.disable()
        from snakepit_otel.cli.worker import run

        run(flags)
    else:
        import typer

        from snakepit_otel.cli.worker_command import worker

        alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
        alone.command()(worker)
        alone()
