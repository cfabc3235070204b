"""Both sides of a file-descriptor server in one process: the caller's scope and the worker's."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from snakepit_otel.bridge.client.client import Client
from snakepit_otel.bridge.wire.methods import EXECUTE_TOOL
from snakepit_otel.bridge.wire.tool_calls import execute_request, result_of
from snakepit_otel.zero_copy._buffer_store import BufferStore
from snakepit_otel.zero_copy._descriptor import Owner
from snakepit_otel.zero_copy._fd_client import FdClient
from snakepit_otel.zero_copy._fd_server import FdServer
from snakepit_otel.zero_copy._scope import Scope
from snakepit_otel.zero_copy._settings import ZeroCopySettings

WORKER = "worker-1"


class Sides(NamedTuple):
    """The references of one request, on both sides."""

    caller: Scope
    worker: Scope

    def hand_over(self, value: Any) -> Any:
        """Send a value to the worker, as JSON, and return the reference that it gets."""
        return self.worker.receive(on_the_wire(self.caller.send(value)))

    def hand_back(self, value: Any) -> Any:
        """Return a value from the worker, as a tool does, and return what the caller gets."""
        return self.caller.take(on_the_wire(self.worker.send(value)))


class Bridge:
    """An authority's buffer store and its file-descriptor server, and a worker's link to it."""

    def __init__(self, directory: Path, settings: ZeroCopySettings | None = None, *, strict: bool = False) -> None:
        self.settings = settings or ZeroCopySettings()
        self.strict = strict
        self.buffer_store = BufferStore(self.settings, strict=strict)
        self.fd_server = FdServer(self.buffer_store, directory / "fd_server")
        self.link = FdClient(self.fd_server.path)
        self.buffer_store.add_worker(os.getpid(), WORKER)
        self.fd_server.start()

    def close(self) -> None:
        """Close the link and the server."""
        self.link.close()
        self.fd_server.close()

    def open(self, session_id: str | None = None, tool: str = "tool") -> Sides:
        """Begin a request."""
        caller = self.buffer_store.request(session_id, tool)
        assert caller.request is not None
        self.buffer_store.assign_worker(caller.request, WORKER)
        worker = Scope(
            Owner.PYTHON,
            self.link,
            self.settings,
            request=caller.request,
            session_id=session_id,
            tool=tool,
            strict=self.strict,
        )
        return Sides(caller, worker)

    @contextmanager
    def request(self, session_id: str | None = None, tool: str = "tool") -> Iterator[Sides]:
        """Run a request; the worker's side ends first, as it does with a real one."""
        sides = self.open(session_id, tool)
        try:
            yield sides
        finally:
            sides.worker.close()
            sides.caller.close()


@contextmanager
def bridge(settings: ZeroCopySettings | None = None, *, strict: bool = False) -> Iterator[Bridge]:
    """Run a bridge for the block."""
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory:
        made = Bridge(Path(directory), settings, strict=strict)
        try:
            yield made
        finally:
            made.close()


def on_the_wire(form: dict[str, Any]) -> dict[str, Any]:
    """Return what arrives of a reference's form."""
    arrived: dict[str, Any] = json.loads(json.dumps(form))
    return arrived


class Mapping(NamedTuple):
    """The kernel's record of the memory at an address; `copied` are the KiB that were copied when written to."""

    inode: int
    shared: bool
    copied: int


def mapping_at(address: int) -> Mapping:
    """Return the mapping of this process that has the address."""
    found: Mapping | None = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            if found is not None:
                return found
            start, _, end = first.partition("-")
            if int(start, 16) <= address < int(end, 16):
                found = Mapping(int(rest[3]), rest[0].endswith("s"), 0)
        elif found is not None and first == "Anonymous:":
            found = found._replace(copied=int(rest[0]))
    assert found is not None
    return found


def inode_at(address: int) -> int:
    """Return the number of the memory at an address of this process; quicker than `mapping_at`."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, _, _, inode, *_ = line.split()
        start, _, end = span.partition("-")
        if int(start, 16) <= address < int(end, 16):
            return int(inode)
    raise AssertionError("nothing is mapped there")


def inode_of(reference: Any) -> int:
    """Return the number of the memory that a reference refers to."""
    return os.fstat(reference.open().fileno()).st_ino


async def execute_unlisted(client: Client, tool: str, parameters: dict[str, Any]) -> Any:
    """Run a tool as a caller does that sends no list of its references, such as a program in another language."""
    request = execute_request(tool, parameters)
    return result_of(await client._call(EXECUTE_TOOL, request), request)
