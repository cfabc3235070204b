"""Address of the authority to call: given, or from the environment, the file of settings or the user's socket."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.system.default_socket import default_socket, socket_in_use
from snakepit_otel.system.settings_file import SettingsFile, read_settings, settings_file

ADDRESS_VARIABLE = "SNAKEPIT_OTEL_ADDRESS"
_SERVER_VARIABLE = "SNAKEPIT_OTEL_SERVER"
_SOCKET_VARIABLE = f"{_SERVER_VARIABLE}__SOCKET"


def authority_address(
    address: str | None = None, config: Path | None = None, environ: Mapping[str, str] | None = None
) -> str:
    """Return the address to call, `unix:PATH` or `HOST:PORT`; a path stands for a Unix socket.

    The first of these: `address`; SNAKEPIT_OTEL_ADDRESS, unless a file `config` is given; the `server.socket` that
    `serve` would read in this folder, from SNAKEPIT_OTEL_SERVER__SOCKET, from `config`, the file that
    SNAKEPIT_OTEL_CONFIG names or ./snakepit.toml; the user's default socket. Raises `ConfigurationError` for a file
    that cannot be read, and where no directory will do for a default socket.
    """
    environ = os.environ if environ is None else environ
    if address is None and config is None:
        address = environ.get(ADDRESS_VARIABLE)
    if address and (address := address.strip()):
        return f"unix:{address}" if address.startswith(("/", "./", "../")) else address
    return f"unix:{_served_socket(config, environ) or socket_in_use() or default_socket()}"


def _served_socket(config: Path | None, environ: Mapping[str, str]) -> str | None:
    """Return `server.socket` as `serve` reads it; mistakes in other settings do not matter here."""
    if in_environment := environ.get(_SOCKET_VARIABLE, "").strip():
        return in_environment
    if found := _socket_of_group(environ.get(_SERVER_VARIABLE, "").strip()):
        return found
    file = settings_file(config, environ)
    return None if file is None else _socket_in(file)


def _socket_in(file: SettingsFile) -> str | None:
    server = read_settings(file).values.get("server", {})
    socket = server.get("socket") if isinstance(server, dict) else None
    return None if socket is None else _checked(socket, f"{file.path}: server.socket")


def _socket_of_group(text: str) -> str | None:
    if not text:
        return None
    try:
        server = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{_SERVER_VARIABLE}: this is no JSON object: {error}") from None
    socket = server.get("socket") if isinstance(server, dict) else None
    return None if socket is None else _checked(socket, f"{_SERVER_VARIABLE}: socket")


def _checked(socket: Any, where: str) -> str:
    if not isinstance(socket, str) or not socket.strip():
        raise ConfigurationError(f"{where}: input should be a path (got {socket!r})")
    return socket
