"""Options of the commands that call a running authority."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from snakepit_otel.bridge.client.address import authority_address
from snakepit_otel.bridge.client.client import Client

ADDRESS_HELP = (
    "Commands call the authority at --address or SNAKEPIT_OTEL_ADDRESS, unix:PATH or HOST:PORT. Without them, they "
    "find it where serve would listen: at the server.socket of SNAKEPIT_OTEL_SERVER__SOCKET, of the file that --config "
    "or SNAKEPIT_OTEL_CONFIG names, or of ./snakepit.toml, else at this user's default socket."
)

Address = Annotated[
    str | None,
    typer.Option(
        help="unix:PATH or HOST:PORT of the authority.",
        show_default="SNAKEPIT_OTEL_ADDRESS, or the socket of serve, for this folder and user",
    ),
]
SocketAddress = Annotated[
    str | None,
    typer.Option(
        help="unix:PATH of the authority.",
        show_default="SNAKEPIT_OTEL_ADDRESS, or the socket of serve, for this folder and user",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="The server's TOML file; its server.socket is called.",
        show_default="SNAKEPIT_OTEL_CONFIG, or ./snakepit.toml",
    ),
]


def client_of(address: str | None, config: Path | None, **options: Any) -> Client:
    """Return a client for the authority that the options name; see `authority_address`."""
    return Client(authority_address(address, config), **options)
