"""Tests of sessions: their times, ends, incarnations and tokens."""

from __future__ import annotations

import asyncio

import pytest

from snakepit_otel.errors import InvalidSession, SessionNotFound, SnakepitError, StateConflict
from snakepit_otel.sessions import Creator, Origin, Overflow, SessionBackend
from snakepit_otel.sessions.backends import EndReason
from snakepit_otel.testing._clock import FakeClock
from snakepit_otel.testing.backends._scenarios import BackendSuite, balanced, new, raw, scanned, scenario

# What ids, owners, metadata and keys may be, and what has broken stores: separators, quotes, signs of formats.
HOSTILE = (
    "x" * 256,
    "€" * 85,
    "a:b{c}*?[d]\\",
    "'; DROP TABLE sessions; --",
    "a%00b",
    "𝄞",
    "e\u0301",
    "None",
    "0",
    " ",
)


class SessionTests(BackendSuite):
    """One session, from its create to its end."""

    @scenario()
    async def test_a_new_session_is_as_requested(self, backend: SessionBackend, clock: FakeClock) -> None:
        """It has its id, TTL, metadata and owner, and no state; it has been used just now."""
        created = await backend.create(new("a", 30, {"k": "Zoë"}, owner="alice"))
        session = created.session
        assert (created.new, created.live, list(created.ended)) == (True, 1, [])
        assert (session.id, session.ttl, dict(session.metadata), session.owner) == ("a", 30, {"k": "Zoë"}, "alice")
        assert (session.last_worker_id, session.version, session.idle) == (None, 0, 0)
        assert session.memory_bytes == len("ak") + len("Zoë".encode())
        assert session.created_at == session.last_accessed == pytest.approx(clock.time(), abs=0.01)
        assert (await backend.read("a")).entries == {}
        assert await backend.get("a") == session

    @scenario()
    async def test_a_live_session_is_returned_unchanged(self, backend: SessionBackend, clock: FakeClock) -> None:
        """A second create of its id touches it, and changes and counts nothing."""
        first = (await backend.create(new("a", 30, {"k": "v"}, owner="alice", token=1))).session
        clock.advance(20)
        created = await backend.create(new("a", 99, {"other": "w"}, owner="bob", token=2))
        assert (created.new, created.live, list(created.ended)) == (False, 1, [])
        assert created.session._replace(last_accessed=0) == first._replace(last_accessed=0)
        clock.advance(20)
        assert (await backend.get("a", touch=False)).idle == pytest.approx(20, abs=0.01)
        await balanced(backend, created=1, live=1)

    @scenario()
    async def test_it_expires_at_the_instant_of_its_ttl(self, backend: SessionBackend, clock: FakeClock) -> None:
        """Not before, and not only once it is swept."""
        await backend.create(new("a", 10))
        clock.advance(9.75)
        assert (await backend.get("a", touch=False)).idle == pytest.approx(9.75, abs=0.01)
        clock.advance(0.25)
        with pytest.raises(SessionNotFound):
            await backend.get("a", touch=False)

    @scenario()
    async def test_an_expired_session_does_not_exist(self, backend: SessionBackend, clock: FakeClock) -> None:
        """For no method, though it counts as live until it is pruned."""
        await backend.create(new("a", 10, owner="alice"))
        await backend.write("a", {"k": b"1"})
        clock.advance(10)
        calls = (
            backend.get("a"),
            backend.get("a", touch=False),
            backend.read("a"),
            backend.read("a", touch=False),
            backend.write("a", {"k": b"2"}),
            backend.update("a", lambda _: {"k": b"2"}),
        )
        for call in calls:
            with pytest.raises(SessionNotFound):
                await call
        await backend.assign_worker("a", "one")
        assert (await backend.delete("a")).ended is None
        assert list(await backend.page(None, 10)) == list(await backend.page(None, 10, owner="alice")) == []
        assert await scanned(backend) == await scanned(backend, owner="alice") == []
        await balanced(backend, created=1, live=1)
        assert [end.reason for end in (await backend.prune(10)).ended] == [EndReason.TTL]

    @scenario()
    async def test_what_reads_without_touching_does_not_prolong(
        self, backend: SessionBackend, clock: FakeClock
    ) -> None:
        """Nor do lists, hints, reports and failed deletes."""
        session = (await backend.create(new("a", 10))).session
        clock.advance(6)
        await backend.get("a", touch=False)
        await backend.read("a", touch=False)
        await backend.page(None, 10)
        await scanned(backend)
        await backend.suspects()
        await backend.assign_worker("a", "one")
        await backend.delete("a", owner="bob")
        with pytest.raises(SessionNotFound):
            await backend.get("a", incarnation=session.incarnation + 1)
        assert (await backend.get("a", touch=False)).idle == pytest.approx(6, abs=0.01)
        clock.advance(4)
        with pytest.raises(SessionNotFound):
            await backend.get("a")

    @scenario(max_session_bytes=100)
    async def test_accesses_start_the_ttl_anew(self, backend: SessionBackend, clock: FakeClock) -> None:
        """Reads, writes and updates do, refused writes among them."""
        await backend.create(new("a", 10))

        async def conflict() -> None:
            with pytest.raises(StateConflict):
                await backend.write("a", {"k": b"1"}, if_version=99)

        async def refused() -> None:
            with pytest.raises(SnakepitError):
                await backend.write("a", {"k": raw("x" * 200)})

        for access in (
            lambda: backend.get("a"),
            lambda: backend.read("a"),
            lambda: backend.write("a", {"k": b"1"}),
            lambda: backend.update("a", lambda _: {"k": b"2"}),
            lambda: backend.update("a", lambda _: {}),
            conflict,
            refused,
        ):
            clock.advance(8)
            await access()
            assert (await backend.get("a", touch=False)).idle == pytest.approx(0, abs=0.01)

    @scenario()
    async def test_a_deleted_session_is_reported_with_its_lifetime(
        self, backend: SessionBackend, clock: FakeClock
    ) -> None:
        """And with its origin and incarnation; a second delete finds nothing."""
        origin = Origin(Creator("shop.py:7 in open_tab", "parse", "alice"), "4bf92f-00f067", "parse")
        session = (await backend.create(new("a", 60, owner="alice", origin=origin))).session
        clock.advance(12.5)
        await backend.get("a")
        deleted = await backend.delete("a")
        assert deleted.live == 0
        assert deleted.ended is not None
        end = deleted.ended
        assert (end.session_id, end.reason, end.incarnation) == ("a", EndReason.DELETED, session.incarnation)
        assert end.lifetime == pytest.approx(12.5, abs=0.01)
        assert end.origin == origin
        assert await backend.delete("a") == (None, 0)
        await balanced(backend, created=1, deleted=1, live=0)

    @scenario()
    async def test_the_lifetime_of_an_expired_session_ends_with_its_ttl(
        self, backend: SessionBackend, clock: FakeClock
    ) -> None:
        """Not when somebody noticed."""
        await backend.create(new("a", 10))
        clock.advance(5)
        await backend.get("a")
        clock.advance(100)
        (end,) = (await backend.prune(10)).ended
        assert end.lifetime == pytest.approx(15, abs=0.01)

    @scenario()
    async def test_a_session_is_deleted_for_its_owner_only(self, backend: SessionBackend) -> None:
        """With an owner, a session of another one, or of nobody, stays."""
        await backend.create(new("a", owner="alice"))
        await backend.create(new("b"))
        assert await backend.delete("a", owner="bob") == (None, 2)
        assert await backend.delete("b", owner="bob") == (None, 2)
        assert (await backend.delete("a", owner="alice")).ended is not None

    @scenario()
    async def test_an_earlier_incarnation_finds_nothing(self, backend: SessionBackend, clock: FakeClock) -> None:
        """After the end of a session, calls for it neither touch nor end the next one of its id."""
        ended = (await backend.create(new("a", 60))).session
        await backend.delete("a")
        expired = (await backend.create(new("a", 10))).session
        clock.advance(10)
        live = (await backend.create(new("a", 10))).session
        assert len({ended.incarnation, expired.incarnation, live.incarnation}) == 3
        clock.advance(4)
        for session in (ended, expired):
            with pytest.raises(SessionNotFound):
                await backend.get("a", incarnation=session.incarnation)
            assert await backend.delete("a", incarnation=session.incarnation) == (None, 1)
        assert (await backend.get("a", touch=False)).idle == pytest.approx(4, abs=0.01)
        assert (await backend.get("a", incarnation=live.incarnation)).incarnation == live.incarnation
        deleted = await backend.delete("a", incarnation=live.incarnation)
        assert deleted.ended is not None
        assert deleted.ended.incarnation == live.incarnation

    @scenario()
    async def test_an_id_begins_anew(self, backend: SessionBackend, clock: FakeClock) -> None:
        """A session of an id that had one has nothing of it: no state, no worker, no metadata."""
        await backend.create(new("a", 10, {"k": "v"}, owner="alice"))
        version = await backend.write("a", {"k": b"1"})
        await backend.assign_worker("a", "one")
        clock.advance(10)
        created = await backend.create(new("a", 10))
        assert created.new
        assert [(end.session_id, end.reason) for end in created.ended] == [("a", EndReason.TTL)]
        session = created.session
        assert (dict(session.metadata), session.owner, session.last_worker_id, session.version) == ({}, None, None, 0)
        assert (await backend.read("a")).entries == {}
        assert await backend.write("a", {"k": b"1"}) > version

    @scenario()
    async def test_a_repeated_create_is_one_create(self, backend: SessionBackend) -> None:
        """With the token of the first, it returns the session as new, and counts nothing."""
        first = await backend.create(new("a", token=7))
        again = await backend.create(new("a", token=7))
        assert again.new
        assert again.session.incarnation == first.session.incarnation
        assert not (await backend.create(new("a", token=8))).new
        assert not (await backend.create(new("a"))).new
        await balanced(backend, created=1, live=1)

    @scenario(max_sessions=2, overflow=Overflow.EVICT)
    async def test_a_repeated_create_returns_what_it_replaced(self, backend: SessionBackend) -> None:
        """The ends that its first reply had, which may be lost, are counted once."""
        await backend.create(new("a", token=1))
        await backend.create(new("b", token=2))
        first = await backend.create(new("c", token=3))
        again = await backend.create(new("c", token=3))
        assert [end.session_id for end in first.ended] == ["a"]
        assert list(again.ended) == list(first.ended)
        assert (again.new, again.live) == (True, 2)
        await balanced(backend, created=3, pruned_overflow=1, live=2)

    @scenario()
    async def test_a_create_repeated_after_the_end_makes_a_session(self, backend: SessionBackend) -> None:
        """Its session was deleted meanwhile, by another: the caller is given a live one."""
        first = await backend.create(new("a", token=7))
        await backend.delete("a")
        again = await backend.create(new("a", token=7))
        assert again.session.incarnation != first.session.incarnation
        assert again.new
        await balanced(backend, deleted=1, live=1)

    @scenario()
    async def test_no_token_is_no_token(self, backend: SessionBackend) -> None:
        """Creates and writes with the token 0 are not the same."""
        assert (await backend.create(new("a"))).new
        assert not (await backend.create(new("a"))).new
        first = await backend.write("a", {"k": b"1"})
        assert await backend.write("a", {"k": b"1"}) > first

    @scenario()
    async def test_texts_come_back_as_they_were(self, backend: SessionBackend) -> None:
        """Ids of 256 bytes, and texts that have meanings elsewhere; in metadata and owners, control characters too."""
        odd = "\x00\n\x1b[31m\u2028\x1f"
        for text in HOSTILE:
            owner = (text + odd)[-200:]
            await backend.create(new(text, 60, {text: odd, odd + text: text}, owner=owner))
            await backend.assign_worker(text, odd)
            session = await backend.get(text)
            assert dict(session.metadata) == {text: odd, odd + text: text}
            assert (session.id, session.owner, session.last_worker_id) == (text, owner, odd)
            assert [one.id for one in await backend.page(None, 9, owner=owner)] == [text]
            assert await scanned(backend, owner=owner) == [text]
        assert [one.id for one in await backend.page(None, 99)] == sorted(HOSTILE)
        assert sorted(await scanned(backend)) == sorted(HOSTILE)
        for text in HOSTILE:
            assert (await backend.delete(text)).ended is not None

    @scenario()
    async def test_origins_are_any_text(self, backend: SessionBackend) -> None:
        """A call site is a file's name, which may be no UTF-8: half of a character fails no create."""
        for number, site in enumerate(("caf\udce9.py:1 in f", "\x00.py:1", "€" * 300)):
            origin = Origin(Creator(site, site, "alice"), "trace-span", site)
            await backend.create(new(f"s{number}", owner="alice", origin=origin))
        report = await backend.suspects()
        assert [one.sessions for one in report.largest] == [1, 1, 1]
        assert report.lines()

    @scenario(max_session_bytes=50)
    async def test_metadata_is_limited(self, backend: SessionBackend) -> None:
        """A session that begins over its budget is refused, and nothing has changed."""
        await backend.create(new("fits", 60, {"k": "x" * 45}))
        with pytest.raises(InvalidSession):
            await backend.create(new("large", 60, {"k": "x" * 45}))
        with pytest.raises(SessionNotFound):
            await backend.get("large")
        await balanced(backend, created=1, live=1)

    @scenario()
    async def test_ttls_of_all_sizes(self, backend: SessionBackend, clock: FakeClock) -> None:
        """From milliseconds to ten years, side by side."""
        ttls = (0.01, 0.5, 3_600.0, 10 * 366 * 86_400.0)
        for ttl in ttls:
            await backend.create(new(f"for {ttl}", ttl))
        for gone, step in enumerate((0.0, 0.02, 1.0, 4_000.0)):
            clock.advance(step)
            assert len(await backend.page(None, 10)) == len(ttls) - gone
        pruned = await backend.prune(10)
        assert sorted(round(end.lifetime, 2) for end in pruned.ended) == [0.01, 0.5, 3_600.0]

    @scenario()
    async def test_concurrent_creates_of_one_id_make_one_session(self, backend: SessionBackend) -> None:
        """One of them finds it new."""
        created = await asyncio.gather(*(backend.create(new("a", token=token)) for token in range(1, 21)))
        assert sum(one.new for one in created) == 1
        assert len({one.session.incarnation for one in created}) == 1
        await balanced(backend, created=1, live=1)
