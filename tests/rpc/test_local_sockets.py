"""Unix sockets are called if they are this user's or root's, and nobody else is sent a byte."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpc import aio

from snakepit_otel import rpc
from snakepit_otel.bridge.client.client import Client
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import (
    BridgeServiceServicer,
    BridgeServiceStub,
    add_BridgeServiceServicer_to_server,
)
from snakepit_otel.errors import AuthorityUnavailable, ConfigurationError, UnsafeSocket
from snakepit_otel.rpc.addresses import listen
from snakepit_otel.system.file_ownership import SERVER_USER
from tests.users import OTHER, needs_root
from tests.waiting import until

LISTEN_AS = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
os.setgid(int(sys.argv[1])), os.setuid(int(sys.argv[1]))
listener.bind(sys.argv[2])
listener.listen()
print(flush=True)
sys.stdin.read()
"""


class Answering(BridgeServiceServicer):
    """Answers pings, and counts them."""

    def __init__(self) -> None:
        self.pings = 0

    async def Ping(self, request: pb.PingRequest, context: object) -> pb.PingResponse:
        """Answer."""
        self.pings += 1
        return pb.PingResponse(message=request.message)


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Answering]:
    """Serve at a path, in a directory that is made where there is none."""
    server, answering = aio.server(), Answering()
    add_BridgeServiceServicer_to_server(answering, server)
    listen(server, f"unix:{path}")
    await server.start()
    try:
        yield answering
    finally:
        await server.stop(None)
        path.unlink(missing_ok=True)


@pytest.fixture
def spy(short_path: Path) -> Iterator[tuple[Path, Callable[[], bytes]]]:
    """A socket in a directory of its own, and what was sent to it."""
    directory = short_path / "snakepit-otel"
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "authority.sock"))
        listener.listen()
        listener.settimeout(0.2)

        def heard() -> bytes:
            data = b""
            try:
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(0.2)
                        data += connection.recv(1 << 16)
            except TimeoutError:
                return data

        yield directory, heard


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _refused(directory: Path, words: str) -> None:
    with pytest.raises(UnsafeSocket, match=words):
        Client(f"unix:{directory}/authority.sock")


@needs_root
@pytest.mark.parametrize("address", ["unix:{}", "UNIX:{}", "unix://{}", "Unix://{}"])
def test_a_directory_of_another_user(spy: tuple[Path, Callable[[], bytes]], address: str) -> None:
    """It is refused before anything is sent, however the address is written; the message says whose it is."""
    directory, heard = spy
    os.chown(directory, OTHER, OTHER)
    with pytest.raises(UnsafeSocket, match=rf"nothing was sent .*{directory} belongs to user {OTHER}.*{SERVER_USER}"):
        Client(address.format(f"{directory}/authority.sock"))
    assert heard() == b""


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702, 0o707])
def test_a_directory_that_others_may_write_to(spy: tuple[Path, Callable[[], bytes]], mode: int) -> None:
    """Another user could have put the socket there, sticky bit or not."""
    directory, heard = spy
    directory.chmod(mode)
    _refused(directory, f"others may write to the directory .*mode {mode:04o}")
    assert heard() == b""


@needs_root
def test_a_directory_that_a_group_may_write_to(spy: tuple[Path, Callable[[], bytes]]) -> None:
    """Members of a group are others."""
    directory, heard = spy
    os.chown(directory, 0, OTHER)
    directory.chmod(0o770)
    _refused(directory, "others may write to the directory")
    assert heard() == b""


@needs_root
def test_a_link_of_another_user_to_a_directory_of_ours(spy: tuple[Path, Callable[[], bytes]]) -> None:
    """Nobody else decides which of our authorities is called."""
    directory, heard = spy
    link = directory.parent / "link"
    link.symlink_to(directory)
    os.lchown(link, OTHER, OTHER)
    _refused(link, f"link is a link that user {OTHER} has made")
    assert heard() == b""


def test_a_socket_that_is_a_link(spy: tuple[Path, Callable[[], bytes]]) -> None:
    """A link in the place of the socket could lead anywhere, whatever the directory is."""
    directory, heard = spy
    (directory / "linked.sock").symlink_to("authority.sock")
    with pytest.raises(UnsafeSocket, match="it is a link"):
        Client(f"unix:{directory}/linked.sock")
    assert heard() == b""


@needs_root
def test_a_socket_of_another_user(spy: tuple[Path, Callable[[], bytes]]) -> None:
    """The socket's own owner counts, too."""
    directory, heard = spy
    os.chown(directory / "authority.sock", OTHER, OTHER)
    _refused(directory, f"the socket belongs to user {OTHER}")
    assert heard() == b""


@needs_root
def test_another_user_listens(short_path: Path) -> None:
    """Whoever listens is asked of the kernel: the socket may have been given to us since."""
    directory = short_path / "d"
    directory.mkdir()
    os.chown(directory, OTHER, OTHER)
    short_path.chmod(0o755)
    command = [sys.executable, "-c", LISTEN_AS, str(OTHER), str(directory / "authority.sock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline()
        for path in (directory, directory / "authority.sock"):
            os.chown(path, 0, 0)
        _refused(directory, f"user {OTHER} listens there")
        listener.communicate(b"")


@pytest.mark.parametrize("address", ["unix-abstract:name", "Unix-Abstract:name", "vsock:2:5000"])
def test_addresses_without_an_owner(address: str) -> None:
    """The first process to listen has such an address, so none is called."""
    with pytest.raises(ConfigurationError, match="such a socket has no owner to check"):
        Client(address)


@needs_root
async def test_another_user_who_is_named(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SNAKEPIT_OTEL_SERVER_USER names one more user whose authority is called."""
    async with serving(short_path / "d" / "s"):
        os.chown(short_path / "d", OTHER, OTHER)
        monkeypatch.setenv(SERVER_USER, str(OTHER))
        async with Client(f"unix:{short_path}/d/s") as client:
            await client.ping()


async def test_a_socket_that_is_made_later(short_path: Path) -> None:
    """A client may be there before its authority: it has none at first, and finds it later."""
    path = short_path / "d" / "s"
    async with Client(f"unix:{path}") as client:
        with pytest.raises(AuthorityUnavailable, match=r"d/s cannot be reached .*No such file") as caught:
            await client.ping()
        assert "/proc/" not in str(caught.value)
        async with serving(path):

            async def answers() -> bool:
                try:
                    await client.ping()
                except AuthorityUnavailable:
                    return False
                return True

            while not await answers():
                pass


@needs_root
async def test_another_user_takes_the_place_of_a_directory_that_is_gone(short_path: Path) -> None:
    """A client that was connected sends nothing there; when the directory is ours again, it goes on."""
    path = short_path / "d" / "s"
    async with Client(f"unix:{path}") as client:
        async with serving(path):
            await client.ping()
            shutil.rmtree(path.parent)
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as squatter:
            squatter.bind(str(path))
            squatter.listen()
            os.chown(path.parent, OTHER, OTHER)
            for _ in range(3):
                with pytest.raises(AuthorityUnavailable):
                    await client.ping(timeout=2)
            squatter.setblocking(False)
            with pytest.raises(BlockingIOError):
                squatter.accept()
        shutil.rmtree(path.parent)
        async with serving(path) as answering:

            async def answered() -> bool:
                try:
                    await client.ping()
                except AuthorityUnavailable:
                    return False
                return True

            while not await answered():
                pass
            assert answering.pings == 1


async def test_the_directory_is_let_go_with_the_channels(short_path: Path) -> None:
    """Each path costs one descriptor, however many channels lead there, until the last of them is gone."""
    before = _descriptors()
    async with serving(short_path / "d" / "s"):
        for _ in range(3):
            async with Client(f"unix:{short_path}/d/s") as one, Client(f"unix:{short_path}/d/s") as other:
                await one.ping()
                await other.ping()
            del one, other
    await until(lambda: _descriptors() <= before + 1)


async def test_two_authorities_one_after_the_other(short_path: Path) -> None:
    """A channel to another directory never has the connection of one before it, whose descriptor it may have got."""
    async with serving(short_path / "a" / "s") as first, serving(short_path / "b" / "s") as second:
        for _ in range(5):
            for name in ("a", "b"):
                channel = rpc.aio_channel(f"unix:{short_path}/{name}/s")
                await BridgeServiceStub(channel).Ping(pb.PingRequest())
                await channel.close()
                del channel
        assert (first.pings, second.pings) == (5, 5)


async def test_paths_of_any_letters(short_path: Path) -> None:
    """The name of a socket may have what means more in a URI."""
    path = short_path / "d#1" / "s ?%41#é"
    async with serving(path), Client(f"unix:{path}") as client:
        await client.ping()
