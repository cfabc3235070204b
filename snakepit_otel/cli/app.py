"""All commands in one application."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType
from typing import Annotated

import typer

from snakepit_otel._version import VERSION
from snakepit_otel.cli import (
    call,
    config,
    dashboards,
    demo,
    doctor,
    new,
    prove,
    requests,
    restart,
    serve,
    sessions,
    status,
    telemetry,
    tools,
    worker_command,
)
from snakepit_otel.cli.addresses import ADDRESS_HELP
from snakepit_otel.cli.output import replace_unencodable, shown
from snakepit_otel.common.printable import printable_lines
from snakepit_otel.common.secrets import learn
from snakepit_otel.telemetry._setup import set_level_by

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run stateless Python workers for callers that keep sessions, and see everything that happens.\n\n"
    + ADDRESS_HELP,
)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"snakepit-otel {VERSION}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command."""


app.command()(serve.serve)
app.command()(worker_command.worker)
app.command()(call.call)
app.command()(tools.tools)
app.add_typer(requests.app, name="requests")
app.add_typer(sessions.app, name="sessions")
app.add_typer(new.app, name="new")
app.add_typer(config.app, name="config")
app.command()(status.status)
app.command()(restart.restart)
app.command()(telemetry.telemetry)
app.command()(dashboards.dashboards)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.add_typer(prove.app, name="prove")


def main() -> None:
    """Run the command line."""
    replace_unencodable()
    learn(os.environ)
    set_level_by(os.environ)  # serve, worker and doctor name what is wrong with it
    try:
        app()
    except Exception:
        # Only here, as typer sets one of its own.
        sys.excepthook = _print_without_secrets
        raise


def _print_without_secrets(kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
    text = "".join(traceback.format_exception(kind, error, frames))
    sys.stderr.write(f"{printable_lines(shown(text.rstrip()))}\n")
