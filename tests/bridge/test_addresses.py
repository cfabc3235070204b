"""Where the bridge listens, and where it will not."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from grpc import aio

from snakepit_otel.bridge.addresses import listen, options, split
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import (
    BridgeServiceServicer,
    BridgeServiceStub,
    add_BridgeServiceServicer_to_server,
)
from snakepit_otel.bridge.tls import Tls
from snakepit_otel.errors import ConfigurationError


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


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "example.org"])
async def test_beyond_loopback_without_tls_is_refused(new_server: Callable[[], aio.Server], host: str) -> None:
    """An address that others can reach asks for TLS, loopback or the word that it is meant."""
    with pytest.raises(ConfigurationError, match=r"other machines; give TLS files .*127\.0\.0\.1, or say --insecure"):
        listen(new_server(), f"{host}:0")


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
    with pytest.raises(ConfigurationError, match="is no address: say unix:/path/to/socket or host:port"):
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
