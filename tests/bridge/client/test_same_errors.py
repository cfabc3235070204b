"""Errors of a client: those of the authority's own process, whatever way they came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel import Client, SessionStore, errors
from snakepit_otel.bridge.authority.dispatcher import Dispatcher
from snakepit_otel.bridge.authority.jobs import Job, TakeChunk
from snakepit_otel.bridge.authority.local_caller import LocalCaller
from snakepit_otel.bridge.authority.service import AuthorityService
from snakepit_otel.bridge.authority.tool_registry import ToolRegistry
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.errors import to_wire
from snakepit_otel.bridge.wire.services import BRIDGE
from snakepit_otel.errors import RequestRefused, SnakepitError, ToolError
from snakepit_otel.rpc.services import handlers_of
from snakepit_otel.rpc.transports import transport_of

KINDS = [
    kind
    for name in errors.__all__
    if isinstance(kind := getattr(errors, name), type) and issubclass(kind, SnakepitError)
]
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "SessionNotFound": ("alice",),
    "SessionQuotaExceeded": (10.0,),
    "OwnerQuotaExceeded": (10.0, "web"),
    "SessionStoreFull": (2, 10),
    "StateConflict": ("alice", "the state", 3, 4),
    "MiddlewareFailed": ("Tenancy", "before", ValueError("no tenant")),
}
DETAILS: dict[str, Any] = {
    "tool": "paint",
    "pool": "gpu",
    "worker": "gpu-0.3",
    "waited": 1.5,
    "queue_length": 7,
    "retry_after": 2,
    "may_have_run": True,
    "retryable": True,
}


def made(kind: type[SnakepitError], *, detailed: bool) -> SnakepitError:
    """Return an error of a kind, with every detail or with those of its kind only."""
    if kind is ToolError:
        # Those of workers have where they were raised.
        return ToolError("ValueError", "no paint", context={"tool_name": "paint", "session_id": "", "phase": "execute"})
    error = kind(*ARGUMENTS.get(kind.__name__, (f"what happened: {kind.__name__}, “exactly”",)))
    for name, value in (DETAILS if detailed else {}).items():
        setattr(error, name, value)
    return error


class Failing:
    """Workers that raise an error, or answer with it as a worker's process does."""

    def __init__(self) -> None:
        self.error: SnakepitError = SnakepitError("none yet")
        self.answers = False

    def label(self, tool: str) -> str:
        """Have every tool."""
        return tool

    def on_refused(self, tool: str, pool: str | None) -> None:
        """Count nothing."""

    async def execute(self, _job: Job) -> pb.ExecuteToolResponse:
        """Fail."""
        if not self.answers:
            raise self.error
        return pb.ExecuteToolResponse(success=False, error_message=to_wire(self.error, {"tool_name": "paint"}))

    async def stream(self, _job: Job, _take: TakeChunk) -> None:
        """Fail."""
        raise self.error


class Local(LocalCaller):
    """The authority's own process."""

    def __init__(self, sessions: SessionStore, dispatcher: Dispatcher) -> None:
        self.sessions, self._dispatcher = sessions, dispatcher


@asynccontextmanager
async def callers(directory: Path, workers: Failing) -> AsyncIterator[dict[str, Any]]:
    """Yield a caller in the authority's process, and clients over a Unix socket and TCP."""
    sessions = SessionStore()
    dispatcher = Dispatcher(sessions, ToolRegistry(), workers)
    found: dict[str, Any] = {"local": Local(sessions, dispatcher)}
    async with AsyncExitStack() as stack:
        for way, address in (("unix", f"unix:{directory}/s"), ("tcp", "127.0.0.1:0")):
            listener = transport_of(address).listen(address)
            listener.add(handlers_of(BRIDGE, AuthorityService(dispatcher)))
            bound = listener.bind()
            await listener.start()
            stack.push_async_callback(listener.stop, None)
            found[way] = await stack.enter_async_context(Client(bound))
        yield found


async def raised(caller: Any, *, stream: bool) -> SnakepitError:
    """Return what a request raises."""
    try:
        if stream:
            async for _ in caller.stream("paint", timeout=60):
                pass
        else:
            await caller.execute("paint", timeout=60)
    except SnakepitError as error:
        return error
    raise AssertionError("nothing was raised")


def facts(error: SnakepitError) -> dict[str, Any]:
    """Return all that a caller can see of an error."""
    names = ("http_status", "grpc_status", "reason", *DETAILS)
    return {
        "class": type(error),
        "text": str(error),
        **{name: getattr(error, name) for name in names},
        **{name: value for name, value in vars(error).items() if name not in ("stacktrace", "traceback", "context")},
    }


def cases() -> Iterator[SnakepitError]:
    """Yield an error of every kind, with and without details."""
    for kind in KINDS:
        yield made(kind, detailed=False)
        yield made(kind, detailed=True)
    for status in RequestRefused.STATUSES:
        yield RequestRefused("not now", status=status, retry_after=3.0)


@pytest.mark.parametrize("stream", [False, True], ids=["execute", "stream"])
async def test_every_error_is_the_same_by_a_client(short_path: Path, stream: bool) -> None:
    """Type, text and every attribute are those of the authority's process, by Unix socket and by TCP."""
    workers = Failing()
    async with callers(short_path, workers) as ways:
        for error in cases():
            workers.error = error
            here = facts(await raised(ways["local"], stream=stream))
            assert here["class"] is type(error)
            assert here["text"] == str(error)
            assert {way: facts(await raised(ways[way], stream=stream)) for way in ("unix", "tcp")} == {
                "unix": here,
                "tcp": here,
            }


async def test_every_answer_of_a_worker_is_the_same_by_a_client(short_path: Path) -> None:
    """Errors that come as a worker's answer are the same, too."""
    workers = Failing()
    workers.answers = True
    async with callers(short_path, workers) as ways:
        for error in cases():
            workers.error = error
            here = facts(await raised(ways["local"], stream=False))
            assert here["class"] is type(error)
            for name in DETAILS:
                assert here[name] == getattr(error, name)
            assert facts(await raised(ways["unix"], stream=False)) == here
            assert facts(await raised(ways["tcp"], stream=False)) == here
