"""TLS with certificates of its own: callers that are let in, and callers that are not."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import ssl
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from snakepit_otel import Client
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import (
    BridgeServiceServicer,
    add_BridgeServiceServicer_to_server,
)
from snakepit_otel.bridge.wire.peers import Peer, peer_of
from snakepit_otel.errors import AuthorityUnavailable, ConfigurationError
from snakepit_otel.rpc import keepalive
from snakepit_otel.rpc import tls as tls_module
from snakepit_otel.rpc.addresses import listen, options
from snakepit_otel.rpc.tls import Tls
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.certificates import authority, files, signed
from tests.waiting import BUSY

HANDSHAKE = 0.5
"""Seconds that the servers of these tests give a connection for its beginning."""
HELLO = b"\x16\x03\x01\x02"
"""The beginning of a TLS connection."""
RELOADS = names.METRIC_SERVER_TLS_RELOADS.name


class Called(BridgeServiceServicer):
    """Answers a ping, and notes who sent it."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []

    async def Ping(self, request: pb.PingRequest, context: Any) -> pb.PingResponse:
        """Answer."""
        self.peers.append(peer_of(context))
        return pb.PingResponse(message="pong")


Serve = Callable[..., Awaitable[str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, `ca` and `other`, and what they have signed."""
    directory = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "other"):
        authority(directory, name)
    for name in ("server", "renewed", "client"):
        signed(directory, name, "ca")
    signed(directory, "elsewhere", "ca", "DNS:elsewhere.invalid")
    signed(directory, "old", "ca", days=-1)
    signed(directory, "stranger", "other")
    signed(directory, "many", "ca", "DNS:a.invalid,DNS:b.invalid,URI:spiffe://c/d,email:e@f.invalid")
    signed(directory, "plain", "ca", None, subject="/O=Org/CN=only a common name")
    return directory


@pytest.fixture
def certificates(made: Path, tmp_path: Path) -> Path:
    """The same for a test of its own, which may change them."""
    return Path(shutil.copytree(made, tmp_path / "certificates"))


@pytest.fixture
def called() -> Called:
    """What the servers of a test serve."""
    return Called()


@pytest.fixture
async def serve(called: Called) -> AsyncIterator[Serve]:
    """Serve on a free port."""
    servers: list[aio.Server] = []

    async def start(tls: Tls | None, host: str = "localhost") -> str:
        others = [option for option in keepalive.LISTENER if option[0] != "grpc.server_handshake_timeout_ms"]
        server = aio.server(
            options=[*options(), *others, ("grpc.server_handshake_timeout_ms", round(HANDSHAKE * 1000))]
        )
        servers.append(server)
        add_BridgeServiceServicer_to_server(called, server)
        address = listen(server, f"{host}:0", tls=tls)
        await server.start()
        return address

    yield start
    for server in servers:
        await server.stop(None)


def server_of(directory: Path, *, mutual: bool = True) -> Tls:
    """Return the files of the server that `ca` has signed."""
    return Tls(*files(directory, "server"), client_ca=directory / "ca.pem" if mutual else None)


def client(address: str, directory: Path, name: str | None = "client", ca: str = "ca") -> Client:
    """Return a client with one of the certificates."""
    certificate, key = files(directory, name) if name else (None, None)
    # Each has a connection of its own, or one that was let in would serve all.
    return Client(address, root_certificates=directory / f"{ca}.pem", certificate=certificate, key=key)


async def refused(client: Client) -> str:
    """Return what a client is told that does not get through."""
    async with client:
        with pytest.raises(AuthorityUnavailable) as told:
            await client.ping(timeout=20)
    return str(told.value)


async def let_in(client: Client) -> None:
    """Fail unless the client gets through."""
    async with client:
        await client.ping(timeout=20)


def shake_hands(
    address: str,
    directory: Path,
    name: str = "client",
    version: ssl.TLSVersion | None = None,
    before: ssl.SSLSession | None = None,
    context: ssl.SSLContext | None = None,
) -> tuple[bytes | None, str | None, ssl.SSLSession | None, bool]:
    """Connect as Python does; return the server's certificate, the version, the session, and whether it was resumed.

    Raises `OSError` where the server does not begin to speak HTTP/2.
    """
    context = context or new_context(directory, name)
    if version is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = version
    host, port = address.split(":")
    with (
        socket.create_connection((host, int(port)), 20) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=before) as wrapped,
    ):
        wrapped.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04\0\0\0\0\0")
        if not wrapped.recv(100):
            raise ConnectionResetError("closed")
        return wrapped.getpeercert(binary_form=True), wrapped.version(), wrapped.session, bool(wrapped.session_reused)


def new_context(directory: Path, name: str) -> ssl.SSLContext:
    """Return what Python connects with."""
    context = ssl.create_default_context(cafile=directory / "ca.pem")
    context.load_cert_chain(*files(directory, name))
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def der(directory: Path, name: str) -> bytes:
    """Return a certificate as it is sent."""
    return ssl.PEM_cert_to_DER_cert((directory / f"{name}.pem").read_text())


async def test_the_right_authority_is_trusted(serve: Serve, made: Path) -> None:
    """A client that trusts the signer of the server's certificate gets through."""
    await let_in(client(await serve(server_of(made, mutual=False)), made, None))


@pytest.mark.parametrize(
    ("server", "ca", "advice"),
    [
        ("server", "other", "certificate is not signed by the authority given"),
        ("elsewhere", "ca", "certificate is not for the name in the address"),
        ("old", "ca", "certificate has expired"),
    ],
)
async def test_a_server_is_refused_for_a_reason(serve: Serve, made: Path, server: str, ca: str, advice: str) -> None:
    """A server of another signer, name or time is refused, and the error says which of them it is."""
    address = await serve(Tls(*files(made, server)))
    assert advice in await refused(client(address, made, None, ca))


async def test_plain_text_is_refused(serve: Serve, made: Path) -> None:
    """A client without TLS gets nothing but the advice to use it."""
    address = await serve(server_of(made, mutual=False))
    assert "if the server speaks TLS, give" in await refused(Client(address))


async def test_tls_is_not_understood_by_a_plain_server(serve: Serve, made: Path) -> None:
    """A client with TLS is told that the server has none."""
    assert "does not speak TLS" in await refused(client(await serve(None), made))


@pytest.mark.parametrize("name", ["client", "stranger", "old", "other", None])
async def test_a_client_certificate_is_asked_for(serve: Serve, made: Path, called: Called, name: str | None) -> None:
    """With `client_ca`, only clients get through that have a certificate it signed, and that has not expired."""
    address = await serve(server_of(made))
    if name == "client":
        await let_in(client(address, made, name))
        return
    assert "give one that its client CA has signed" in await refused(client(address, made, name))
    assert not called.peers


@pytest.mark.parametrize("signer", ["client", "plain"])
async def test_a_client_cannot_sign_others(serve: Serve, certificates: Path, called: Called, signer: str) -> None:
    """A certificate that a client has signed with its own lets nobody in, though that leads to `client_ca`."""
    signed(certificates, "forged", signer)
    chain = (certificates / "forged.pem").read_text() + (certificates / f"{signer}.pem").read_text()
    (certificates / "forged.pem").write_text(chain)
    address = await serve(server_of(certificates))
    assert "client CA has signed" in await refused(client(address, certificates, "forged"))
    assert not called.peers


@pytest.mark.parametrize(
    ("version", "welcome"),
    [
        (ssl.TLSVersion.TLSv1, False),
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
    ids=["1.0", "1.1", "1.2", "1.3"],
)
async def test_versions(serve: Serve, made: Path, version: ssl.TLSVersion, welcome: bool) -> None:
    """TLS before 1.2 is refused."""
    address = await serve(server_of(made))
    if welcome:
        assert (await asyncio.to_thread(shake_hands, address, made, "client", version))[1]
        return
    with pytest.raises(OSError):  # noqa: PT011 - what becomes of it depends on who hangs up first
        await asyncio.to_thread(shake_hands, address, made, "client", version)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        HELLO,
        HELLO + bytes(400),
        b"\x16\x03\x01\xff\xff" + b"x" * 1000,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 100_000,
    ],
    ids=["nothing", "begun", "half", "long", "http", "garbage"],
)
async def test_half_a_handshake_is_ended(serve: Serve, made: Path, sent: bytes) -> None:
    """Whoever does not go on with TLS is hung up on in bounded time, and others are let in meanwhile."""
    address = await serve(server_of(made))

    def attack() -> float:
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), 60) as plain:
            began = time.monotonic()
            try:
                plain.sendall(sent)
                while plain.recv(1000):
                    pass
            except ConnectionError:
                pass
            return time.monotonic() - began

    attacking = asyncio.ensure_future(asyncio.to_thread(attack))
    await let_in(client(address, made))
    assert await attacking < HANDSHAKE + BUSY


async def test_a_plain_connection_that_never_begins_is_ended(serve: Serve) -> None:
    """Without TLS, too, whoever connects and is silent is hung up on."""
    host, port = (await serve(None)).split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(HANDSHAKE + BUSY):
        await reader.read()
    writer.close()


def test_servers_give_ten_seconds() -> None:
    """What servers of ours have for it, in milliseconds."""
    assert dict(keepalive.LISTENER)["grpc.server_handshake_timeout_ms"] == 10_000


# Files.


def test_files_that_will_not_do_are_named(certificates: Path) -> None:
    """Files that are not there, no PEM, too large or not a pair are named before anything listens."""
    certificate, key = files(certificates, "server")
    junk, empty, large = (certificates / name for name in ("junk", "empty", "large"))
    junk.write_text("junk")
    empty.touch()
    large.write_bytes(bytes((1 << 20) + 1))
    for tls, words in (
        (
            Tls(certificate, certificates / "client.key"),
            f"{certificate} and key .*client.key are not PEM, or not a pair",
        ),
        (Tls(junk, key), f"TLS certificate {junk} and key"),
        (Tls(certificate, junk), "are not PEM"),
        (Tls(empty, key), f"TLS certificate {empty} and key"),
        (Tls(certificate, key, client_ca=junk), f"TLS file {junk} has no PEM certificates"),
        (Tls(certificate, key, client_ca=empty), f"TLS file {empty} has no PEM certificates"),
        (Tls(certificate, key, client_ca=key), f"TLS file {key} has no PEM certificates"),
        (Tls(large, key), f"TLS file {large} has more than 1048576 bytes"),
        (Tls(certificate, Path("/dev/zero")), "TLS file /dev/zero has more than"),
        (Tls(certificates, key), f"TLS file {certificates}: Is a directory"),
        (Tls(certificate, certificates / "none"), "TLS file .*none: No such file"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            tls.check()


def test_until_when_a_certificate_is_valid(made: Path) -> None:
    """Its end is known where it is valid now."""
    ends = Tls(*files(made, "server")).check()
    assert ends is not None
    left = datetime.fromisoformat(ends.replace(" UTC", "+00:00")) - datetime.now(UTC)
    assert timedelta(hours=23) < left < timedelta(hours=25)
    assert Tls(*files(made, "old")).check() is None


async def test_what_is_wrong_with_files_in_use_is_logged(
    serve: Serve, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate that has expired, and a key that everybody may read, are warnings at the start."""
    (certificates / "old.key").chmod(0o644)
    await serve(Tls(*files(certificates, "old")))
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 2
    assert "old.key is readable by everybody on this machine (mode 0644): chmod 600" in warned[0]
    assert "old.pem has expired: clients refuse it" in warned[1]


async def test_files_that_are_pipes(serve: Serve, made: Path) -> None:
    """What can be read but once, as a shell's <(…), is read at the start and never again."""
    reading, writing = os.pipe()
    os.write(writing, (made / "server.key").read_bytes())
    os.close(writing)
    try:
        address = await serve(Tls(made / "server.pem", Path(f"/dev/fd/{reading}")))
    finally:
        os.close(reading)
    await let_in(client(address, made, None))
    await let_in(client(address, made, None))


def test_pipes_that_do_not_end(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody writes to is empty, and one whose writer is silent is waited for in bounded time."""
    monkeypatch.setattr(tls_module, "_PIPE_TIMEOUT_S", 0.1)
    pipe = certificates / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigurationError, match="are not PEM"):
        Tls(certificates / "server.pem", pipe).check()
    writer = os.open(pipe, os.O_RDWR)
    try:
        os.write(writer, b"-----BEGIN")
        with pytest.raises(ConfigurationError, match="pipe does not end within"):
            Tls(certificates / "server.pem", pipe).check()
    finally:
        os.close(writer)


def replace(directory: Path, name: str, by: str) -> None:
    """Put another certificate and its key in the place of some, as tools that renew them do."""
    for end in ("pem", "key"):
        shutil.copy(directory / f"{by}.{end}", directory / f"new.{end}")
        (directory / f"new.{end}").replace(directory / f"{name}.{end}")


def served(address: str, directory: Path) -> bytes | None:
    """Return the certificate that the server has."""
    return shake_hands(address, directory)[0]


async def test_a_new_certificate_needs_no_restart(
    serve: Serve, certificates: Path, capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """New connections have the new certificate, on every address, and those before go on; it is counted."""
    caplog.set_level(logging.INFO)
    address = await serve(server_of(certificates))
    port = address.split(":")[1]
    async with client(address, certificates) as before:
        await before.ping()
        assert served(address, certificates) == der(certificates, "server")
        replace(certificates, "server", "renewed")
        for host in ("127.0.0.1", "localhost"):
            assert await asyncio.to_thread(served, f"{host}:{port}", certificates) == der(certificates, "renewed")
        await before.ping()
    assert [(point.value, dict(point.attributes)) for point in capture.points(RELOADS)] == [(1, {})]
    assert caplog.text.count("the TLS files have changed, and new connections have what is in them") == 1


async def test_bad_new_files_leave_the_old_ones(
    serve: Serve, certificates: Path, capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that cannot be used is logged once and counted; the next that can is taken."""
    address = await serve(server_of(certificates))
    was = der(certificates, "server")
    certificate, key = files(certificates, "server")
    for spoil in (
        lambda: certificate.write_text("junk"),
        # As it is while somebody renews both.
        lambda: shutil.copy(certificates / "renewed.pem", certificate),
        key.unlink,
        lambda: os.mkfifo(key),
    ):
        caplog.clear()
        spoil()
        for _ in range(3):
            assert await asyncio.to_thread(served, address, certificates) == was
        assert caplog.text.count("cannot be used; those before stay") <= 1
    assert "server.key is gone, or no regular file" not in caplog.text, "it is the same complaint as before"
    shutil.copy(certificates / "renewed.key", certificates / "new.key")
    (certificates / "new.key").replace(key)
    assert await asyncio.to_thread(served, address, certificates) == der(certificates, "renewed")
    counted = {point.attributes.get(names.ERROR_TYPE): point.value for point in capture.points(RELOADS)}
    assert counted == {"unusable_files": 3, None: 1}


async def test_a_new_authority_for_clients_lets_the_old_ones_in_no_more(serve: Serve, certificates: Path) -> None:
    """Clients of the authority before are refused from then on, and so are their resumed sessions; new ones get in."""
    address = await serve(server_of(certificates))
    context = new_context(certificates, "client")
    *_, session, _ = await asyncio.to_thread(shake_hands, address, certificates, context=context)
    async with client(address, certificates) as before:
        await before.ping()
        roots = (certificates / "ca.pem").read_bytes()
        shutil.copy(certificates / "other.pem", certificates / "new.pem")
        (certificates / "roots.pem").write_bytes(roots)
        (certificates / "new.pem").replace(certificates / "ca.pem")

        def as_before(name: str) -> Client:
            return client(address, certificates, name, "roots")

        assert "client CA" in await refused(as_before("client"))
        await let_in(as_before("stranger"))
        with pytest.raises(OSError):  # noqa: PT011 - what becomes of it depends on who hangs up first
            await asyncio.to_thread(shake_hands, address, certificates, before=session, context=context)
        # A connection is asked once who it is, at its beginning.
        await before.ping()


# Who it is.


@pytest.mark.parametrize(
    ("name", "identity"), [("client", "localhost"), ("many", "a.invalid"), ("plain", "only a common name")]
)
async def test_a_certificate_is_one_name(serve: Serve, made: Path, called: Called, name: str, identity: str) -> None:
    """A caller is known by the first name in its certificate, and by its common name where there is no other."""
    address = await serve(server_of(made))
    await let_in(client(address, made, name))
    await let_in(client(address, made, name))
    assert set(called.peers) == {Peer(identity, is_known=True)}


async def test_tls_alone_is_no_name(serve: Serve, made: Path, called: Called) -> None:
    """Where the server asks for no certificate, callers are as unknown as without TLS, even with one."""
    address = await serve(server_of(made, mutual=False), "127.0.0.1")
    await let_in(client(address, made, None))
    await let_in(client(address, made, "client"))
    assert set(called.peers) == {Peer("127.0.0.1", is_known=False)}


# Clients.


async def test_clients_files_are_checked(certificates: Path) -> None:
    """A client with files that cannot be used, or that would not be used, is an error at once."""
    ca, (certificate, key) = certificates / "ca.pem", files(certificates, "client")
    junk = certificates / "junk"
    junk.write_text("junk")
    given: list[tuple[dict[str, Path], str]] = [
        ({"certificate": certificate, "key": key}, "without the authority .* there is no TLS"),
        ({"root_certificates": ca, "certificate": certificate}, "go together"),
        ({"root_certificates": ca, "key": key}, "go together"),
        ({"root_certificates": certificates / "none"}, "none: No such file"),
        ({"root_certificates": junk}, "no PEM certificates"),
        ({"root_certificates": ca, "certificate": certificate, "key": junk}, "not a pair"),
        ({"root_certificates": ca, "certificate": certificate, "key": certificates / "other.key"}, "not a pair"),
    ]
    for files_given, words in given:
        with pytest.raises(ConfigurationError, match=words):
            Client("127.0.0.1:1", **files_given)
    with pytest.raises(ConfigurationError, match="on a Unix socket there is none"):
        Client("unix:/run/s.sock", root_certificates=ca)


async def test_streams_have_the_advice_too(serve: Serve, made: Path) -> None:
    """A streaming call that cannot connect says what to do as others do."""
    address = await serve(server_of(made))
    async with client(address, made, None) as calling:
        with pytest.raises(AuthorityUnavailable, match="client CA"):
            await anext(calling.stream("tool", timeout=20))
