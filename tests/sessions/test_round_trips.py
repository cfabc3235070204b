"""Calls that a store makes of a backend elsewhere: each is a round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from snakepit_otel import BaseAdapter, Snakepit, tool
from snakepit_otel.sessions import Limits, Overflow, SessionStore
from tests.sessions.remote_backend import RemoteBackend
from tests.waiting import until


class Counted(RemoteBackend):
    """Keeps the names of the calls that reach its server, `open` and `close` aside."""

    async def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(method)
        return await super()._call(method, *args, **kwargs)

    def taken(self) -> list[str]:
        """Return the calls since the last time; the ledger is read for metrics, at the start and at each export."""
        calls, self.calls = self.calls, []
        return [call for call in calls if call not in ("open", "close", "stats")]


class Stateful(BaseAdapter):
    """A tool that uses session state, and one that does not."""

    @tool
    def visit(self) -> int:
        """Count the visits of the session."""
        state = self.session_context.state
        state["visits"] = state.get("visits", 0) + 1
        return int(state["visits"])

    @tool
    def echo(self, value: Any) -> Any:
        """Return the value."""
        return value


OPERATIONS: dict[str, tuple[Callable[[SessionStore], Awaitable[object]], list[str]]] = {
    "create": (lambda store: store.create("new"), ["create"]),
    "create of a live one": (lambda store: store.create("a"), ["create"]),
    "get": (lambda store: store.get("a"), ["get"]),
    "exists": (lambda store: store.exists("a"), ["get"]),
    "get_state": (lambda store: store.get_state("a", "n"), ["read"]),
    "list_state": (lambda store: store.list_state("a"), ["read"]),
    "set_state": (lambda store: store.set_state("a", "n", 1), ["write"]),
    "compare_and_set": (lambda store: store.compare_and_set("a", "n", 1, 0), ["write"]),
    "update": (lambda store: store.update("a", lambda state: state | {"n": 1}), ["read", "write"]),
    "assign_worker": (lambda store: store.assign_worker("a", "w"), ["assign_worker"]),
    "delete": (lambda store: store.delete("a"), ["delete"]),
    "list": (lambda store: store.list(), ["page"]),
    # The watchdog asks for each of its reasons whether anything is pending, which may be another authority's.
    "sweep": (lambda store: store.sweep(), ["prune", "claim", "claim", "claim"]),
}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_is_one_round_trip(name: str) -> None:
    """An update reads and writes; a sweep prunes, and asks for pending warnings."""
    operation, expected = OPERATIONS[name]
    backend = Counted(Limits())
    async with SessionStore(backend=backend) as store:
        await store.create("a")
        backend.taken()
        await operation(store)
        while len(backend.calls) < len(expected):
            await asyncio.sleep(0)
        assert backend.taken() == expected


async def test_a_create_at_the_quota_is_one_round_trip() -> None:
    """Each evicts the least recently used; the watchdog asks for the time of its next warning once an interval."""
    backend = Counted(Limits(max_sessions=2, overflow=Overflow.EVICT))
    async with SessionStore(backend=backend, max_sessions=2, overflow="evict") as store:
        await store.create("a")
        await store.create("b")
        await store.create("c")
        backend.taken()
        for number in range(3):
            await store.create(f"more-{number}")
        assert backend.taken() == ["create"] * 3
        assert (await store.stats()).pruned_overflow == 4


async def test_a_request_is_one_round_trip() -> None:
    """Besides it there is one for the hint of a new worker, which nobody waits for, and those that the tool makes."""
    backend = Counted(Limits())
    async with Snakepit(f"{__name__}:Stateful", workers=1, session_backend=backend) as pit:
        await pit.execute("echo", {"value": 1})
        assert backend.taken() == []
        await pit.execute("echo", {"value": 1}, session_id="a")
        await until(lambda: len(backend.calls) == 2)
        assert backend.taken() == ["create", "assign_worker"]
        await pit.execute("echo", {"value": 1}, session_id="a")
        assert backend.taken() == ["create"]
        assert await pit.execute("visit", session_id="a") == 1
        assert backend.taken() == ["create", "read", "write", "read"]
