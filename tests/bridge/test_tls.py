"""TLS on the bridge, with certificates of its own."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from grpc import aio

from snakepit_otel import Client
from snakepit_otel.bridge.addresses import listen, options
from snakepit_otel.bridge.authority import AuthorityService
from snakepit_otel.bridge.gateway import Gateway
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import add_BridgeServiceServicer_to_server
from snakepit_otel.bridge.registry import ToolRegistry
from snakepit_otel.bridge.state_tools import STATE_TOOLS
from snakepit_otel.bridge.tls import Tls
from snakepit_otel.errors import AuthorityUnavailable, ConfigurationError
from snakepit_otel.sessions import SessionStore
from tests.bridge.parts import NoWorkers

Serve = Callable[[Tls], Awaitable[str]]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, `ca` and `other`, and what `ca` signed: `server` for localhost, and `client`."""
    directory = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        openssl(
            "req",
            "-x509",
            *new_key,
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
            "-days",
            "1",
            "-subj",
            f"/CN={name}",
        )
    for name in ("server", "client"):
        openssl("req", "-new", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (directory / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-out", f"{name}.pem", "-days", "1", "-extfile", "names"),
        )
    return directory


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve an authority over TLS on a free port."""
    servers: list[aio.Server] = []

    async def start(tls: Tls) -> str:
        server = aio.server(options=options())
        servers.append(server)
        gateway = Gateway(SessionStore(), ToolRegistry(STATE_TOOLS), NoWorkers())
        add_BridgeServiceServicer_to_server(AuthorityService(gateway), server)
        address = listen(server, "localhost:0", tls=tls)
        await server.start()
        return address

    yield start
    for server in servers:
        await server.stop(None)


def files(directory: Path, name: str) -> tuple[Path, Path]:
    """Return a certificate and its key."""
    return directory / f"{name}.pem", directory / f"{name}.key"


async def test_the_right_authority_is_trusted(serve: Serve, certificates: Path) -> None:
    """A client that trusts the signer of the server's certificate gets through."""
    address = await serve(Tls(*files(certificates, "server")))
    async with Client(address, root_certificates=certificates / "ca.pem") as client:
        await client.ping()


async def test_another_authority_is_not(serve: Serve, certificates: Path) -> None:
    """A client that trusts somebody else refuses the server."""
    address = await serve(Tls(*files(certificates, "server")))
    async with Client(address, root_certificates=certificates / "other.pem") as client:
        with pytest.raises(AuthorityUnavailable, match="cannot be reached"):
            await client.ping()


async def test_plain_text_is_refused(serve: Serve, certificates: Path) -> None:
    """A client without TLS gets nothing."""
    address = await serve(Tls(*files(certificates, "server")))
    async with Client(address) as client:
        with pytest.raises(AuthorityUnavailable):
            await client.ping()


async def test_a_client_certificate_is_asked_for(serve: Serve, certificates: Path) -> None:
    """With `client_ca`, only clients with a certificate it signed get through."""
    address = await serve(Tls(*files(certificates, "server"), client_ca=certificates / "ca.pem"))
    trusted = certificates / "ca.pem"
    for name, welcome in (("client", True), ("other", False), (None, False)):
        certificate, key = files(certificates, name) if name else (None, None)
        async with Client(address, root_certificates=trusted, certificate=certificate, key=key) as client:
            if welcome:
                await client.ping()
            else:
                with pytest.raises(AuthorityUnavailable):
                    await client.ping()


async def test_files_that_will_not_do_are_named(serve: Serve, certificates: Path) -> None:
    """A certificate with another's key, and files that are no PEM, are told as such before anything listens."""
    certificate, key = files(certificates, "server")
    junk = certificates / "junk"
    junk.write_text("junk")
    for tls, words in (
        (
            Tls(certificate, certificates / "client.key"),
            f"{certificate} and key .*client.key are not PEM, or not a pair",
        ),
        (Tls(junk, key), f"TLS certificate {junk} and key"),
        (Tls(certificate, junk), "are not PEM"),
        (Tls(certificate, key, client_ca=junk), f"TLS file {junk} has no PEM certificates"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            await serve(tls)
