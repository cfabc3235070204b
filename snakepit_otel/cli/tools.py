"""`snakepit-otel tools`: the tools that a running authority offers, with their arguments."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Column, Table

from snakepit_otel.bridge.wire.tool_listing import ListedTool
from snakepit_otel.cli.addresses import ADDRESS_HELP, Config, SocketAddress, client_of
from snakepit_otel.cli.output import EXIT_CODES_HELP, console, json_text, lines, print_json, print_wide, run
from snakepit_otel.errors import ToolNotFound

_SHOWN_NAMES = 20


def tools(
    name: Annotated[str | None, typer.Argument(help="Only this tool, with all of its documentation.")] = None,
    pool: Annotated[str | None, typer.Option(help="Only the tools of this pool.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, for scripts, with a JSON Schema of the arguments of each.")
    ] = False,
    address: SocketAddress = None,
    config: Config = None,
) -> None:
    """List the tools of a running server, or show one.

    With --json each is an object with name, pool, description, inputSchema (JSON Schema, draft 2020-12), streams and
    idempotent; the first four are what the Model Context Protocol and function calling of language models take.
    """

    async def work() -> None:
        async with client_of(address, config) as client:
            found = [one for one in await client.list_tools() if pool is None or one.pool == pool]
        if name is not None:
            found = named(found, name)
        if as_json:
            print_json([one.as_dict() for one in found])
        elif name is not None:
            for one in found:
                _print(one)
        else:
            print_wide(_table(found) if found else "no tools")

    run(work)


tools.__doc__ = f"{tools.__doc__}\n\n{ADDRESS_HELP}\n\n{EXIT_CODES_HELP}"


def named(listed: Sequence[ListedTool], name: str) -> list[ListedTool]:
    """Return the tools of a name, each of another pool. Raises `ToolNotFound`, with the nearest names."""
    found = [one for one in listed if one.name == name]
    if not found:
        raise ToolNotFound(f"there is no tool {name!r:.80}; {nearest(listed, name)}")
    return found


def nearest(listed: Sequence[ListedTool], name: str) -> str:
    """Return the end of a message about an unknown tool: the nearest names, or the first of all."""
    names = sorted({one.name for one in listed if not one.takes_any_name})
    near = difflib.get_close_matches(name, names, 3)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return f"there are: {', '.join(names[:_SHOWN_NAMES]) or 'none'}{more}"


def _table(found: Sequence[ListedTool]) -> Table:
    table = Table(*(Column(heading, overflow="fold") for heading in ("tool", "pool", "arguments", "about")), box=None)
    for one in found:
        title = "(any name)" if one.takes_any_name else one.name
        table.add_row(title, one.pool or "(authority)", one.signature, " ".join(_summary(one)))
    return table


def _summary(one: ListedTool) -> list[str]:
    flags = [flag for flag, is_set in (("streams", one.streams), ("idempotent", one.idempotent)) if is_set]
    first = " ".join(one.description.partition("\n\n")[0].split())
    return [part for part in (first, f"[{', '.join(flags)}]" if flags else "") if part]


def _print(one: ListedTool) -> None:
    console.print(lines(f"{one.name}{one.signature}", "bold"), soft_wrap=True)
    if one.description:
        console.print(lines(f"    {one.description}", indent="    "), soft_wrap=True)
    values = {
        "pool": one.pool or "(authority)",
        "adapter": one.adapter or "-",
        "streams": "yes" if one.streams else "no",
        "idempotent": "yes" if one.idempotent else "no",
    }
    for key, value in values.items():
        console.print(f"{key:10} {value}", soft_wrap=True)
    if one.input_schema is None:
        console.print("its arguments have no schema")
    else:
        console.print(json_text(one.input_schema), soft_wrap=True)
