"""`snakepit-otel restart`: replace the workers of a running authority, one after another."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from snakepit_otel.bridge.wire.restart_report import Replacement
from snakepit_otel.cli.addresses import ADDRESS_HELP, Config, SocketAddress, client_of
from snakepit_otel.cli.output import EXIT_CODES_HELP, EXIT_TOOL_FAILED, console, error_console, run


def restart(
    address: SocketAddress = None,
    config: Config = None,
    pool: Annotated[str | None, typer.Option(help="Only the workers of this pool.")] = None,
) -> None:
    """Replace all workers, one after another, while requests go on; return when that is done.

    A worker stops once its replacement is ready, and finishes its requests. Exit code 1 if a worker could not be
    replaced.
    """

    async def work() -> None:
        async with client_of(address, config) as client:
            try:
                report = await client.restart_workers(pool, _print)
            except asyncio.CancelledError:
                _print_error("the server goes on replacing workers; see: snakepit-otel status")
                raise
        done, failed = len(report.replacements), len(report.failures)
        console.print(f"{done - failed} of {done} workers replaced")
        if failed:
            raise typer.Exit(EXIT_TOOL_FAILED)

    run(work)


restart.__doc__ = f"{restart.__doc__}\n\n{ADDRESS_HELP}\n\n{EXIT_CODES_HELP}"


def _print(one: Replacement) -> None:
    if one.failure is not None:
        _print_error(f"{one.worker} was not replaced: {one.failure}")
        return
    left = f"{one.remaining} to go in pool {one.pool}" if one.remaining else f"the last of pool {one.pool}"
    console.print(f"{one.worker} -> {one.replacement}, {left}", soft_wrap=True)


def _print_error(text: str) -> None:
    error_console.print(text, soft_wrap=True)
