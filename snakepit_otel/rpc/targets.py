"""Targets of gRPC, from addresses as people write them: `unix:PATH` and `HOST:PORT`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from snakepit_otel.common.loopback import leads_here
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.rpc.local_sockets import LocalSocket, local_socket

_UNIX = "unix:"
_WITHOUT_OWNER = ("unix-abstract:", "vsock:")
# Without it, gRPC sends even loopback addresses through the proxy of `http_proxy`.
_NO_PROXY = ("grpc.enable_http_proxy", 0)


def target_of(address: str) -> str:
    """Return gRPC's URI for an address: characters of a socket's path may have a meaning there.

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


def socket_of(address: str) -> LocalSocket | None:
    """Return the Unix socket that an address leads to; None for one that leads to none.

    Raises `UnsafeSocket` for another user's, and `ConfigurationError` for a kind of address that has no
    owner: the first process to listen has it.
    """
    # gRPC takes any case.
    scheme = address.partition(":")[0].lower() + ":"
    if scheme in _WITHOUT_OWNER:
        raise ConfigurationError(
            f"{address!r:.200}: such a socket has no owner to check; use unix:/path/to/socket or host:port"
        )
    if scheme != _UNIX:
        return None
    target_of(_UNIX + address[len(_UNIX) :])
    path = address[len(_UNIX) :]
    # With an empty authority, as URIs have it.
    return local_socket(path[2:] if path.startswith("///") else path)


def channel_options(address: str, options: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return a channel's options, without a proxy for an address of this machine."""
    return [*options, _NO_PROXY] if leads_here(address) else [*options]
