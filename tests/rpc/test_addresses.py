"""Addresses to listen on, and those that are refused."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from grpc import aio

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import (
    BridgeServiceServicer,
    BridgeServiceStub,
    add_BridgeServiceServicer_to_server,
)
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.rpc import addresses
from snakepit_otel.rpc.addresses import is_wide, listen, options, split
from snakepit_otel.rpc.tls import Tls
from tests.certificates import authority, files, signed


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a server's certificate of it."""
    directory = tmp_path_factory.mktemp("certificates")
    authority(directory, "ca")
    signed(directory, "server", "ca")
    return directory


class Answering(BridgeServiceServicer):
    """Answers a ping."""

    async def Ping(self, request: pb.PingRequest, context: object) -> pb.PingResponse:
        """Answer."""
        return pb.PingResponse(message=request.message)


@pytest.fixture
async def new_server() -> AsyncIterator[Callable[[], aio.Server]]:
    """Make servers that are stopped at the end of the test."""
    made: list[aio.Server] = []

    def make() -> aio.Server:
        made.append(aio.server(options=options()))
        add_BridgeServiceServicer_to_server(Answering(), made[-1])
        return made[-1]

    yield make
    for server in made:
        await server.stop(None)


async def answers(address: str) -> bool:
    """Say whether a server answers at the address."""
    async with aio.insecure_channel(address) as channel:
        return (await BridgeServiceStub(channel).Ping(pb.PingRequest(message="yes"), timeout=5)).message == "yes"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.0.0.2"])
async def test_loopback_needs_no_tls(new_server: Callable[[], aio.Server], host: str) -> None:
    """A loopback address will do as it is; port 0 takes a free one and the result says which."""
    server = new_server()
    address = listen(server, f"{host}:0")
    assert address.startswith(f"{host}:")
    assert not address.endswith(":0")
    await server.start()
    assert await answers(address)


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "[::]",
        "192.0.2.1",
        "example.org",
        "0",
        "0x0",
        "00000000000",
        "[::ffff:0.0.0.0]",
        "[::ffff:192.0.2.1]",
        "[fe80::1]",
        "[fe80::1%lo]",
        "*",
        "localhost.example.org",
    ],
)
async def test_beyond_loopback_without_tls_is_refused(new_server: Callable[[], aio.Server], host: str) -> None:
    """An address that others can reach asks for TLS, loopback or the word that it is meant."""
    with pytest.raises(ConfigurationError, match=r"other machines; give TLS files .*127\.0\.0\.1, or pass --insecure"):
        listen(new_server(), f"{host}:0")


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1"])
async def test_beyond_loopback_tls_alone_is_refused(
    new_server: Callable[[], aio.Server], certificates: Path, host: str
) -> None:
    """Encryption keeps nobody out: without the authority for clients' certificates the address is refused, too."""
    tls = Tls(*files(certificates, "server"))
    words = (
        r"not serving on .* other machines: without .*\(--tls-client-ca\), anybody .*127\.0\.0\.1, or pass --insecure"
    )
    with pytest.raises(ConfigurationError, match=words):
        listen(new_server(), f"{host}:0", tls=tls)


async def test_beyond_loopback_with_certificates_of_clients(
    new_server: Callable[[], aio.Server], certificates: Path
) -> None:
    """With both, or with TLS and `insecure`, the address is taken."""
    tls = Tls(*files(certificates, "server"))
    mutual = Tls(*files(certificates, "server"), client_ca=certificates / "ca.pem")
    assert split(listen(new_server(), "0.0.0.0:0", tls=mutual))[1] > 0
    assert split(listen(new_server(), "0.0.0.0:0", tls=tls, insecure=True))[1] > 0


@pytest.mark.parametrize(
    "address",
    [
        "unix-abstract:a.localhost:1",
        "UNIX:/run/a.localhost:1",
        "vsock:1.localhost:1",
        "dns://192.0.2.1/a.localhost:1",
        "dns:///localhost:0",
        "ipv4:0.0.0.0:0",
        "ipv6:[::]:0",
        "ipv4:127.0.0.1:0",
    ],
)
async def test_schemes_of_grpc_are_no_hosts(
    new_server: Callable[[], aio.Server], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """An address with a scheme of gRPC's is a host to be looked up, which there is none, whatever name is in it."""
    monkeypatch.setattr(socket, "getaddrinfo", resolving())
    looked_for: list[str] = []
    monkeypatch.setattr(aio.Server, "add_insecure_port", lambda _, place: looked_for.append(place) or 1)
    with suppress(ConfigurationError):
        listen(new_server(), address)
    assert all(place.startswith(("127.0.0.1:", "[::1]:")) for place in looked_for)


@pytest.mark.parametrize("name", ["localhost", "app.localhost"])
@pytest.mark.parametrize("place", ["0.0.0.0", "192.0.2.1", "::", "::ffff:192.0.2.1", "fe80::1"])
async def test_localhost_that_is_elsewhere(
    new_server: Callable[[], aio.Server], monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    """A name of loopback that the machine has for another address beside it is as open as that."""
    monkeypatch.setattr(socket, "getaddrinfo", resolving("127.0.0.1", place))
    monkeypatch.setattr(addresses, "_can_be_had", lambda _: True)
    assert is_wide(f"{name}:1")
    with pytest.raises(ConfigurationError, match=rf"{name} is {place} here; .*other machines"):
        listen(new_server(), f"{name}:0")


async def test_localhost_that_the_machine_does_not_know(
    new_server: Callable[[], aio.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is loopback all the same; other names are errors."""
    monkeypatch.setattr(socket, "getaddrinfo", resolving())
    server = new_server()
    address = listen(server, "localhost:0")
    await server.start()
    assert await answers(f"127.0.0.1:{split(address)[1]}")
    with pytest.raises(ConfigurationError, match=r"cannot listen on other\.invalid:0: Name or service not known"):
        listen(new_server(), "other.invalid:0", insecure=True)


async def test_a_name_is_listened_on_at_all_its_addresses(
    new_server: Callable[[], aio.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All have the same port, and one that somebody else has on any of them is in use."""
    monkeypatch.setattr(socket, "getaddrinfo", resolving("127.0.0.1", "127.0.0.2"))
    server = new_server()
    port = split(listen(server, "localhost:0"))[1]
    await server.start()
    assert await answers(f"127.0.0.1:{port}")
    assert await answers(f"127.0.0.2:{port}")
    with socket.socket() as others:
        others.bind(("127.0.0.2", 0))
        others.listen()
        taken = others.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on localhost:{taken}: it is in use"):
            listen(new_server(), f"localhost:{taken}")


def resolving(*found: str) -> Callable[..., list[tuple[object, ...]]]:
    """Return what stands for `getaddrinfo` and finds these addresses."""

    def look_up(*_: object, **__: object) -> list[tuple[object, ...]]:
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(None, None, None, "", (ip, 0)) for ip in found]

    return look_up


async def test_insecure_says_that_it_is_meant(new_server: Callable[[], aio.Server]) -> None:
    """With `insecure` the address is taken."""
    address = listen(new_server(), "0.0.0.0:0", insecure=True)
    assert split(address)[1] > 0


async def test_a_port_in_use_is_refused(new_server: Callable[[], aio.Server]) -> None:
    """Two servers never share a port, and so never each other's calls."""
    address = listen(new_server(), "127.0.0.1:0")
    with pytest.raises(ConfigurationError, match=f"cannot listen on {address}: it is in use"):
        listen(new_server(), address)


async def test_a_unix_socket(new_server: Callable[[], aio.Server], short_path: Path) -> None:
    """A Unix socket is made in its directory, which is made for it, for this user only."""
    path = short_path / "deep" / "s"
    server = new_server()
    assert listen(server, f"unix:{path}") == f"unix:{path}"
    await server.start()
    assert await answers(f"unix:{path}")
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_a_socket_in_use_is_refused(new_server: Callable[[], aio.Server], short_path: Path) -> None:
    """A socket that somebody listens on is left to them."""
    server = new_server()
    address = listen(server, f"unix:{short_path}/s")
    await server.start()
    with pytest.raises(ConfigurationError, match="s: it is in use"):
        listen(new_server(), address)
    assert await answers(address)


async def test_a_stale_socket_is_removed(new_server: Callable[[], aio.Server], short_path: Path) -> None:
    """A socket that a dead server left behind is no hindrance."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(short_path / "s"))
    assert (short_path / "s").is_socket()
    server = new_server()
    address = listen(server, f"unix:{short_path}/s")
    await server.start()
    assert await answers(address)


async def test_a_file_in_the_way_is_left_alone(new_server: Callable[[], aio.Server], short_path: Path) -> None:
    """A file that is no socket is never removed."""
    (short_path / "s").write_text("precious")
    with pytest.raises(ConfigurationError, match="there is a file of that name"):
        listen(new_server(), f"unix:{short_path}/s")
    assert (short_path / "s").read_text() == "precious"


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
async def test_a_directory_open_to_others_is_refused(
    new_server: Callable[[], aio.Server], short_path: Path, mode: int
) -> None:
    """Who may enter the directory may call, so others must not; the message says how to close it."""
    directory = short_path / "open"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"may be entered by others; .*chmod 700 {directory}"):
        listen(new_server(), f"unix:{directory}/s")


async def test_a_path_too_long_for_a_socket(new_server: Callable[[], aio.Server], short_path: Path) -> None:
    """The kernel's limit on socket paths is told in words."""
    with pytest.raises(ConfigurationError, match="path of a Unix socket has at most 107 bytes"):
        listen(new_server(), f"unix:{short_path}/{'s' * 100}")


async def test_a_directory_that_cannot_be_made(new_server: Callable[[], aio.Server], short_path: Path) -> None:
    """What keeps a directory from being made is told."""
    (short_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"cannot make .*/file/deeper: Not a directory"):
        listen(new_server(), f"unix:{short_path}/file/deeper/s")


@pytest.mark.parametrize(
    "address",
    ["", "localhost", ":5000", "localhost:", "localhost:http", "localhost:65536", "localhost:-1", "h:²", "h:٣"],
)
async def test_what_is_no_address(new_server: Callable[[], aio.Server], address: str) -> None:
    """What is neither a socket nor a host with a port is told what to be."""
    with pytest.raises(ConfigurationError, match="is no address: use unix:/path/to/socket or host:port"):
        listen(new_server(), address)


@pytest.mark.parametrize("missing", ["certificate", "key", "client_ca"])
def test_a_tls_file_that_is_not_there(short_path: Path, missing: str) -> None:
    """A file that cannot be read is named."""
    files = {name: short_path / name for name in ("certificate", "key", "client_ca")}
    for name, path in files.items():
        if name != missing:
            path.touch()
    with pytest.raises(ConfigurationError, match=f"TLS file {files[missing]}: No such file"):
        Tls(**files).check()
