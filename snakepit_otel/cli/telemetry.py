"""`snakepit-otel telemetry`: change level, sampling and filters of a running authority and its workers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from snakepit_otel.cli.addresses import Config, SocketAddress, client_of
from snakepit_otel.cli.output import console, print_json, run
from snakepit_otel.errors import ConfigurationError


def telemetry(
    level: Annotated[
        str | None, typer.Option(help="off, essential (the spans of requests and calls, all metrics) or full.")
    ] = None,
    sampling: Annotated[
        float | None, typer.Option(help="The share of traces to keep, 0 to 1, of the sampler's.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Only spans of lifecycle points with such names, as snakepit.adapter.*; may be repeated."),
    ] = None,
    deny: Annotated[
        list[str] | None, typer.Option(help="No spans of lifecycle points with such names; may be repeated.")
    ] = None,
    no_filter: Annotated[bool, typer.Option("--no-filter", help="Remove the --allow and --deny patterns.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    address: SocketAddress = None,
    config: Config = None,
) -> None:
    """Change the telemetry of a running server and its workers, and show what is in force.

    Options that are not given stay as they are. A restart of the server restores its configuration.
    """

    async def work() -> None:
        if no_filter and (allow or deny):
            raise ConfigurationError("--no-filter removes the patterns of --allow and --deny; give one or the other")
        patterns: dict[str, Any] = (
            {"allow": [], "deny": []} if no_filter else {"allow": allow or None, "deny": deny or None}
        )
        async with client_of(address, config) as client:
            now = await client.set_telemetry(level=level, sampling=sampling, **patterns)
        values = {"level": now.level, "sampling": now.sampling, "allow": list(now.allow), "deny": list(now.deny)}
        if as_json:
            print_json(values)
            return
        for key, value in values.items():
            text = ", ".join(value) or "-" if isinstance(value, list) else value
            console.print(f"{key:10} {text}", soft_wrap=True)

    run(work)
