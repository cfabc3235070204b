"""Tests of quotas, of the ledger, of lists, and of what the watchdog needs."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from snakepit_otel.errors import (
    OwnerQuotaExceeded,
    SessionNotFound,
    SessionQuotaExceeded,
    SessionStoreFull,
    StateRefused,
)
from snakepit_otel.sessions import Creator, Origin, Overflow, SessionBackend
from snakepit_otel.sessions.backends import EndReason, WarningReason
from snakepit_otel.testing._clock import FakeClock
from snakepit_otel.testing.backends._scenarios import (
    BackendSuite,
    balanced,
    create_many,
    new,
    raw,
    scanned,
    scenario,
)
from snakepit_otel.testing.backends._state_tests import moment

_QUOTA, _OWNERS = WarningReason.QUOTA_EXCEEDED, WarningReason.OWNER_QUOTA_EXCEEDED


class LedgerTests(BackendSuite):
    """All sessions of one store."""

    @scenario(max_sessions=2)
    async def test_a_create_at_the_quota_is_refused(self, backend: SessionBackend) -> None:
        """And counted, in the ledger as it was last seen as well; a live id needs no quota."""
        await create_many(backend, ["a", "b"])
        with pytest.raises(SessionQuotaExceeded) as refused:
            await backend.create(new("c"))
        assert not isinstance(refused.value, OwnerQuotaExceeded)
        assert (backend.last_stats.rejected, backend.last_stats.live) == (1, 2)
        assert not (await backend.create(new("a"))).new
        await backend.delete("a")
        assert (await backend.create(new("c"))).live == 2
        await balanced(backend, created=3, deleted=1, rejected=1, rejected_per_owner=0, live=2)

    @scenario(max_sessions=2)
    async def test_expired_sessions_make_room(self, backend: SessionBackend, clock: FakeClock) -> None:
        """They are pruned by the create that needs it, which returns their ends."""
        await create_many(backend, ["a", "b"], ttl=10)
        clock.advance(10)
        created = await backend.create(new("c"))
        assert {(end.session_id, end.reason) for end in created.ended} == {("a", EndReason.TTL), ("b", EndReason.TTL)}
        await balanced(backend, created=3, pruned_ttl=2, rejected=0, live=1)

    @scenario(max_sessions=2, overflow=Overflow.EVICT)
    async def test_the_least_recently_used_goes(self, backend: SessionBackend, clock: FakeClock) -> None:
        """Where the policy is to evict."""
        await create_many(backend, ["a", "b"])
        clock.advance(1)
        await backend.get("a")
        clock.advance(1)
        created = await backend.create(new("c"))
        (end,) = created.ended
        assert (end.session_id, end.reason, created.live) == ("b", EndReason.OVERFLOW, 2)
        assert end.lifetime == pytest.approx(2, abs=0.01)
        with pytest.raises(SessionNotFound):
            await backend.get("b")
        await balanced(backend, created=3, pruned_overflow=1, live=2)

    @scenario(max_sessions_per_owner=2, max_sessions=3, overflow=Overflow.EVICT)
    async def test_the_quota_of_an_owner(self, backend: SessionBackend, clock: FakeClock) -> None:
        """Is no quota of others; at it no session is evicted, but that owner's expired ones are pruned."""
        await create_many(backend, ["a", "b"], owner="alice", ttl=10)
        await backend.create(new("c", owner="bob"))
        with pytest.raises(OwnerQuotaExceeded) as refused:
            await backend.create(new("d", owner="alice"))
        assert refused.value.owner == "alice"
        assert (backend.last_stats.rejected, backend.last_stats.rejected_per_owner) == (1, 1)
        clock.advance(10)
        created = await backend.create(new("d", owner="alice"))
        assert sorted(end.session_id for end in created.ended) == ["a", "b"]
        await balanced(backend, created=4, pruned_ttl=2, pruned_overflow=0, rejected=1, rejected_per_owner=1, live=2)

    @scenario(max_total_bytes=10_000)
    async def test_a_full_store_refuses(self, backend: SessionBackend) -> None:
        """Creates and writes, with nothing changed, until there is space again."""
        results = [await asyncio.gather(backend.create(new(f"s{one}")), return_exceptions=True) for one in range(11)]
        made = sum(not isinstance(one, BaseException) for (one,) in results)
        assert 2 <= made <= 10
        with pytest.raises(SessionStoreFull) as full:
            await backend.create(new("one more"))
        assert 0 < full.value.missing <= 2_000
        before = await balanced(backend, created=made, live=made, rejected=0)
        with pytest.raises(SessionStoreFull):
            await backend.write("s0", {"k": raw("x" * 2_000)})
        with pytest.raises(SessionStoreFull):
            await backend.update("s0", lambda _: {"k": raw("x" * 2_000)})
        assert (await backend.read("s0")).entries == {}
        assert await backend.stats() == before
        for number in range(1, made):
            await backend.delete(f"s{number}")
        await backend.write("s0", {"k": raw("x" * 1_000)})

    @scenario()
    async def test_evict_frees_bytes(self, backend: SessionBackend, clock: FakeClock) -> None:
        """The least recently used go first, and never the one to keep."""
        for session_id, ttl in (("a", 60), ("b", 60), ("c", 1), ("d", 60), ("e", 60)):
            await backend.create(new(session_id, ttl))
            clock.advance(0.5)
        await backend.get("b")
        clock.advance(0.5)
        ended = list(await backend.evict(1, "a"))
        assert [(end.session_id, end.reason) for end in ended] == [("c", EndReason.TTL)]
        ended = list(await backend.evict(1, "a"))
        assert [(end.session_id, end.reason) for end in ended] == [("d", EndReason.OVERFLOW)]
        assert backend.last_stats.pruned_overflow == 1
        assert [end.session_id for end in await backend.evict(1 << 30, "a")] == ["e", "b"]
        assert await backend.evict(1 << 30, "a") == []
        await balanced(backend, created=5, pruned_ttl=1, pruned_overflow=3, live=1)

    @scenario()
    async def test_a_prune_removes_so_many(self, backend: SessionBackend, clock: FakeClock) -> None:
        """What has expired, each once, and `more` while more may be due."""
        await create_many(backend, [f"s{number}" for number in range(5)], ttl=10)
        await create_many(backend, ["x", "y"], ttl=60)
        assert tuple(await backend.prune(10)) == ([], 7, False)
        clock.advance(10)
        seen: list[str] = []
        for live, more in ((5, True), (3, True), (2, False)):
            pruned = await backend.prune(2)
            assert (pruned.live, pruned.more) == (live, more)
            assert all(end.reason is EndReason.TTL for end in pruned.ended)
            seen += [end.session_id for end in pruned.ended]
        assert sorted(seen) == [f"s{number}" for number in range(5)]
        await balanced(backend, created=7, pruned_ttl=5, live=2)

    @scenario()
    async def test_reported_events_are_counted(self, backend: SessionBackend, clock: FakeClock) -> None:
        """A prune of none confirms them; what is missing was not reported."""
        await create_many(backend, ["a", "b", "c"], ttl=10)
        clock.advance(10)
        assert len((await backend.prune(10)).ended) == 3
        assert tuple(await backend.prune(0, reported=2)) == ([], 0, False)
        assert backend.last_stats.reported == 2
        await balanced(backend, pruned_ttl=3, reported=2)
        await backend.prune(10, reported=1)
        await balanced(backend, pruned_ttl=3, reported=3)

    @scenario(max_session_bytes=100)
    async def test_the_ledger_counts_bytes(self, backend: SessionBackend) -> None:
        """Of all ids, metadata and state, as they change, and not those of refused writes."""
        await backend.create(new("a", 60, {"k": "é"}))
        await backend.create(new("b"))
        assert backend.last_stats.memory_bytes == 5
        await backend.write("b", {"key": b"[1]"})
        await backend.write("a", {"x": b"10", "y": None})
        await balanced(backend, memory_bytes=14)
        with pytest.raises(StateRefused):
            await backend.write("a", {"x": raw("x" * 100)})
        await backend.write("b", {"key": b"1"})
        await balanced(backend, memory_bytes=12)
        await backend.delete("a")
        await balanced(backend, memory_bytes=5)

    @scenario()
    async def test_errors_leave_the_ledger_as_it_is(self, backend: SessionBackend) -> None:
        """As it was last seen, too."""
        await backend.create(new("a"))
        before = await backend.stats()
        for call in (backend.get("b"), backend.read("b"), backend.write("b", {}), backend.update("b", lambda _: {})):
            with pytest.raises(SessionNotFound):
                await call
        assert (await backend.delete("b")).ended is None
        assert backend.last_stats == before == await backend.stats()

    @scenario(max_sessions=5)
    async def test_concurrent_creates_keep_the_quota(self, backend: SessionBackend) -> None:
        """As many succeed as there is room for, and the others are counted."""
        calls = (backend.create(new(f"s{number}")) for number in range(20))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(one, SessionQuotaExceeded) for one in results) == 15
        await balanced(backend, created=5, rejected=15, live=5)

    @scenario()
    async def test_a_cancelled_create_is_done_or_not(self, backend: SessionBackend) -> None:
        """And counted if it is; the next call has its own reply."""
        for number in range(16):
            call = asyncio.ensure_future(backend.create(new(f"cancelled {number}")))
            await moment(number)
            call.cancel()
            await asyncio.wait([call])
            assert (await backend.create(new(f"next {number}"))).session.id == f"next {number}"
        live = len(await scanned(backend))
        assert 16 <= live <= 32
        await balanced(backend, created=live, live=live)

    @scenario(max_sessions=inf)
    async def test_pages_are_in_order_of_id(self, backend: SessionBackend) -> None:
        """By code points, from after any id, whether it is there or not."""
        ids = ["A", "Z", "a", "ab", "b", "z", "é", "€", "\uffee", "𝄞"]
        await create_many(backend, ids[::-1], owner="alice")
        await create_many(backend, ["c"], owner="bob")
        assert [session.id for session in await backend.page(None, 99, owner="alice")] == ids
        seen: list[str] = []
        while page := await backend.page(seen[-1] if seen else None, 3, owner="alice"):
            assert len(page) <= 3
            seen += [session.id for session in page]
            await backend.delete(seen[-1])
        assert seen == ids
        assert [session.id for session in await backend.page("bb", 1)] == ["c"]
        assert list(await backend.page(None, 0)) == []

    @scenario(max_sessions=inf)
    async def test_a_scan_yields_each_session_once(self, backend: SessionBackend) -> None:
        """Those that live all the while; others at most once, while sessions come and go."""
        kept = [f"k{number}" for number in range(700)]
        await create_many(backend, kept)
        await create_many(backend, [f"d{number}" for number in range(500)])
        seen: list[str] = []
        number = 0
        async for batch in backend.scan():
            seen += [session.id for session in batch]
            for _ in range(20 if number < 200 else 0):
                await backend.delete(f"d{number}")
                await backend.create(new(f"n{number}"))
                await backend.write("k0", {"k": raw(number)})
                number += 1
        assert len(seen) == len(set(seen))
        assert set(kept) <= set(seen)

    @scenario(max_sessions=inf)
    async def test_a_scan_may_be_left(self, backend: SessionBackend) -> None:
        """After a batch; and one of an owner yields only that owner's."""
        await create_many(backend, [f"s{number}" for number in range(30)], owner="alice")
        await create_many(backend, ["x"], owner="bob")
        scan = backend.scan()
        assert await anext(scan)
        await scan.aclose()
        assert await scanned(backend, owner="bob") == ["x"]
        assert await scanned(backend, owner="nobody") == []

    @scenario()
    async def test_suspects_are_those_who_create_most(self, backend: SessionBackend, clock: FakeClock) -> None:
        """With the number of their sessions, the age and the trace of the oldest; without those that ended."""
        one, other = Creator("a.py:1 in f", "parse", "alice"), Creator("b.py:2 in g", None, "bob")
        for number in range(3):
            await backend.create(new(f"a{number}", owner="alice", origin=Origin(one, f"trace{number}-span", "parse")))
            clock.advance(1)
        await backend.create(new("b0", owner="bob", origin=Origin(other, "trace-b")))
        await backend.create(new("c0", owner="carol", origin=Origin(None, "trace-c", "parse")))
        await backend.create(new("d0"))
        await backend.delete("a0")
        report = await backend.suspects(1)
        (largest,) = report.largest
        assert (largest.creator, largest.sessions, largest.trace) == (one, 2, "trace1-span")
        assert largest.oldest_age == pytest.approx(2, abs=0.01)
        assert (report.more_creators, report.more_sessions) == (3, 3)
        (of_bob,) = (await backend.suspects(owner="bob")).largest
        assert (of_bob.creator, of_bob.sessions) == (other, 1)
        sites = {(found.creator.call_site, found.creator.tool) for found in (await backend.suspects()).largest}
        assert sites >= {("made before strict mode was on", "parse"), ("made before strict mode was on", None)}
        assert (await backend.suspects(owner="nobody")).largest == ()

    @scenario()
    async def test_one_claim_in_an_interval(self, backend: SessionBackend, clock: FakeClock) -> None:
        """Takes all that is pending; the next takes what has come since."""
        claim = await backend.claim(_QUOTA, 2, 10, {})
        assert claim.occurrences == 2
        assert claim.quiet == pytest.approx(10, abs=0.01)
        clock.advance(4)
        claim = await backend.claim(_QUOTA, 3, 10, {})
        assert claim.occurrences == 0
        assert claim.quiet == pytest.approx(6, abs=0.01)
        assert (await backend.claim(_QUOTA, 1, 10, {})).occurrences == 0
        assert (await backend.claim(WarningReason.THRESHOLD_WARNING, 1, 10, {})).occurrences == 1
        clock.advance(6)
        assert (await backend.claim(_QUOTA, 0, 10, {})).occurrences == 4

    @scenario()
    async def test_a_claim_of_nothing_claims_nothing(self, backend: SessionBackend) -> None:
        """The one that comes after it is not too early."""
        assert (await backend.claim(_QUOTA, 0, 10, {})).occurrences == 0
        assert (await backend.claim(_QUOTA, 1, 10, {})).occurrences == 1

    @scenario()
    async def test_a_claim_has_the_owners(self, backend: SessionBackend, clock: FakeClock) -> None:
        """Of all that is pending; of at most a hundred."""
        claim = await backend.claim(_OWNERS, 3, 10, {"alice": 2, "böb\n\x00": 1})
        assert (claim.occurrences, dict(claim.owners)) == (3, {"alice": 2, "böb\n\x00": 1})
        await backend.claim(_OWNERS, 1, 10, {"alice": 1})
        await backend.claim(_OWNERS, 201, 10, {"alice": 1, **{f"o{number}": 1 for number in range(200)}})
        clock.advance(10)
        claim = await backend.claim(_OWNERS, 0, 10, {})
        assert (claim.occurrences, claim.owners["alice"], len(claim.owners)) == (202, 2, 100)
        clock.advance(10)
        assert dict((await backend.claim(_OWNERS, 1, 10, {"bob": 1})).owners) == {"bob": 1}

    @scenario()
    async def test_a_closed_backend_can_be_opened_again(self, backend: SessionBackend) -> None:
        """With its sessions, and its ledger."""
        await backend.create(new("a"))
        name = backend.name
        await backend.close()
        await backend.open()
        assert (await backend.get("a")).id == "a"
        assert backend.name == name
        await balanced(backend, created=1, live=1)
