"""Targets of gRPC, from addresses as people write them: `unix:PATH` and `HOST:PORT`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.loopback import leads_here

_UNIX = "unix:"
_DIRECT = ("grpc.enable_http_proxy", 0)
"""Without it, gRPC takes even loopback addresses through the proxy that `http_proxy` names."""


def target_of(address: str) -> str:
    """Return the URI that gRPC is to have for an address: the path of a socket may have what means more in one.

    Raises `ConfigurationError` for a path with a comma, which gRPC takes for several, or that is not UTF-8.
    """
    try:
        raw = address.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{address!r} is not UTF-8; choose another") from None
    if not address.startswith(_UNIX):
        return address
    if "," in address or "\0" in address:
        raise ConfigurationError(f"{address!r}: gRPC cannot use a socket whose path has a comma or NUL; choose another")
    return _UNIX + quote(raw.removeprefix(_UNIX.encode()))


def channel_options(address: str, options: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return a channel's options, and for an address of this machine that no proxy of the environment is for it."""
    return [*options, _DIRECT] if leads_here(address) else [*options]
