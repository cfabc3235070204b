"""Half of a character, which text of Python's may have and no wire, is refused by an error of ours everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from snakepit_otel import Client, Snakepit
from snakepit_otel.errors import InvalidSession, PoolNotFound, SnakepitError, StateRefused, ToolError, ValueRefused
from tests.adapters_for_tests import Halved
from tests.processes import run

HALF = "x\ud800"
Way = Callable[[Any], Awaitable[Any]]

OF_STORE: dict[str, tuple[Way, type[SnakepitError]]] = {
    "create": (lambda store: store.create(HALF), InvalidSession),
    "owner": (lambda store: store.create("a", owner=HALF), InvalidSession),
    "metadata": (lambda store: store.create("a", metadata={"k": HALF}), InvalidSession),
    "get": (lambda store: store.get(HALF), InvalidSession),
    "delete": (lambda store: store.delete(HALF), InvalidSession),
    "state": (lambda store: store.set_state("live", "k", HALF), StateRefused),
    "key of state": (lambda store: store.set_state("live", HALF, 1), StateRefused),
    "update": (lambda store: store.update("live", lambda _: {HALF: 1}), StateRefused),
}
OF_CALLERS: dict[str, tuple[Way, type[SnakepitError]]] = {
    "session": (lambda caller: caller.execute("answer", session_id=HALF), InvalidSession),
    "tool": (lambda caller: caller.execute(HALF), ValueRefused),
    "parameter": (lambda caller: caller.execute("answer", {HALF: 1}), ValueRefused),
    "value": (lambda caller: caller.execute("answer", {"a": [HALF]}), ValueRefused),
    "key of a value": (lambda caller: caller.execute("answer", {"a": {HALF: 1}}), ValueRefused),
    "pool": (lambda caller: caller.execute("answer", pool=HALF), ValueRefused),
    "stream": (lambda caller: _all(caller.stream("stream", session_id=HALF)), InvalidSession),
    "no text as session": (lambda caller: caller.execute("answer", session_id=5), InvalidSession),
    "no text as tool": (lambda caller: caller.execute(5), ValueRefused),
    "no text as pool": (lambda caller: caller.execute("answer", pool=5), ValueRefused),
}
OF_CLIENT: dict[str, tuple[Way, type[SnakepitError]]] = {
    "create": (lambda client: client.create_session(HALF), InvalidSession),
    "create, bound": (lambda client: client.create_session(HALF, bound=True), InvalidSession),
    "owner": (lambda client: client.create_session("a", owner=HALF), InvalidSession),
    "owner, bound": (lambda client: client.create_session("a", owner=HALF, bound=True), InvalidSession),
    "metadata": (lambda client: client.create_session("a", metadata={HALF: "v"}), InvalidSession),
    "metadata, bound": (lambda client: client.create_session("a", metadata={"k": HALF}, bound=True), InvalidSession),
    "metadata that is no text": (lambda client: client.create_session("a", metadata={"k": 1}), InvalidSession),
    "ttl": (lambda client: client.create_session("a", ttl="long"), InvalidSession),
    "ttl, bound": (lambda client: client.create_session("a", ttl=-1, bound=True), InvalidSession),
    "bind": (lambda client: client.bind_session(HALF), InvalidSession),
    "release": (lambda client: client.release_session(HALF), InvalidSession),
    "delete": (lambda client: client.delete_session(HALF), InvalidSession),
    "heartbeat": (lambda client: client.heartbeat(HALF), InvalidSession),
    "list": (lambda client: client.list_sessions(HALF), ValueRefused),
    "show": (lambda client: client.show_session(HALF), InvalidSession),
    "remove": (lambda client: client.remove_session(HALF), InvalidSession),
    "restart": (lambda client: client.restart_workers(HALF), ValueRefused),
    "level": (lambda client: client.set_telemetry(level=HALF), ValueRefused),
    "pattern": (lambda client: client.set_telemetry(allow=[HALF]), ValueRefused),
}
OF_TOOLS = {
    "keep": StateRefused.__name__,
    "keep_async": StateRefused.__name__,
    "call": ValueRefused.__name__,
    "pass_on": ValueRefused.__name__,
    "answer": ValueRefused.__name__,
    "complain": "ValueError",
}


async def _all(stream: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in stream]


async def test_every_way_in_refuses_it() -> None:
    """Store, program, client, command line and tools say what is wrong; nothing is kept, and everything goes on."""
    async with Snakepit(Halved, workers=1) as pit:
        assert pit.socket is not None
        await pit.sessions.create("live")
        async with Client(pit.socket) as client:
            ways = [(pit.sessions, OF_STORE), (pit, OF_CALLERS), (client, OF_CALLERS), (client, OF_CLIENT)]
            for target, table in ways:
                for name, (way, error) in table.items():
                    with pytest.raises(SnakepitError) as refused:
                        await way(target)
                    assert type(refused.value) is error, (target, name)
                    str(refused.value).encode()
            for caller in (pit, client):
                for tool, kind in OF_TOOLS.items():
                    with pytest.raises(SnakepitError) as failed:
                        await caller.execute(tool, session_id="live", timeout=20)
                    told = failed.value
                    assert (told.type if isinstance(told, ToolError) else type(told).__name__) == kind, tool
                with pytest.raises(SnakepitError):
                    await _all(caller.stream("stream"))
            with pytest.raises(PoolNotFound):
                await pit.restart_workers(HALF)
            assert [session.id for session in await client.list_sessions()] == ["live"]
        # What a shell has in an argument that is no UTF-8.
        for arguments in (("show", "x\udcff"), ("delete", "x\udcff"), ("list", "--after", "x\udcff")):
            code, output, complaint = await run("sessions", *arguments, "--address", pit.socket)
            assert (code in (1, 2), output) == (True, ""), complaint
            assert complaint.startswith("error: ")
            assert complaint.count("\n") == 1


async def test_owners_have_any_letters() -> None:
    """An owner is what its client says, whatever letters a header may have, and no longer than it may be."""
    async with Snakepit(Halved, workers=1) as pit:
        assert pit.socket is not None
        async with Client(pit.socket) as client:
            for number, owner in enumerate(("Zoë 日本 %41 50% /?#&+ \t\n", " ", "%", "é" * 200)):
                for bound in (False, True):
                    await client.create_session(f"{number}{bound}", owner=owner, bound=bound)
                    assert (await pit.sessions.get(f"{number}{bound}")).owner == owner
            for bound in (False, True):
                with pytest.raises(InvalidSession, match="at most 200"):
                    await client.create_session("long", owner="x" * 201, bound=bound)
        with pytest.raises(InvalidSession, match="at most 200"):
            await pit.sessions.create("long", owner="x" * 201)
        with pytest.raises(InvalidSession, match="text, not int"):
            await pit.sessions.create("long", owner=5)  # type: ignore[arg-type]
