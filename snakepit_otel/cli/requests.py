"""`snakepit-otel requests`: list and cancel the requests of a running authority."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Column, Table

from snakepit_otel.bridge.wire.request_listing import ListedRequest
from snakepit_otel.cli.addresses import ADDRESS_HELP, Config, SocketAddress, client_of
from snakepit_otel.cli.output import (
    EXIT_CODES_HELP,
    EXIT_NOT_FOUND,
    console,
    error_console,
    print_json,
    print_wide,
    run,
)

_SHORT_ID = 12  # characters, which are enough to name a request
_HEADINGS = ("request", "tool", "session", "state", "age", "worker", "deadline in")

app = typer.Typer(
    no_args_is_help=True,
    help=f"List and cancel the requests that wait or run in a running server.\n\n{ADDRESS_HELP}",
)


@app.command("list")
def list_requests(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The largest number of requests.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    address: SocketAddress = None,
    config: Config = None,
) -> None:
    """List the requests that wait or run, the oldest first."""

    async def work() -> None:
        async with client_of(address, config) as client:
            found = await client.list_requests(limit)
        if as_json:
            print_json({"total": found.total, "requests": [asdict(one) for one in found.requests]})
            return
        table = Table(*(Column(heading, overflow="fold") for heading in _HEADINGS), box=None)
        for one in found.requests:
            table.add_row(*_row(one))
        print_wide(table if found.requests else "no requests")
        if found.total > len(found.requests):
            console.print(f"and {found.total - len(found.requests)} more: --limit {found.total}")

    run(work)


@app.command()
def cancel(
    request_id: Annotated[
        str, typer.Argument(metavar="ID", help="The request's id, or its first characters, 4 at least.")
    ],
    address: SocketAddress = None,
    config: Config = None,
) -> None:
    """Cancel a request, as if its caller had gone; the caller gets RequestCancelled. Exit code 3 if there is none."""

    async def work() -> None:
        async with client_of(address, config) as client:
            if not await client.cancel_request(request_id):
                error_console.print(f"no request '{request_id}' waits or runs", soft_wrap=True)
                raise typer.Exit(EXIT_NOT_FOUND)
        console.print(f"cancelled {request_id}", soft_wrap=True)

    run(work)


for _command in (list_requests, cancel):
    _command.__doc__ = f"{_command.__doc__}\n\n{EXIT_CODES_HELP}"


def _row(one: ListedRequest) -> tuple[str, ...]:
    deadline = "-" if one.deadline_seconds is None else f"{one.deadline_seconds:.1f} s"
    worker = one.worker_id or ("-" if one.pool else "(authority)")
    return (
        one.id[:_SHORT_ID],
        one.tool,
        one.session_id or "-",
        one.state,
        f"{one.age_seconds:.1f} s",
        worker,
        deadline,
    )
