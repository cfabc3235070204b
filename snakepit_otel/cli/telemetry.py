"""`snakepit-otel telemetry`: turn the telemetry of a running authority and its workers up and down."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from snakepit_otel.bridge.client.client import Client
from snakepit_otel.cli.addresses import resolved
from snakepit_otel.cli.call import Address
from snakepit_otel.cli.output import console, print_json, run
from snakepit_otel.errors import ConfigurationError


def telemetry(
    level: Annotated[
        str | None, typer.Option(help="off, essential (the spans of requests and calls, all metrics) or full.")
    ] = None,
    sampling: Annotated[
        float | None, typer.Option(help="The share of traces to keep, 0 to 1, of those that the sampler keeps.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Spans only of lifecycle points with such names, as snakepit.adapter.*; may be repeated."),
    ] = None,
    deny: Annotated[
        list[str] | None, typer.Option(help="No spans of lifecycle points with such names; may be repeated.")
    ] = None,
    no_filter: Annotated[bool, typer.Option("--no-filter", help="Forget what was allowed and denied.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    address: Address = None,
) -> None:
    """Turn telemetry up and down while the server runs, workers included; say what is in force.

    What is not given stays as it is, until the server stops: then what was configured is back.
    """

    async def work() -> None:
        if no_filter and (allow or deny):
            raise ConfigurationError("--no-filter forgets what --allow and --deny would say; give one or the other")
        patterns: dict[str, Any] = (
            {"allow": [], "deny": []} if no_filter else {"allow": allow or None, "deny": deny or None}
        )
        async with Client(resolved(address)) as client:
            now = await client.set_telemetry(level=level, sampling=sampling, **patterns)
        values = {"level": now.level, "sampling": now.sampling, "allow": list(now.allow), "deny": list(now.deny)}
        if as_json:
            print_json(values)
            return
        for key, value in values.items():
            text = ", ".join(value) or "-" if isinstance(value, list) else value
            console.print(f"{key:10} {text}", soft_wrap=True)

    run(work)
