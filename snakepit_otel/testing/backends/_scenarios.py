"""Scenarios of the suite: coroutines that are run with one or two open backends, as plain tests."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from snakepit_otel.common.clock import Clock, SystemClock
from snakepit_otel.sessions import Limits, Origin, Session, SessionBackend, Stats
from snakepit_otel.sessions.backends import NewSession
from snakepit_otel.testing._clock import FakeClock

_LONGEST_S = 60.0  # for one scenario: a call that never returns fails its test


class BackendSuite:
    """The backends that the tests of a derived class are run with."""

    has_clock: ClassVar[bool] = True
    share_of_examples: ClassVar[float] = 1.0

    def make_backend(self, limits: Limits, clock: Clock) -> SessionBackend:
        """Return a backend over a new, empty store, which decides by the clock, and is not open yet."""
        raise NotImplementedError

    def make_second(self, first: SessionBackend, limits: Limits) -> SessionBackend:
        """Return another backend over the store and the clock of the first, for another authority, not open yet."""
        pytest.skip("make_second is not defined")


def scenario(**limits: Any) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Callable[[BackendSuite], None]]:
    """Make a test of a coroutine: it is called with `backend`, `second` and `clock`, as far as it names them.

    In the end the ledger has to be balanced, whatever has happened.
    """

    def decorate(run: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[BackendSuite], None]:
        names = [name for name in inspect.signature(run).parameters if name != "self"]

        # Not `functools.wraps`: pytest would look for fixtures of those names.
        def test(self: BackendSuite) -> None:
            asyncio.run(_run(self, run, names, Limits(**limits)))

        test.__name__, test.__qualname__, test.__doc__ = run.__name__, run.__qualname__, run.__doc__
        test.__module__ = run.__module__
        return test

    return decorate


async def _run(
    suite: BackendSuite, run: Callable[..., Coroutine[Any, Any, None]], names: Sequence[str], limits: Limits
) -> None:
    if "clock" in names and not suite.has_clock:
        pytest.skip("the backend takes no clock")
    clock = FakeClock()
    given: dict[str, Any] = {"clock": clock}
    given["backend"] = backend = suite.make_backend(limits, clock if suite.has_clock else SystemClock())
    backends = [backend]
    if "second" in names:
        given["second"] = suite.make_second(backend, limits)
        backends.append(given["second"])
    async with asyncio.timeout(_LONGEST_S), all_open(*backends):
        await run(suite, **{name: given[name] for name in names})
        for one in backends:
            await balanced(one)


@asynccontextmanager
async def all_open(*backends: SessionBackend) -> AsyncIterator[None]:
    """Open backends, and close them at the end."""
    opened = []
    try:
        for backend in backends:
            opened.append(backend)
            await backend.open()
        yield
    finally:
        for backend in reversed(opened):
            await backend.close()


async def balanced(backend: SessionBackend, **expected: int) -> Stats:
    """Return the ledger, which has to be balanced, to have the expected counts, and to be the last that was seen."""
    stats = await backend.stats()
    assert stats == backend.last_stats
    assert stats.created - stats.deleted - stats.pruned_ttl - stats.pruned_overflow == stats.live
    assert stats.reported <= stats.pruned_ttl + stats.pruned_overflow
    assert stats.rejected_per_owner <= stats.rejected
    assert stats.memory_bytes > 0 if stats.live else stats.memory_bytes == 0
    assert {name: getattr(stats, name) for name in expected} == expected
    return stats


def new(
    session_id: str = "a",
    ttl: float = 60.0,
    metadata: Mapping[str, str] | None = None,
    *,
    owner: str | None = None,
    origin: Origin | None = None,
    token: int = 0,
) -> NewSession:
    """Return the arguments of a create."""
    return NewSession(session_id, ttl, metadata or {}, owner, origin, None, token)


def raw(value: Any) -> bytes:
    """Return a value as JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


async def create_many(backend: SessionBackend, ids: Sequence[str], **more: Any) -> list[Session]:
    """Create sessions, some at a time."""
    made: list[Session] = []
    for begin in range(0, len(ids), 50):
        created = await asyncio.gather(*(backend.create(new(one, **more)) for one in ids[begin : begin + 50]))
        made += [one.session for one in created]
    return made


async def scanned(backend: SessionBackend, *, owner: str | None = None) -> list[str]:
    """Return the ids of all live sessions, in the order in which a scan yields them."""
    return [session.id async for batch in backend.scan(owner=owner) for session in batch]
