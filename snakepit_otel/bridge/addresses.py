"""Where the bridge listens and whom it lets in."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from snakepit_otel.bridge.rpc.targets import target_of
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.loopback import is_loopback
from snakepit_otel.socket_files import SocketFile, make_socket

MAX_MESSAGE_BYTES = 100 << 20
"""The largest message either way, as upstream's workers have it."""
MAX_METADATA_BYTES = 256 << 10
"""The most metadata of a call either way. gRPC's own limit, 8 KiB, is what W3C allows baggage alone."""
_MAX_SOCKET_PATH = 107


@dataclass(frozen=True)
class Tls:
    """Files with the server's certificate chain and key, and the authority that signs clients' certificates."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Return the credentials; raise `ConfigurationError` naming a file that cannot be read or used."""
        try:
            chain, key = self.certificate.read_bytes(), self.key.read_bytes()
            clients = self.client_ca.read_bytes() if self.client_ca else None
        except OSError as error:
            raise ConfigurationError(f"TLS file {error.filename}: {error.strerror}") from None
        self._check()
        return grpc.ssl_server_credentials(
            [(key, chain)], root_certificates=clients, require_client_auth=clients is not None
        )

    def _check(self) -> None:
        # gRPC says of unusable files only that it could not listen.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key, password="")
        except ssl.SSLError as error:
            raise ConfigurationError(
                f"TLS certificate {self.certificate} and key {self.key} are not PEM, or not a pair, "
                f"or the key is encrypted ({error.reason or error})"
            ) from None
        try:
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
        except ssl.SSLError as error:
            raise ConfigurationError(
                f"TLS file {self.client_ca} has no PEM certificates ({error.reason or error})"
            ) from None


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


def listen(server: aio.Server, address: str, *, tls: Tls | None = None, insecure: bool = False) -> str:
    """Bind `server` to `unix:PATH` or `HOST:PORT` and return the address to call it by.

    Port 0 takes a free one. Raises `ConfigurationError` for an address that is in use or no address, and
    for one beyond loopback without TLS unless `insecure` says that this is meant.
    """
    if address.startswith("unix:"):
        listen_locally(server, Path(address.removeprefix("unix:")))
        return address
    host, port = split(address)
    if tls is None and not insecure and not is_loopback(host):
        raise ConfigurationError(
            f"{address} can be reached from other machines; give TLS files "
            "(--tls-certificate, --tls-key, --tls-client-ca), listen on 127.0.0.1, or say --insecure"
        )
    bound = _bind(server, address, tls.credentials() if tls else None)
    return f"{host}:{bound or port}"


def listen_locally(server: aio.Server, path: Path) -> SocketFile:
    """Bind `server` to a Unix socket in a directory of this user's alone, and return the socket.

    Raises `ConfigurationError` for a path that is in use or cannot be, and a directory that others may enter.
    """
    address = f"unix:{path}"
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise ConfigurationError(f"{address}: the path of a Unix socket has at most {_MAX_SOCKET_PATH} bytes")
    target_of(address)
    return make_socket(path, lambda made: _bind(server, f"unix:{made}", None))


def only_known_callers(address: str, tls: Tls | None) -> bool:
    """Say whether whoever calls at an address has shown who it is: by a private socket, or a certificate."""
    return address.startswith("unix:") or (tls is not None and tls.client_ca is not None)


def split(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`; raise `ConfigurationError` if it is no such thing."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ConfigurationError(f"{address!r} is no address: say unix:/path/to/socket or host:port")
    return host, int(port)


def _bind(server: aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        if credentials is None:
            return server.add_insecure_port(target_of(address))
        return server.add_secure_port(target_of(address), credentials)
    except RuntimeError as error:
        why = "it is in use, or not an address of this machine" if not address.startswith("unix:") else str(error)
        raise ConfigurationError(f"cannot listen on {address}: {why}") from None
