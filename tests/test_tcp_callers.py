"""Callers on TCP: who may be one, what they have, and how that is shown."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from snakepit_otel import Snakepit
from snakepit_otel.bridge.proto import snakepit_admin_pb2 as admin_pb
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto import snakepit_supervision_pb2 as supervision_pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.errors import ConfigurationError
from tests.adapters_for_tests import Useful
from tests.certificates import authority, files, signed
from tests.processes import run

SERVICES = [service for file in (admin_pb, supervision_pb) for service in file.DESCRIPTOR.services_by_name.values()]
METHODS = [f"/{service.full_name}/{method.name}" for service in SERVICES for method in service.methods]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a server's and a client's certificate of it."""
    directory = tmp_path_factory.mktemp("certificates")
    authority(directory, "ca")
    for name in ("server", "client"):
        signed(directory, name, "ca")
    return directory


def tls(directory: Path) -> dict[str, Path]:
    """Return the settings of a server that asks for certificates."""
    certificate, key = files(directory, "server")
    return {"certificate": certificate, "key": key, "client_ca": directory / "ca.pem"}


@asynccontextmanager
async def certified(directory: Path, address: str) -> AsyncIterator[aio.Channel]:
    """Connect with a certificate."""
    certificate, key = (path.read_bytes() for path in files(directory, "client"))
    credentials = grpc.ssl_channel_credentials((directory / "ca.pem").read_bytes(), key, certificate)
    async with aio.secure_channel(address, credentials) as channel:
        yield channel


@asynccontextmanager
async def anonymous(_: Path, address: str) -> AsyncIterator[aio.Channel]:
    """Connect as anybody."""
    async with aio.insecure_channel(address) as channel:
        yield channel


@pytest.mark.parametrize("connect", [anonymous, certified], ids=["anonymous", "certified"])
async def test_a_caller_on_tcp_is_no_operator(certificates: Path, connect: Any) -> None:
    """What operators and supervisors have is not there on TCP, with a certificate or without."""
    server: dict[str, Any] = {"listen": "127.0.0.1:0"}
    if connect is certified:
        server["tls"] = tls(certificates)
    assert len(METHODS) >= 8
    async with Snakepit(Useful, workers=1, server=server) as pit, connect(certificates, str(pit.address)) as channel:
        assert await BridgeServiceStub(channel).Ping(pb.PingRequest(), timeout=20)
        for method in METHODS:
            with pytest.raises(aio.AioRpcError) as refused:
                await channel.unary_unary(method)(b"", timeout=20)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED, method


@pytest.mark.parametrize(
    ("server", "level", "words"),
    [
        ({"listen": "127.0.0.1:0"}, "INFO", "is open to anybody on this machine, whatever user they are"),
        (
            {"listen": "0.0.0.0:0", "insecure": True},
            "WARNING",
            "is open to anybody who reaches it, from other",
        ),
        ({}, None, "is open to"),
    ],
    ids=["loopback", "wide", "unix"],
)
async def test_who_may_call_is_logged_at_the_start(
    server: dict[str, Any], level: str | None, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An address that others may call at has a line that says so, and a private one has none."""
    caplog.set_level(logging.INFO, logger="snakepit_otel.authority")
    async with Snakepit(Useful, workers=1, server=server):
        found = [record.levelname for record in caplog.records if words in record.getMessage()]
    assert found == ([level] if level else [])


async def test_commands_have_certificates(certificates: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`call` speaks TLS with the files that it is given, and says what is missing without."""
    caplog.set_level(logging.INFO, logger="snakepit_otel.authority")
    certificate, key = map(str, files(certificates, "client"))
    with_ca = ("--tls-ca", str(certificates / "ca.pem"))
    async with Snakepit(Useful, workers=1, server={"listen": "localhost:0", "tls": tls(certificates)}) as pit:
        assert "is open to" not in caplog.text
        call = ("call", "echo", "value=1", "--json", "--address", str(pit.address))
        (right, output, _), (status, _, complaint) = await asyncio.gather(
            run(*call, *with_ca, "--tls-certificate", certificate, "--tls-key", key), run(*call, *with_ca)
        )
        assert (right, json.loads(output)) == (0, 1)
        assert status == 4
        assert "if the server wants clients' certificates, give one" in complaint
        assert "ssl_transport_security" not in complaint, "gRPC has lines of its own about it"


@pytest.mark.parametrize("client_ca", [True, False])
async def test_tls_without_certificates_of_clients_is_for_loopback(certificates: Path, client_ca: bool) -> None:
    """Beyond loopback that would let anybody call, and the error names the options that are missing."""
    given = tls(certificates)
    if not client_ca:
        del given["client_ca"]
    pit = Snakepit(Useful, workers=1, server={"listen": "0.0.0.0:0", "tls": given})
    if client_ca:
        async with pit:
            assert str(pit.address).startswith("0.0.0.0:")
        return
    with pytest.raises(ConfigurationError, match=r"--tls-client-ca.* or pass --insecure"):
        await pit.start()
