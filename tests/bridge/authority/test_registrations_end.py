"""All that workers register for a session lives as long as the session, and takes little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.sessions import SessionStore
from snakepit_otel.testing import FakeClock
from tests.bridge.parts import Authority, authority


async def registered(ours: Authority, session_id: str, *tools: pb.ToolRegistration) -> Any:
    """Begin a session, and register tools for it."""
    await ours.stub.InitializeSession(pb.InitializeSessionRequest(session_id=session_id))
    return await ours.stub.RegisterTools(pb.RegisterToolsRequest(session_id=session_id, tools=tools))


@pytest.mark.parametrize("end", ["clean-up", "deletion", "expiry", "eviction", "a successor"])
async def test_registrations_end_with_their_session(short_path: Path, clock: FakeClock, end: str) -> None:
    """However it ends: a session that has its id afterwards begins without tools, and may register the same."""
    store = SessionStore(default_ttl=10, max_sessions=1, overflow="evict", clock=clock)
    async with authority(short_path, sessions=store) as ours:
        tool = pb.ToolRegistration(name="paint", description="d" * 200_000)
        assert (await registered(ours, "a", tool)).success
        assert ours.tools.foreign_count("a") == 1
        if end == "clean-up":
            await ours.stub.CleanupSession(pb.CleanupSessionRequest(session_id="a"))
        elif end == "deletion":
            await store.delete("a")
        elif end == "expiry":
            clock.advance(11)
            await store.sweep()
        elif end == "eviction":
            await store.create("b")
        else:
            clock.advance(11)
            await store.create("a")
        assert not ours.tools._foreign
        assert (await registered(ours, "a", tool)).success


async def test_a_giant_registration_is_refused(short_path: Path) -> None:
    """The worker gets a line that says what is too large, and nothing of it is kept."""
    async with authority(short_path) as ours:
        response = await registered(ours, "a", pb.ToolRegistration(name="paint", description="d" * 300_000))
        assert not response.success
        assert "tool 'paint' is registered with 300" in response.error_message
        assert len(response.error_message) < 300
        assert not ours.tools._foreign


async def test_only_names_are_kept(short_path: Path) -> None:
    """Descriptions and parameters, which nobody asks for, take no room."""
    async with authority(short_path) as ours:
        assert (await registered(ours, "a", pb.ToolRegistration(name="paint", description="d" * 200_000))).success
        assert ours.tools._foreign["a"].names == {"paint"}
