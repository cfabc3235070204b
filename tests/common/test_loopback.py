"""This machine is called without the proxies that the environment names."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from snakepit_otel import Client, Snakepit, rpc
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.common import loopback
from snakepit_otel.common.loopback import is_loopback, leads_here
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.rpc.addresses import listen, options
from snakepit_otel.rpc.targets import target_of
from tests.adapters_for_tests import Useful
from tests.processes import run

NOWHERE = "http://127.0.0.1:9"
PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture
def _proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in PROXIES:
        monkeypatch.setenv(name, NOWHERE)


@pytest.fixture
def _hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(
        "127.0.0.1 localhost\n# 127.0.0.1 commented\n127.0.1.1\tMy-Machine my # comment\n"
        "10.0.0.1 other both\n127.0.0.1 both\nnonsense\n::1 six\n"
    )
    monkeypatch.setattr(loopback, "_HOSTS", hosts)


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:1",
        "127.0.0.1",
        "127.8.9.10:1",
        "127.1:1",
        "localhost:1",
        "LocalHost:1",
        "localhost.:1",
        "app.localhost:1",
        "[::1]:1",
        "::1",
        "[::1%lo]:1",
        "[::ffff:127.0.0.1]:1",
        "0.0.0.0:1",
        "[::]:1",
        "dns:localhost:1",
        "dns:///127.0.0.1:1",
        "dns:///[::1]:1",
        "dns://8.8.8.8/localhost:1",
        "ipv4:127.0.0.1:1",
        "ipv4:127.0.0.1:1,127.0.0.2:2",
        "ipv6:[::1]:1",
        "ipv6:%5B::1%5D:1",
        "unix:/run/a.sock",
        "unix:///run/a.sock",
        "unix-abstract:a",
        "my-machine:1",
        "my:1",
        "six:1",
    ],
)
@pytest.mark.usefixtures("_hosts")
def test_what_leads_here(target: str) -> None:
    """Loopback in every form, sockets, and names that the machine has for itself are this machine."""
    assert leads_here(target)


@pytest.mark.parametrize(
    "target",
    [
        "10.0.0.1:1",
        "example.invalid:1",
        "localhost.example.invalid:1",
        "notlocalhost:1",
        "128.0.0.1:1",
        "[2001:db8::1]:1",
        "[::ffff:10.0.0.1]:1",
        "dns:///example.invalid:1",
        "dns://127.0.0.1/example.invalid:1",
        "ipv4:127.0.0.1:1,10.0.0.1:2",
        "other:1",
        "both:1",
        "commented:1",
        "",
    ],
)
@pytest.mark.usefixtures("_hosts")
def test_what_leads_elsewhere(target: str) -> None:
    """Everything else, and what is only in part this machine, may need a proxy."""
    assert not leads_here(target)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "my-machine", "10.0.0.1", "", "localhost.example.invalid", "1\0"])
@pytest.mark.usefixtures("_hosts")
def test_what_others_may_reach_is_no_loopback(host: str) -> None:
    """What may be listened on without TLS is loopback alone, not all addresses of the machine, nor a name."""
    assert not is_loopback(host)


def test_without_a_hosts_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no such file, no name is in it."""
    monkeypatch.setattr(loopback, "_HOSTS", Path("/nowhere/hosts"))
    assert not leads_here("my:1")
    assert leads_here("localhost:1")


@pytest.mark.usefixtures("_proxies")
async def test_proxies_are_not_used_here() -> None:
    """With every variable set, clients, commands, workers and their call-backs reach this machine by all its names."""
    async with Snakepit(Useful, workers=1, server={"listen": "127.0.0.1:0"}) as pit:
        assert pit.address is not None
        assert await pit.execute("add", {"amount": 1}, session_id="s", timeout=20) == 1
        port = pit.address.rpartition(":")[2]
        for number, host in enumerate(("127.0.0.1", "localhost", "dns:///localhost", "ipv4:127.0.0.1")):
            async with Client(f"{host}:{port}") as client:
                assert await client.execute("add", {"amount": 1}, session_id="s", timeout=20) == number + 2

            def ask(host: str = host) -> str:
                with rpc.blocking_channel(f"{host}:{port}", options=options()) as channel:
                    return str(BridgeServiceStub(channel).Ping(pb.PingRequest(message="x"), timeout=20).message)

            assert await asyncio.to_thread(ask) == "pong: x"
        assert await run("call", "echo", "value=x", "--address", f"localhost:{port}") == (0, "x\n", "")


@pytest.mark.usefixtures("_proxies")
def test_other_machines_are_called_through_the_proxy() -> None:
    """A proxy is used for what is not this machine, which it can see by the request for a tunnel."""
    channel = rpc.blocking_channel("example.invalid:1", options=options())
    with channel, pytest.raises(grpc.RpcError) as failed:
        BridgeServiceStub(channel).Ping(pb.PingRequest(), timeout=5)
    assert "127.0.0.1:9" in str(failed.value)


@pytest.mark.parametrize(
    "name", ["a b", "a#b", "a?b", "a%41b", "a%", "é日本", "a:b@c", "[x]", "a\\b", "a;b=c&d", "~$!*'()+"]
)
async def test_sockets_have_any_name(short_path: Path, name: str) -> None:
    """A socket's path may have in it what means more in a URI, and is listened on and called as it is."""
    folder = short_path / name
    folder.mkdir(mode=0o700)
    address = f"unix:{folder}/s"
    server = rpc.aio_server(options=options())
    assert listen(server, address) == address
    await server.start()
    try:
        assert (folder / "s").is_socket()
        async with rpc.aio_channel(address) as channel:
            await asyncio.wait_for(channel.channel_ready(), 20)
    finally:
        await server.stop(None)


def test_a_path_that_grpc_cannot_have() -> None:
    """A comma is refused, since gRPC would take the path for several, and so is what is no text."""
    with pytest.raises(ConfigurationError, match="comma"):
        target_of("unix:/run/a,b/s")
    with pytest.raises(ConfigurationError, match="comma"):
        rpc.blocking_channel("unix:/run/a,b/s")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        Client("unix:/run/\udcff")
