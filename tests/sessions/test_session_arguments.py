"""Checks of ids, TTLs, owners and metadata of sessions."""

from __future__ import annotations

import math
from typing import Any

import pytest

from snakepit_otel.errors import InvalidSession
from snakepit_otel.sessions import SessionStore
from snakepit_otel.sessions._session import MAX_TTL

BAD_IDS = [
    pytest.param("", "empty", id="empty"),
    pytest.param("x" * 257, "257 bytes", id="too long"),
    pytest.param("€" * 86, "258 bytes", id="too long in bytes"),
    pytest.param("a\nb", "control character", id="line feed"),
    pytest.param("a\x00", "control character", id="null"),
    pytest.param("a\x7f", "control character", id="delete"),
    pytest.param("a\x85", "control character", id="C1 control"),
    pytest.param("a\u2028", "control character", id="line separator"),
    pytest.param("a\ud800", "control character", id="lone surrogate"),
    pytest.param(7, "not int", id="number"),
    pytest.param(b"a", "not bytes", id="bytes"),
]


@pytest.mark.parametrize(("session_id", "message"), BAD_IDS)
async def test_create_refuses_an_id_that_cannot_be(session_id: Any, message: str) -> None:
    """An id that breaks a rule is refused by that rule, and nothing is created."""
    store = SessionStore()
    with pytest.raises(InvalidSession, match=message):
        await store.create(session_id)
    assert store.stats_snapshot().created == 0


@pytest.mark.parametrize("method", ["get", "read", "exists", "delete", "list_state"])
async def test_every_method_refuses_an_id_that_cannot_be(method: str) -> None:
    """The rules for ids are the same wherever an id goes in."""
    with pytest.raises(InvalidSession, match="empty"):
        await getattr(SessionStore(), method)("")


async def test_assigning_a_worker_refuses_an_id_that_cannot_be() -> None:
    """A worker cannot be assigned to an id that no session can have."""
    with pytest.raises(InvalidSession, match="empty"):
        await SessionStore().assign_worker("", "worker-1")


@pytest.mark.parametrize("session_id", ["x", "x" * 256, "€" * 85 + "x", "käse 🧀/№ 7", "\u00a0"])
async def test_create_takes_any_other_text(session_id: str) -> None:
    """Text of up to 256 bytes is an id, whatever its script."""
    assert (await SessionStore().create(session_id)).id == session_id


async def test_an_id_is_made_up_where_none_is_given() -> None:
    """Two sessions without ids get two different ones."""
    store = SessionStore()
    first, second = await store.create(), await store.create()
    assert first.id != second.id
    assert await store.exists(first.id)


@pytest.mark.parametrize(
    "ttl",
    [
        0,
        0.0,
        -1,
        -0.5,
        math.nan,
        math.inf,
        -math.inf,
        MAX_TTL * 1.01,
        1e308,
        10**400,
        -(10**400),
        True,
        "60",
        object(),
    ],
    ids=lambda ttl: str(ttl)[:12],
)
async def test_create_refuses_a_ttl_that_cannot_be(ttl: Any) -> None:
    """A TTL is a number above 0 and at most ten years; anything else is refused by name."""
    store = SessionStore()
    with pytest.raises(InvalidSession, match=r"^ttl is "):
        await store.create("a", ttl=ttl)
    assert store.stats_snapshot().created == 0


@pytest.mark.parametrize("ttl", [1, 0.001, 3600.5, MAX_TTL])
async def test_a_ttl_is_kept_as_seconds(ttl: float) -> None:
    """Whole and fractional seconds up to ten years are taken as they are, where `max_ttl` allows as many."""
    session = await SessionStore(max_ttl=MAX_TTL).create("a", ttl=ttl)
    assert session.ttl == ttl
    assert isinstance(session.ttl, float)


async def test_the_default_ttl_is_for_sessions_without_their_own() -> None:
    """Without a TTL a session has the store's default."""
    assert (await SessionStore(default_ttl=5).create("a")).ttl == 5


@pytest.mark.parametrize(
    "metadata",
    [{"a": 1}, {1: "a"}, {"a": None}, {"a": b"x"}, {"a": "\ud800"}, {"\udfff": "a"}, [("a", "b")], "text", 0, []],
    ids=repr,
)
async def test_create_refuses_metadata_that_is_not_text_by_text(metadata: Any) -> None:
    """Metadata is a mapping of text to text that UTF-8 can encode."""
    store = SessionStore()
    with pytest.raises(InvalidSession, match="metadata"):
        await store.create("a", metadata=metadata)
    assert store.stats_snapshot().created == 0


async def test_metadata_over_the_byte_budget_is_refused() -> None:
    """Id and metadata count against the session's byte budget, in UTF-8."""
    store = SessionStore(max_session_bytes=256)
    await store.create("fits", metadata={"key": "€" * 83})
    with pytest.raises(InvalidSession, match="max_session_bytes is 256"):
        await store.create("large", metadata={"key": "€" * 84})
    assert store.stats_snapshot().memory_bytes == 256


async def test_metadata_is_copied_and_read_only() -> None:
    """Neither the caller's dict nor a returned session is a way to change a session afterwards."""
    store = SessionStore()
    given = {"user": "ann"}
    session = await store.create("a", metadata=given)
    given["user"] = "bob"
    with pytest.raises(TypeError):
        session.metadata["user"] = "bob"  # type: ignore[index]
    assert (await store.get("a")).metadata == {"user": "ann"}


async def test_a_live_id_is_returned_unchanged() -> None:
    """Creating a session that is live returns it as it is, whatever else is asked for."""
    store = SessionStore()
    first = await store.create("a", ttl=60, metadata={"user": "ann"}, owner="one")
    again = await store.create("a", ttl=5, metadata={"user": "bob"}, owner="two")
    assert (again.ttl, again.metadata, again.owner, again.created_at) == (60, {"user": "ann"}, "one", first.created_at)
    assert store.stats_snapshot().created == 1
