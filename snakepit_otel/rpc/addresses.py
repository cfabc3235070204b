"""Addresses to listen on: `unix:PATH` and `HOST:PORT`, and who can reach them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakepit_otel.common.loopback import is_loopback
from snakepit_otel.common.printable import printable
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.rpc.targets import target_of
from snakepit_otel.system.socket_files import SocketFile, make_socket

if TYPE_CHECKING:
    from grpc import aio

    from snakepit_otel.rpc.tls import ReloadingCredentials, Tls

MAX_MESSAGE_BYTES = 100 << 20  # either way, as upstream's workers have it
# gRPC's own limit, 8 KiB, is what W3C allows baggage alone.
MAX_METADATA_BYTES = 256 << 10
_MAX_SOCKET_PATH = 107
_LOOPBACK = ("127.0.0.1", "::1")
_MAX_ATTEMPTS = 10  # to find a port that is free on all addresses of a host


def options(max_message_bytes: int = MAX_MESSAGE_BYTES) -> list[tuple[str, Any]]:
    """Return the channel options that both sides use."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # Between the two gRPC refuses some calls and not others.
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        # Two servers on one port would share its calls; a port in use is to be an error.
        ("grpc.so_reuseport", 0),
    ]


SHARED_PORT: list[tuple[str, Any]] = [("grpc.so_reuseport", 1)]  # instead, for the port of a server that is replaced


def listen(
    server: aio.Server, address: str, *, tls: Tls | None = None, insecure: bool = False, replace: bool = False
) -> str:
    """Bind `server` to `unix:PATH` or `HOST:PORT` and return the address to call it by.

    Port 0 takes a free one. A host is looked up here, and all addresses found are listened on. With `replace`, the
    path may be of another server's socket, whose place is taken; ports are shared as the server's options say.
    Raises `ConfigurationError` for an address that is in use or no address, and for one beyond loopback without TLS
    or without certificates of clients, unless `insecure` is set.
    """
    if address.startswith("unix:"):
        listen_locally(server, Path(address.removeprefix("unix:")), replace=replace)
        return address
    host, port = split(address)
    open_to_all = not insecure and not only_known_callers(address, tls)
    if open_to_all and not is_loopback(host):
        raise ConfigurationError(_too_open(address, tls))
    found = _addresses(host, port)
    # The names of loopback are what the machine makes of them.
    wide = [ip for ip in found if not is_loopback(ip)]
    if open_to_all and wide:
        raise ConfigurationError(f"{host} is {', '.join(wide)} here; {_too_open(address, tls)}")
    files = _credentials(tls) if tls else None
    return f"{host}:{_bind_all(server, address, found, port, files)}"


def is_wide(address: str) -> bool:
    """Return whether other machines can reach an address that is listened on."""
    if address.startswith("unix:"):
        return False
    host, port = split(address)
    return not is_loopback(host) or not all(is_loopback(ip) for ip in _addresses(host, port))


def listen_locally(server: aio.Server, path: Path, *, replace: bool = False) -> SocketFile:
    """Bind `server` to a Unix socket in a private directory; return the socket. Raises `ConfigurationError`."""
    return bind_locally(path, lambda made: _bind(server, f"unix:{made}", None, f"unix:{path}"), replace=replace)


def bind_locally(path: Path, bind: Callable[[str], object], *, replace: bool = False) -> SocketFile:
    """Have `bind` listen for a Unix socket in a private directory; see `make_socket`. Raises `ConfigurationError`."""
    address = f"unix:{path}"
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise ConfigurationError(f"{address}: the path of a Unix socket has at most {_MAX_SOCKET_PATH} bytes")
    target_of(address)
    return make_socket(path, bind, replace=replace)


def only_known_callers(address: str, tls: Tls | None) -> bool:
    """Return whether callers at an address are identified: by a private socket, or by certificates."""
    return address.startswith("unix:") or (tls is not None and tls.client_ca is not None)


def split(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`; raise `ConfigurationError` if it is no such thing."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ConfigurationError(f"{address!r} is no address: use unix:/path/to/socket or host:port")
    return host, int(port)


def _too_open(address: str, tls: Tls | None) -> str:
    if tls is None:
        return (
            f"{address} can be reached from other machines; give TLS files "
            "(--tls-certificate, --tls-key, --tls-client-ca), listen on 127.0.0.1, or pass --insecure"
        )
    return (
        f"not serving on {address}, which can be reached from other machines: without the authority that signs "
        "clients' certificates (--tls-client-ca), anybody there may call; give it, listen on 127.0.0.1, "
        "or pass --insecure"
    )


def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of this machine that a host stands for. Raises `ConfigurationError` if there are none."""
    name = host.removeprefix("[").removesuffix("]")
    # Whatever else a machine has it for, localhost is loopback (RFC 6761), by both protocols.
    found = [*_LOOPBACK] if name.rstrip(".").lower() == "localhost" else []
    try:
        places = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        found = [*(str(place[0]) for *_, place in places), *found]
    except (OSError, UnicodeError) as error:
        if not found:
            why = error.strerror if isinstance(error, OSError) else "it is no name of a host"
            raise ConfigurationError(f"cannot listen on {printable(host)}:{port}: {why}") from None
    # Some machines have names for addresses of a protocol that is off.
    here = [ip for ip in dict.fromkeys(found) if _can_be_had(ip)]
    if not here:
        raise ConfigurationError(f"cannot listen on {printable(host)}:{port}: it is not an address of this machine")
    return here


def _can_be_had(ip: str) -> bool:
    ip, _, scope = ip.partition("%")
    with suppress(OSError), socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
        probe.bind((ip, 0, 0, socket.if_nametoindex(scope)) if scope else (ip, 0))
        return True
    return False


def _credentials(tls: Tls) -> ReloadingCredentials:
    # Imported late: it takes gRPC along.
    from snakepit_otel.rpc.tls import ReloadingCredentials

    return ReloadingCredentials(tls)


def _bind_all(server: aio.Server, address: str, found: list[str], port: int, files: ReloadingCredentials | None) -> int:
    """Listen on one port of all the addresses, and return it: no other process may have it on any of them."""
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        bound = port
        try:
            for ip in found:
                bound = _bind(server, f"[{ip}]:{bound}" if ":" in ip else f"{ip}:{bound}", files, address)
        except ConfigurationError:
            # A free port of the first address may be taken on the second.
            if port or len(found) == 1 or attempt == _MAX_ATTEMPTS:
                raise
        else:
            return bound
    raise AssertionError("the last attempt raises")


def _bind(server: aio.Server, place: str, files: ReloadingCredentials | None, address: str) -> int:
    try:
        if files is None:
            return server.add_insecure_port(target_of(place))
        return server.add_secure_port(target_of(place), files.credentials())
    except RuntimeError as error:
        why = "it is in use, or not an address of this machine" if not address.startswith("unix:") else str(error)
        raise ConfigurationError(f"cannot listen on {address}: {why}") from None
