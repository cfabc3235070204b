"""Tests of several authorities over one store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from snakepit_otel.common.clock import SystemClock
from snakepit_otel.errors import ConfigurationError, SessionNotFound, SessionQuotaExceeded
from snakepit_otel.sessions import Creator, Limits, Origin, Overflow, SessionBackend, SessionStore
from snakepit_otel.sessions.backends import Ended, WarningReason
from snakepit_otel.testing._clock import FakeClock
from snakepit_otel.testing.backends._scenarios import (
    BackendSuite,
    all_open,
    balanced,
    create_many,
    new,
    raw,
    scanned,
    scenario,
)
from snakepit_otel.testing.backends._state_tests import increased


class SharingTests(BackendSuite):
    """Two authorities over one store."""

    @scenario()
    async def test_a_session_of_one_is_the_others(self, backend: SessionBackend, second: SessionBackend) -> None:
        """With its state and its end; both have the same ledger, and one name."""
        session = (await backend.create(new("a", owner="alice"))).session
        assert await second.get("a") == session
        version = await second.write("a", {"k": b"1"})
        assert (await backend.read("a")).version == version
        assert not (await second.create(new("a"))).new
        assert (await second.delete("a", incarnation=session.incarnation)).ended is not None
        with pytest.raises(SessionNotFound):
            await backend.get("a")
        assert await balanced(backend, created=1, deleted=1) == await balanced(second)
        assert backend.name == second.name

    def test_stores_have_names_of_their_own(self) -> None:
        """Two stores are not one, in metrics."""

        async def names() -> set[str]:
            backends = [self.make_backend(Limits(), FakeClock() if self.has_clock else SystemClock()) for _ in range(2)]
            async with all_open(*backends):
                return {backend.name for backend in backends}

        assert len(asyncio.run(names())) == 2

    @scenario(max_sessions=5, max_sessions_per_owner=4)
    async def test_other_limits_are_refused(self, backend: SessionBackend, second: SessionBackend) -> None:
        """With an error that names the setting and both values; who has the store's goes on."""
        others: dict[str, Any] = {
            "max_sessions": 6,
            "overflow": Overflow.EVICT,
            "max_session_bytes": 77_777,
            "max_total_bytes": 88_888,
            "max_sessions_per_owner": 3,
        }
        assert others.keys() == {field.name for field in fields(Limits)}
        for setting, value in others.items():
            third = self.make_second(backend, replace(backend.limits, **{setting: value}))
            with pytest.raises(ConfigurationError) as refused:
                await third.open()
            await third.close()
            # However they group the digits.
            text = str(refused.value).replace(",", "").replace("_", "")
            for shown in (setting.replace("_", ""), f"{value}", f"{getattr(backend.limits, setting)}"):
                assert shown in text, refused.value
        await second.create(new("a"))
        assert (await backend.get("a")).id == "a"

    @scenario(max_sessions=5)
    async def test_the_quota_is_that_of_both(self, backend: SessionBackend, second: SessionBackend) -> None:
        """However many create at once."""
        calls = [one.create(new(f"s{number}")) for number in range(10) for one in (backend, second)]
        created = [backend.create(new(f"x{number}")) for number in range(5)]
        results = await asyncio.gather(*calls, *created, return_exceptions=True)
        assert {type(one) for one in results if isinstance(one, BaseException)} == {SessionQuotaExceeded}
        stats = await balanced(backend, created=5, live=5)
        assert sum(isinstance(one, SessionQuotaExceeded) for one in results) == stats.rejected

    @scenario(max_sessions=5, overflow=Overflow.EVICT)
    async def test_every_end_is_reported_once(
        self, backend: SessionBackend, second: SessionBackend, clock: FakeClock
    ) -> None:
        """To one of them, whether it was evicted, expired or deleted."""
        ended: list[Ended] = []

        async def use(one: SessionBackend, name: str) -> None:
            for number in range(10):
                ended.extend((await one.create(new(f"{name}{number}", 10))).ended)
                deleted = await one.delete(f"{'b' if name == 'a' else 'a'}{number}")
                ended.extend([deleted.ended] if deleted.ended is not None else [])

        await asyncio.gather(use(backend, "a"), use(second, "b"))
        clock.advance(10)
        for pruned in await asyncio.gather(*(one.prune(3) for one in (backend, second) * 3)):
            ended.extend(pruned.ended)
        assert len({end.incarnation for end in ended}) == len(ended) == 20
        await balanced(backend, created=20, live=0)

    @scenario()
    async def test_concurrent_updates_of_both_lose_nothing(
        self, backend: SessionBackend, second: SessionBackend
    ) -> None:
        """Each is made of the state before it, whoever wrote it."""
        await backend.create(new("a"))
        await asyncio.gather(*(one.update("a", increased) for _ in range(10) for one in (backend, second)))
        assert (await second.read("a")).entries["n"].raw == b"20"

    @scenario()
    async def test_a_repeated_call_is_one_call_to_any(self, backend: SessionBackend, second: SessionBackend) -> None:
        """Tokens are the store's."""
        first = await backend.create(new("a", token=7))
        again = await second.create(new("a", token=7))
        assert (again.new, again.session.incarnation) == (True, first.session.incarnation)
        version = await backend.write("a", {"k": b"1"}, token=8)
        assert await second.write("a", {"k": b"1"}, token=8) == version
        assert await second.write("a", {"k": b"2"}) > version
        await balanced(backend, created=1, live=1)

    @scenario()
    async def test_one_claim_of_both(self, backend: SessionBackend, second: SessionBackend, clock: FakeClock) -> None:
        """In an interval one warns, of the occurrences and the owners of both."""
        reason = WarningReason.OWNER_QUOTA_EXCEEDED
        assert (await backend.claim(reason, 1, 10, {"alice": 1})).occurrences == 1
        assert (await second.claim(reason, 2, 10, {"alice": 1, "bob": 1})).occurrences == 0
        assert (await backend.claim(reason, 1, 10, {"bob": 1})).occurrences == 0
        clock.advance(10)
        claims = await asyncio.gather(backend.claim(reason, 0, 10, {}), second.claim(reason, 0, 10, {}))
        (claim,) = [one for one in claims if one.occurrences]
        assert (claim.occurrences, dict(claim.owners)) == (3, {"alice": 1, "bob": 2})

    @scenario()
    async def test_suspects_of_both(self, backend: SessionBackend, second: SessionBackend) -> None:
        """Creators are summed up over all authorities."""
        both, only = Creator("a.py:1 in f"), Creator("b.py:2 in g")
        await backend.create(new("a", origin=Origin(both)))
        await second.create(new("b", origin=Origin(both)))
        await second.create(new("c", origin=Origin(only)))
        report = await backend.suspects()
        assert [(found.creator, found.sessions) for found in report.largest] == [(both, 2), (only, 1)]

    @scenario(max_sessions=1_000)
    async def test_both_list_what_both_made(self, backend: SessionBackend, second: SessionBackend) -> None:
        """In pages and scans, while the other writes."""
        await create_many(backend, [f"a{number}" for number in range(150)], owner="alice")
        await create_many(second, [f"b{number}" for number in range(150)], owner="bob")
        listed, _ = await asyncio.gather(
            scanned(backend), asyncio.gather(*(second.write(f"b{number}", {"k": raw(1)}) for number in range(50)))
        )
        assert len(listed) == len(set(listed)) == 300
        assert len(await second.page(None, 1_000, owner="alice")) == 150

    @scenario()
    async def test_a_lease_never_touches_a_later_session(
        self, backend: SessionBackend, second: SessionBackend, clock: FakeClock
    ) -> None:
        """Which another authority made with the id of one that was held: it finds that one lost."""
        one, other, lost = _store(backend, clock), _store(second, clock), list[str]()
        lease = one.lease(lost.append)
        await lease.create("a")
        await other.delete("a")
        await other.create("a", ttl=10)
        clock.advance(9)
        await lease.touch()
        assert (lost, len(lease)) == (["a"], 0)
        await lease.end()
        assert (await other.get("a", touch=False)).idle == pytest.approx(9, abs=0.01)

    @scenario()
    async def test_a_lease_never_ends_a_later_session(self, backend: SessionBackend, second: SessionBackend) -> None:
        """Nor does a delete, or the end of a task that the first was bound to."""
        one, other = _store(backend), _store(second)
        done = asyncio.Event()
        task = asyncio.ensure_future(done.wait())
        lease = one.lease()
        for session_id in ("held", "deleted"):
            await lease.create(session_id)
        await one.create("bound")
        await one.bind_to_task("bound", task)
        for session_id in ("held", "deleted", "bound"):
            await other.delete(session_id)
            await other.create(session_id)
        assert not await lease.delete("deleted")
        await lease.end()
        done.set()
        await task
        await asyncio.sleep(0)
        await one.stop()
        assert sorted(await scanned(second)) == ["bound", "deleted", "held"]
        await balanced(second, created=6, deleted=3, live=3)

    @scenario()
    async def test_a_lease_ends_what_it_holds(self, backend: SessionBackend, second: SessionBackend) -> None:
        """Also where another authority has used it since."""
        one, other = _store(backend), _store(second)
        async with one.lease() as lease:
            await lease.create("a")
            await other.set_state("a", "k", 1)
            await other.create("a")
        assert not await other.exists("a")


def _store(backend: SessionBackend, clock: FakeClock | None = None) -> SessionStore:
    """Return an authority's store over a backend that is open."""
    emit: Callable[..., None] = _ignore
    return SessionStore(backend=backend, clock=clock, emit=emit)


def _ignore(*_: object, **__: object) -> None:
    pass
