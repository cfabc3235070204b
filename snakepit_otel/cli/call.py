"""`snakepit-otel call`: run one tool and print what it returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypedDict

import typer
from rich.pretty import pretty_repr

from snakepit_otel.cli.addresses import ADDRESS_HELP, Address, Config, client_of
from snakepit_otel.cli.output import EXIT_CODES_HELP, console, json_text, lines, print_json, run
from snakepit_otel.errors import ConfigurationError


class _Options(TypedDict):
    session_id: str | None
    timeout: float | None
    pool: str | None
    idempotent: bool


def call(
    tool: Annotated[str, typer.Argument(help="The tool's name.")],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(help="key=value pairs; a value is JSON, or text if it is not valid JSON. key:=… is JSON only."),
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
        arguments = _parameters(parameters or [])
        options: _Options = {"session_id": session, "timeout": timeout, "pool": pool, "idempotent": idempotent}
        async with client_of(
            address, config, root_certificates=tls_ca, certificate=tls_certificate, key=tls_key
        ) as client:
            if stream:
                async for chunk in client.stream(tool, arguments, **options):
                    _print(chunk, as_json)
            else:
                _print(await client.execute(tool, arguments, **options), as_json)

    run(work)


call.__doc__ = f"{call.__doc__}\n\n{ADDRESS_HELP}\n\n{EXIT_CODES_HELP}"


def _parameters(pairs: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        must_be_json = key.endswith(":")
        key = key.removesuffix(":")
        if not equals or not key:
            raise ConfigurationError(f"{pair!r} is no parameter; write key=value")
        try:
            found[key] = json.loads(text)
        except json.JSONDecodeError as error:
            if must_be_json:
                raise ConfigurationError(f"the value of {key!r} is not JSON: {error}") from None
            found[key] = text
    return found


def _print(value: Any, as_json: bool) -> None:
    if as_json:
        print_json(value if not isinstance(value, bytes) else {"bytes": value.hex()})
    elif isinstance(value, (dict, list)):
        console.print(json_text(value), soft_wrap=True)
    else:
        console.print(lines(value if isinstance(value, str) else pretty_repr(value)), soft_wrap=True)
