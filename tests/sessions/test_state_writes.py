"""Writing session state: versions, atomic updates and the byte budget."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit_otel.errors import SessionNotFound, StateConflict, StateRefused
from snakepit_otel.sessions import SessionStore, Versioned
from snakepit_otel.testing import FakeClock


@pytest.fixture
async def store(clock: FakeClock) -> SessionStore:
    """A store with one session, `a`, of at most 256 bytes."""
    store = SessionStore(max_session_bytes=256, clock=clock)
    await store.create("a")
    return store


async def test_a_value_is_read_with_the_version_of_its_last_write(store: SessionStore) -> None:
    """Writing one key leaves the version of another as it is."""
    first = await store.set_state("a", "x", 1)
    second = await store.set_state("a", "y", 2)
    assert await store.get_versioned("a", "x") == Versioned(1, first)
    assert await store.list_state("a") == {"x": first, "y": second}
    assert (await store.get("a")).version == second > first


async def test_what_is_not_there_is_the_default_at_version_0(store: SessionStore) -> None:
    """A missing key is distinguished from a None that was stored."""
    await store.set_state("a", "none", None)
    assert await store.get_state("a", "missing", default="default") == "default"
    assert await store.get_state("a", "none", default="default") is None
    assert await store.get_versioned("a", "missing") == Versioned(None, 0)


async def test_the_second_of_two_compare_and_sets_conflicts(store: SessionStore) -> None:
    """Of two writers that read the same version, one writes and the other gets the current one in its error."""
    version = await store.set_state("a", "count", 1)
    written = await store.compare_and_set("a", "count", 2, version)
    with pytest.raises(StateConflict, match=r"state\['count'\] of session 'a'") as caught:
        await store.compare_and_set("a", "count", 3, version)
    assert (caught.value.expected, caught.value.current) == (version, written)
    assert await store.get_versioned("a", "count") == Versioned(2, written)


async def test_version_0_sets_only_what_is_not_there(store: SessionStore) -> None:
    """Compare-and-set at version 0 creates a key, once, and again after its removal."""
    await store.compare_and_set("a", "lock", "mine", 0)
    with pytest.raises(StateConflict):
        await store.compare_and_set("a", "lock", "yours", 0)
    assert await store.delete_state("a", "lock")
    await store.compare_and_set("a", "lock", "yours", 0)


async def test_a_version_never_comes_back(store: SessionStore) -> None:
    """A version read before a session was deleted does not fit the session that has its id now."""
    seen = []
    for value in range(3):
        await store.create("a")
        seen.append(await store.set_state("a", "key", value))
        await store.delete("a")
    await store.create("a")
    last = await store.set_state("a", "key", 3)
    assert sorted({*seen, last}) == [*seen, last]
    with pytest.raises(StateConflict):
        await store.compare_and_set("a", "key", 4, seen[0])


async def test_update_changes_the_whole_state_in_one_step(store: SessionStore) -> None:
    """What the function adds, changes and removes is written under one version."""
    await store.set_state("a", "old", 1)
    kept = await store.set_state("a", "kept", "same")

    def change(current: dict[str, Any]) -> None:
        current["new"] = current.pop("old") + 1

    assert await store.update("a", change) == {"kept": "same", "new": 2}
    version = (await store.get("a")).version
    assert await store.list_state("a") == {"kept": kept, "new": version}


async def test_update_may_return_another_dict(store: SessionStore) -> None:
    """A dict that is returned replaces the state."""
    await store.set_state("a", "old", 1)
    assert await store.update("a", lambda current: {"sum": current["old"] + 1}) == {"sum": 2}
    assert await store.get_state("a", "old") is None


async def test_update_without_a_change_writes_nothing(store: SessionStore) -> None:
    """The version moves with the state and not with the call."""
    version = await store.set_state("a", "key", [1])
    await store.update("a", lambda current: {"key": list(current["key"])})
    assert (await store.get("a")).version == version


@pytest.mark.parametrize("returned", [[("a", 1)], "state", 0], ids=repr)
async def test_update_refuses_what_is_not_a_state(store: SessionStore, returned: Any) -> None:
    """A function that returns something else is an error, and the state stays."""
    await store.set_state("a", "key", 1)
    with pytest.raises(StateRefused, match=f"not {type(returned).__name__}"):
        await store.update("a", lambda _: returned)
    assert await store.get_state("a", "key") == 1


async def test_an_error_in_an_update_leaves_the_state_as_it_was(store: SessionStore) -> None:
    """What the function raises reaches the caller, and nothing is written."""
    await store.set_state("a", "key", 1)

    def change(current: dict[str, Any]) -> None:
        current["key"] = 2
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.update("a", change)
    assert await store.get_state("a", "key") == 1


async def test_one_refused_value_refuses_the_whole_update(store: SessionStore) -> None:
    """A write of several keys is done for all or for none."""
    await store.set_state("a", "good", 1)
    with pytest.raises(StateRefused, match=r"state\['bad'\]"):
        await store.update("a", lambda _: {"good": 2, "bad": {1}})
    assert await store.list_state("a") == {"good": 1}
    assert await store.get_state("a", "good") == 1


async def test_a_write_over_the_budget_is_refused_and_changes_nothing(store: SessionStore) -> None:
    """The budget counts id, keys and JSON in bytes; what would exceed it leaves everything as it was."""
    before = await store.set_state("a", "key", "x" * 100)
    used = (await store.get("a")).memory_bytes
    assert used == len("a") + len("key") + len('""') + 100
    with pytest.raises(StateRefused, match="max_session_bytes is 256"):
        await store.set_state("a", "more", "€" * 50)
    assert await store.list_state("a") == {"key": before}
    assert (await store.get("a")).memory_bytes == used == store.stats_snapshot().memory_bytes


async def test_the_budget_may_be_used_to_the_last_byte(store: SessionStore) -> None:
    """Exactly the budget fits, and may be replaced by as much."""
    room = 256 - len("a") - len("key") - len('""')
    await store.set_state("a", "key", "x" * room)
    await store.set_state("a", "key", "y" * room)
    with pytest.raises(StateRefused):
        await store.set_state("a", "key", "x" * (room + 1))
    assert store.stats_snapshot().memory_bytes == 256


async def test_removing_state_frees_its_budget(store: SessionStore) -> None:
    """A key's bytes can be used again once it is deleted; the session's, once it is."""
    await store.set_state("a", "first", "x" * 200)
    with pytest.raises(StateRefused):
        await store.set_state("a", "second", "x" * 200)
    assert await store.delete_state("a", "first") is True
    assert await store.delete_state("a", "first") is False
    await store.set_state("a", "second", "x" * 200)
    await store.delete("a")
    assert store.stats_snapshot().memory_bytes == 0


@pytest.mark.parametrize("gone", ["deleted", "expired"])
async def test_state_ends_with_its_session(store: SessionStore, clock: FakeClock, gone: str) -> None:
    """No state is read or written after its session's end, nor found again under its id."""
    await store.set_state("a", "key", 1)
    if gone == "deleted":
        await store.delete("a")
    else:
        clock.advance(3600)
    for call in (store.get_state("a", "key"), store.set_state("a", "key", 2), store.update("a", dict)):
        with pytest.raises(SessionNotFound):
            await call
    await store.create("a")
    assert await store.list_state("a") == {}
