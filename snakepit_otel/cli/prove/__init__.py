"""`snakepit-otel prove`: proofs of what is promised, on a machine of one's own."""

from __future__ import annotations

import typer

from snakepit_otel.cli.prove import ledger

app = typer.Typer(no_args_is_help=True, help="Prove what is promised, on this machine.")
app.command()(ledger.ledger)
