"""Tests of the state of sessions: writes, versions, conflicts and limits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from snakepit_otel.errors import SessionNotFound, StateConflict, StateRefused
from snakepit_otel.sessions import SessionBackend
from snakepit_otel.sessions.backends import Entry
from snakepit_otel.testing.backends._scenarios import BackendSuite, balanced, new, raw, scenario
from snakepit_otel.testing.backends._session_tests import HOSTILE


class StateTests(BackendSuite):
    """The state of one session."""

    @scenario()
    async def test_a_write_replaces_and_removes(self, backend: SessionBackend) -> None:
        """Key by key; the others stay as they were, with their versions."""
        await backend.create(new("a"))
        first = await backend.write("a", {"k": b"1", "l": b"[2]", "m": b"{}"})
        second = await backend.write("a", {"k": b"11", "l": None, "not there": None})
        view = await backend.read("a")
        assert second > first > 0
        assert view.version == second == (await backend.get("a")).version
        assert view.entries == {"k": Entry(b"11", second), "m": Entry(b"{}", first)}
        assert (await backend.get("a")).memory_bytes == len("akm") + len(b"11{}")

    @scenario()
    async def test_values_come_back_byte_by_byte(self, backend: SessionBackend) -> None:
        """JSON is stored as it is, under keys of any text."""
        await backend.create(new("a"))
        values = [raw("\x00"), b'"\\u0000\\ud834"', raw("𝄞€\n"), b"1e400", b"-0", b" [ 1 ] ", raw("'\"\\:{}*")]
        changes: dict[str, bytes | None] = {}
        for number, key in enumerate((*HOSTILE, "\x00", "a\x1fb", "a\x00b", "line\nfeed")):
            changes[key] = values[number % len(values)]
        await backend.write("a", changes)
        entries = (await backend.read("a")).entries
        assert {key: entry.raw for key, entry in entries.items()} == changes

    @scenario()
    async def test_sessions_do_not_share_state(self, backend: SessionBackend) -> None:
        """Nor do those whose ids and keys are the same when joined."""
        for session_id, key in (("a", "b:c"), ("a:b", "c"), ("ab", "c"), ("a", "bc")):
            await backend.create(new(session_id))
            await backend.write(session_id, {key: raw(f"{session_id}/{key}")})
        await backend.delete("a")
        assert {key: entry.raw for key, entry in (await backend.read("a:b")).entries.items()} == {"c": raw("a:b/c")}
        assert {key: entry.raw for key, entry in (await backend.read("ab")).entries.items()} == {"c": raw("ab/c")}
        await backend.create(new("a"))
        assert (await backend.read("a")).entries == {}

    @scenario()
    async def test_versions_never_come_back(self, backend: SessionBackend) -> None:
        """They grow over all sessions, also where an id begins anew."""
        seen: list[int] = []
        for _ in range(3):
            for session_id in ("a", "b"):
                await backend.create(new(session_id))
                seen += [await backend.write(session_id, {"k": value}) for value in (b"1", None)]
                await backend.delete(session_id)
        assert [0, *seen] == sorted({0, *seen})

    @scenario()
    async def test_a_conditional_write_is_all_or_nothing(self, backend: SessionBackend) -> None:
        """It fails for another version of the session, or of any of the keys."""
        await backend.create(new("a"))
        with pytest.raises(StateConflict):
            await backend.write("a", {"k": b"1"}, if_version=1)
        first = await backend.write("a", {"k": b"1"}, if_version=0)
        second = await backend.write("a", {"l": b"1"}, if_version=first)
        before = await backend.read("a")
        for conditions in (
            {"if_version": first},
            {"if_versions": {"k": second}},
            {"if_versions": {"k": first, "l": first}},
            {"if_versions": {"k": first, "m": second}},
            {"if_versions": {"k": 0}},
        ):
            with pytest.raises(StateConflict) as conflict:
                await backend.write("a", {"k": b"2", "l": b"2", "m": b"2"}, **conditions)
            assert conflict.value.expected != conflict.value.current
            assert await backend.read("a") == before
        third = await backend.write("a", {"m": b"3"}, if_version=second, if_versions={"k": first, "l": second, "m": 0})
        assert third > second

    @scenario()
    async def test_a_removed_key_has_no_version(self, backend: SessionBackend) -> None:
        """It is as one that was never there."""
        await backend.create(new("a"))
        first = await backend.write("a", {"k": b"1"})
        await backend.write("a", {"k": None}, if_versions={"k": first})
        assert await backend.write("a", {"k": b"2"}, if_versions={"k": 0}) > first

    @scenario()
    async def test_a_repeated_write_is_one_write(self, backend: SessionBackend) -> None:
        """With the token of the session's last write, whatever its conditions, it returns that version."""
        await backend.create(new("a"))
        first = await backend.write("a", {"k": b"1"}, if_version=0, if_versions={"k": 0}, token=7)
        again = await backend.write("a", {"k": b"1"}, if_version=0, if_versions={"k": 0}, token=7)
        assert again == first == (await backend.get("a")).version
        other = await backend.write("a", {"k": b"2"}, if_version=first, token=8)
        assert other > first
        with pytest.raises(StateConflict):
            await backend.write("a", {"k": b"1"}, if_version=0, token=7)

    @scenario()
    async def test_a_token_is_of_one_session(self, backend: SessionBackend) -> None:
        """A write that is repeated after the session's end finds nothing, or writes to the next of that id."""
        await backend.create(new("a"))
        first = await backend.write("a", {"k": b"1"}, token=7)
        await backend.delete("a")
        with pytest.raises(SessionNotFound):
            await backend.write("a", {"k": b"1"}, token=7)
        await backend.create(new("a"))
        assert await backend.write("a", {"k": b"1"}, token=7) > first
        assert (await backend.read("a")).entries["k"].raw == b"1"

    @scenario(max_session_bytes=1_000)
    async def test_the_byte_budget_is_exact(self, backend: SessionBackend) -> None:
        """State that fills it is written; one byte more is refused, with nothing changed."""
        await backend.create(new("a", 60, {"m": "é"}))
        free = 1_000 - len("am") - 2
        full = raw("x" * (free - len("k") - 2))
        with pytest.raises(StateRefused):
            await backend.write("a", {"k": full + b" "})
        assert (await backend.read("a")).entries == {}
        version = await backend.write("a", {"k": full})
        assert (await backend.get("a")).memory_bytes == 1_000
        with pytest.raises(StateRefused):
            await backend.write("a", {"k": b"1", "l": full})
        with pytest.raises(StateRefused):
            await backend.update("a", lambda entries: {"k": entries["k"].raw + b" "})
        assert await backend.read("a") == (version, {"k": Entry(full, version)})
        await backend.write("a", {"k": None, "l": full})
        assert (await backend.get("a")).memory_bytes == 1_000

    @scenario()
    async def test_a_session_of_a_mebibyte(self, backend: SessionBackend) -> None:
        """The default budget, in one value, comes back."""
        await backend.create(new("a"))
        large = raw("é" * ((1 << 19) - 100))
        await backend.write("a", {"k": large})
        assert (await backend.read("a")).entries["k"].raw == large
        await backend.update("a", lambda entries: {"k": entries["k"].raw[:-1] + b'!"'})
        assert len((await backend.read("a")).entries["k"].raw) == len(large) + 1

    @scenario(max_session_bytes=64_000)
    async def test_the_number_of_keys_is_limited(self, backend: SessionBackend) -> None:
        """One more is refused; those that are there can be written, and removed."""
        await backend.create(new("a"))
        most = backend.limits.max_session_keys
        await backend.write("a", {f"k{number}": b"1" for number in range(most)})
        with pytest.raises(StateRefused):
            await backend.write("a", {"one more": b"1"})
        await backend.write("a", {"k0": None, "one more": b"1", "k1": b"2"})
        assert len((await backend.read("a")).entries) == most

    @scenario()
    async def test_views_stay_as_they_were(self, backend: SessionBackend) -> None:
        """What was read does not change with a later write."""
        await backend.create(new("a"))
        version = await backend.write("a", {"k": b"1"})
        view, session = await backend.read("a"), await backend.get("a")
        await backend.write("a", {"k": b"2", "l": b"3"})
        assert view == (version, {"k": Entry(b"1", version)})
        assert session.version == version

    @scenario()
    async def test_an_update_writes_what_changed(self, backend: SessionBackend) -> None:
        """No changes, no write; what the function raises comes through, and nothing is written."""
        await backend.create(new("a"))
        first = await backend.update("a", lambda entries: {"n": raw(len(entries))})
        assert await backend.update("a", lambda _: {}) == first

        def fail(_: Mapping[str, Entry]) -> Mapping[str, bytes | None]:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await backend.update("a", fail)
        assert await backend.read("a") == (first, {"n": Entry(b"0", first)})

    @scenario()
    async def test_concurrent_updates_lose_nothing(self, backend: SessionBackend) -> None:
        """Each is made of the state before it."""
        await backend.create(new("a"))
        await asyncio.gather(*(backend.update("a", increased) for _ in range(20)))
        assert (await backend.read("a")).entries["n"].raw == b"20"

    @scenario()
    async def test_of_concurrent_conditional_writes_one_succeeds(self, backend: SessionBackend) -> None:
        """The others are conflicts."""
        await backend.create(new("a"))
        writes = (backend.write("a", {"k": raw(number)}, if_version=0) for number in range(20))
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert sum(isinstance(one, StateConflict) for one in results) == 19
        (version,) = [one for one in results if isinstance(one, int)]
        assert (await backend.read("a")).version == version

    @scenario()
    async def test_a_cancelled_write_is_done_or_not(self, backend: SessionBackend) -> None:
        """Never half; and the next call has its own reply."""
        await backend.create(new("a"))
        await backend.create(new("b"))
        await backend.write("b", {"k": raw("of b")})
        for number in range(16):
            call = asyncio.ensure_future(backend.write("a", {"k": raw(number), "l": raw(number)}))
            await moment(number)
            call.cancel()
            await asyncio.wait([call])
            assert (await backend.read("b")).entries["k"].raw == raw("of b")
            entries = (await backend.read("a")).entries
            assert [entry.raw for entry in entries.values()] in ([], [entries.get("k", (b"",))[0]] * 2)
        await balanced(backend, created=2, live=2)


def increased(entries: Mapping[str, Entry]) -> Mapping[str, bytes | None]:
    """Return the change that adds one to the counter `n`."""
    return {"n": raw(int(entries["n"].raw) + 1 if "n" in entries else 1)}


async def moment(number: int) -> None:
    """Let some steps of the event loop pass, or some time: a different moment for each number."""
    for _ in range(min(number, 8)):
        await asyncio.sleep(0)
    if number > 8:
        await asyncio.sleep((number - 8) * 0.0002)
