"""Several pools under one authority."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel import Client, Snakepit
from snakepit_otel.errors import ConfigurationError, PoolNotFound, ToolRefused
from tests.adapters_for_tests import NoTools
from tests.pool.adapters import Other, Patient
from tests.processes import children


def workers_of(authority: int) -> list[str]:
    """Return the command lines of the worker processes that a process has."""
    commands = [Path(f"/proc/{child}/cmdline").read_bytes().decode() for child in children(authority)]
    return [command for command in commands if "worker_main" in command and "fork-server" not in command]


async def test_requests_find_the_pool_of_their_tool() -> None:
    """A request that names no pool goes where its tool is, and one that does goes there."""
    pools = {"other": {"adapter": Other, "size": 1}, "second": {"adapter": Patient, "size": 1}}
    async with Snakepit(Patient, workers=1, pools=pools) as pit, Client(pit.socket) as client:
        pids = {name: pool.workers[0].pid for name, pool in pit.pools.items()}
        assert list(pids) == ["default", "other", "second"]
        assert await pit.execute("elsewhere") == pids["other"]
        assert await pit.execute("pid") == pids["default"]
        for caller in (pit, client):
            assert await caller.execute("pid", pool="second") == pids["second"]
            with pytest.raises(PoolNotFound, match="there are: default, other, second"):
                await caller.execute("pid", pool="third")
            with pytest.raises(PoolNotFound):
                async for _ in caller.stream("pid", pool="third"):
                    pass


async def test_sessions_are_of_all_pools() -> None:
    """What one pool's tool writes, another's reads: sessions belong to the authority."""
    pools = {"other": {"adapter": "tests.adapters_for_tests:Useful", "size": 1}}
    async with Snakepit("tests.adapters_for_tests:Useful", workers=1, pools=pools) as pit:
        assert await pit.execute("add", {"amount": 1}, session_id="s") == 1
        assert await pit.execute("add", {"amount": 1}, session_id="s", pool="other") == 2
        assert (await pit.sessions.get("s")).last_worker_id == "other-1.1"


async def test_pools_alone_will_do() -> None:
    """Without a top-level adapter the pools are all there are."""
    async with Snakepit(pools={"only": {"adapter": Other, "size": 1}}) as pit:
        assert list(pit.pools) == ["only"]
        assert await pit.execute("elsewhere") == pit.pool.workers[0].pid


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "no adapter to run"),
        ({"workers": 2, "pools": {"p": {"adapter": Other}}}, "pool and workers are for the top-level adapter"),
        ({"pools": {"Bad": {"adapter": Other}}}, "a pool's name is"),
        ({"pools": {"p": {}}}, "needs an adapter of its own"),
        ({"pools": {"p": {"adapter": Other, "sise": 1}}}, r"pools\.p\.sise: unknown setting; did you mean 'size'"),
        ({"adapter": Other, "pool": {"adapter": "x:Y"}}, "pool.adapter is only for entries"),
        ({"adapter": Other, "pool": {"threads_per_worker": 2}}, "profile = 'thread'"),
    ],
)
def test_bad_pools_are_refused(arguments: dict[str, Any], complaint: str) -> None:
    """What is wrong with a pool is said before anything is started."""
    with pytest.raises(ConfigurationError, match=complaint):
        Snakepit(**arguments)


async def test_one_pool_that_fails_to_start_stops_the_others() -> None:
    """All or nothing."""
    pit = Snakepit(Other, workers=1, pools={"broken": {"adapter": NoTools, "size": 1}})
    with pytest.raises(ToolRefused, match="has no tools"):
        await pit.start()
    assert workers_of(os.getpid()) == []
