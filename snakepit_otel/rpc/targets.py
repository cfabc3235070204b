"""Targets of gRPC, from addresses as people write them: `unix:PATH` and `HOST:PORT`."""

from __future__ import annotations

from urllib.parse import quote

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.rpc.local_sockets import LocalSocket, local_socket

_UNIX = "unix:"
_WITHOUT_OWNER = ("unix-abstract:", "vsock:")


def target_of(address: str) -> str:
    """Return gRPC's URI for an address. Raises `ConfigurationError` for one that gRPC would misread or is no UTF-8."""
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
    """Return the Unix socket of an address, if any. Raises `UnsafeSocket`; `ConfigurationError` for ownerless kinds."""
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
