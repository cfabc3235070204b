"""`snakepit-otel call`: run one tool and print what it returns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import typer
from rich.pretty import pretty_repr

from snakepit_otel.bridge.client.client import Client
from snakepit_otel.bridge.wire.tool_listing import ListedTool
from snakepit_otel.cli.addresses import ADDRESS_HELP, Address, Config, client_of
from snakepit_otel.cli.arguments import ARGUMENTS_HELP, arguments_of
from snakepit_otel.cli.output import EXIT_CODES_HELP, console, json_text, lines, print_json, run
from snakepit_otel.cli.tools import nearest
from snakepit_otel.errors import DeadlineExceeded, InvalidArguments, SnakepitError, ToolNotFound

# Python's words in errors, and those of the command line.
_FLAGS = (("call it with a session_id", "give it one: --session ID"), ("call it with stream", "call it with --stream"))


class _Options(TypedDict):
    session_id: str | None
    timeout: float | None
    pool: str | None
    idempotent: bool


def call(
    tool: Annotated[str, typer.Argument(help="The tool's name.")],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help=ARGUMENTS_HELP),
    ] = None,
    session: Annotated[str | None, typer.Option(help="The session the request belongs to.")] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print the chunks of a streaming tool as they come.")
    ] = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait for the result.")] = None,
    pool: Annotated[
        str | None, typer.Option(help="The pool to run the tool in.", show_default="the one with the tool")
    ] = None,
    idempotent: Annotated[
        bool,
        typer.Option("--idempotent", help="Run the tool again if its worker dies; by default it runs at most once."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    address: Address = None,
    config: Config = None,
    tls_ca: Annotated[
        Path | None, typer.Option(help="PEM file of the authority that signed the server's certificate; turns TLS on.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file of a client certificate, if the server requires one.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of that certificate's key.")] = None,
) -> None:
    """Run one tool and print what it returns."""

    async def work() -> None:
        options: _Options = {"session_id": session, "timeout": timeout, "pool": pool, "idempotent": idempotent}
        async with client_of(
            address, config, root_certificates=tls_ca, certificate=tls_certificate, key=tls_key
        ) as client:
            listed = await _listed(client, tool, pool) if parameters else []
            try:
                arguments = arguments_of(parameters or [], _schema_of(tool, listed))
                if stream:
                    async for chunk in client.stream(tool, arguments, **options):
                        _print(chunk, as_json)
                else:
                    _print(await client.execute(tool, arguments, **options), as_json)
            except (InvalidArguments, ToolNotFound) as error:
                raise _with_hints(error, tool, listed or await _listed(client, tool, pool)) from None
            except SnakepitError as error:
                raise _with_hints(error, tool, ()) from None

    run(work)


call.__doc__ = f"{call.__doc__}\n\n{ADDRESS_HELP}\n\n{EXIT_CODES_HELP}"


def _schema_of(tool: str, listed: Sequence[ListedTool]) -> dict[str, Any] | None:
    return next((one.input_schema for one in listed if one.name == tool), None)


async def _listed(client: Client, tool: str, pool: str | None) -> list[ListedTool]:
    """Return the tools of a name, or else all tools; none from an address that lists none, such as one on TCP."""
    try:
        listed = await client.list_tools()
    except SnakepitError:
        return []
    return [one for one in listed if one.name == tool and pool in (None, one.pool)] or list(listed)


def _with_hints(error: SnakepitError, tool: str, listed: Sequence[ListedTool]) -> SnakepitError:
    """Return the error in the words of the command line, with the tool's signature, or the names of other tools."""
    text = str(error)
    for words, flag in _FLAGS:
        text = text.replace(words, flag)
    error.args = (text, *error.args[1:])
    matching = [one for one in listed if one.name == tool]
    if isinstance(error, InvalidArguments) and matching:
        error.add_note(f"{matching[0].name}{matching[0].signature}")
    if isinstance(error, ToolNotFound) and listed and not matching:
        error.add_note(f"{nearest(listed, tool)}; all are listed by: snakepit-otel tools")
    if isinstance(error, DeadlineExceeded):
        error.add_note("--timeout SECONDS gives it another time")
    return error


def _print(value: Any, as_json: bool) -> None:
    if as_json:
        print_json(value if not isinstance(value, bytes) else {"bytes": value.hex()})
    elif isinstance(value, (dict, list)):
        console.print(json_text(value), soft_wrap=True)
    else:
        console.print(lines(value if isinstance(value, str) else pretty_repr(value)), soft_wrap=True)
