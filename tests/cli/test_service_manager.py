"""`serve` under a service manager: what it reports, and its replacement by a signal."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from snakepit_otel import Client
from snakepit_otel.system import service_manager
from tests.processes import program
from tests.waiting import until


class Manager:
    """A service manager, with the datagrams that it got."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    async def gets(self, *wanted: str) -> list[str]:
        """Return the fields of the next datagram that has these; others are dropped."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            while True:
                fields = (await loop.sock_recv(self.socket, 4096)).decode().splitlines()
                if {*wanted} <= {*fields}:
                    return fields


@asynccontextmanager
async def manager(path: Path) -> AsyncIterator[Manager]:
    """Be a manager."""
    managing = Manager(path)
    with managing.socket:
        yield managing


def gone(pid: int) -> bool:
    """Return whether a process that is not a child has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return False
    return True


async def test_a_service_is_upgraded_in_its_place(short_path: Path) -> None:
    """SIGUSR2 starts the command again, whose process becomes the main one; the manager sees no stop between them."""
    path = short_path / "a.sock"
    async with manager(short_path / "notify") as managing:
        environ = {
            "NOTIFY_SOCKET": str(short_path / "notify"),
            "WATCHDOG_USEC": "50000",
            "XDG_RUNTIME_DIR": str(short_path),
        }
        serve = ["serve", "tests.adapters_for_tests:Useful", "--workers", "1", "--socket", str(path)]
        async with program("-m", "snakepit_otel", *serve, environ=environ) as old:
            pid = old.process.pid
            fields = await managing.gets("READY=1")
            assert fields == [
                "READY=1",
                f"MAINPID={pid}",
                "STATUS=serving tests.adapters_for_tests:Useful with 1 workers",
            ]
            await managing.gets("WATCHDOG=1")
            os.kill(pid, signal.SIGHUP)
            await managing.gets("RELOADING=1")
            await managing.gets("READY=1")
            os.kill(pid, signal.SIGUSR2)
            await managing.gets("RELOADING=1")
            main = (await managing.gets("READY=1"))[1]
            new = int(main.removeprefix("MAINPID="))
            try:
                assert new != pid
                # Not `ends`, which waits for its pipes, too: the new one has inherited them.
                await until(lambda: old.process.returncode is not None)
                assert old.process.returncode == 0
                async with Client(f"unix:{path}") as client:
                    assert await client.execute("echo", {"value": 1}) == 1
                os.kill(new, signal.SIGTERM)
                # Of the new one: the old one has sent none.
                assert await managing.gets("STOPPING=1") == ["STOPPING=1", "STATUS=running requests may end"]
                await until(lambda: gone(new))
            finally:
                with suppress(ProcessLookupError):
                    os.kill(new, signal.SIGKILL)


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/notify", "@snakepit-nobody", "/" + "x" * 200, "/a\0b"])
def test_no_manager_is_no_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens, nothing happens."""
    if "\0" in address:
        monkeypatch.setattr(os, "environ", {"NOTIFY_SOCKET": address})
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    service_manager.ready("serving")


def test_an_abstract_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that begins with @ is of no file."""
    name = f"snakepit-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(10)
        listening.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        service_manager.stopping("two\nlines")
        assert listening.recv(4096) == b"STOPPING=1\nSTATUS=two lines"
