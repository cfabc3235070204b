"""Fixtures of a server and its client."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel import Client
from snakepit_otel.errors import ConfigurationError, ToolError, WorkerExited
from snakepit_otel.testing import ServerNotStarted, SnakepitServer
from snakepit_otel.testing._server_options import plain_options
from tests.processes import ROOT
from tests.testing.kit_adapter import Kit

MADE: list[str] = []


async def test_tools_run_in_a_worker(snakepit_client: Client, snakepit_session: str) -> None:
    """By a client that is connected on first use, in the loop of the test."""
    assert await snakepit_client.execute("kind", {"value": (1,)}, session_id=snakepit_session) == "list"
    assert [chunk async for chunk in snakepit_client.stream("chunks")] == [[1, 2], {"a": 1}]
    async with snakepit_client.session() as session_id:
        assert await snakepit_client.execute("keep_in_state", {"value": 1}, session_id=session_id) == [1, [1, 2]]
    MADE.append(snakepit_session)


async def test_sessions_end_with_their_test(snakepit_client: Client, snakepit_server: SnakepitServer) -> None:
    """What a test makes is deleted, and no other test sees it."""
    await snakepit_client.create_session("mine")
    assert snakepit_server.session_ids() == {"mine"}


def test_plain_tests_have_a_server_too(snakepit_server: SnakepitServer, snakepit_client: Client) -> None:
    """They call it by its own methods; a client needs an event loop, and says so."""
    assert snakepit_server.execute("kind", {"value": 1}) == "int"
    assert snakepit_server.stream("chunks") == [[1, 2], {"a": 1}]
    with pytest.raises(ToolError, match="not here"):
        snakepit_server.execute("fail")
    with pytest.raises(ConfigurationError, match=r"snakepit_server\.execute in a plain test"):
        snakepit_client.execute("kind", {"value": 1})
    for _ in range(2):
        assert asyncio.run(run_once(snakepit_client)) == "int"


async def run_once(client: Client) -> Any:
    """Run a tool in another event loop."""
    return await client.execute("kind", {"value": 1})


async def test_a_client_that_is_closed_is_made_anew(snakepit_client: Client, snakepit_server: SnakepitServer) -> None:
    """A test may close it without harm to the next."""
    await snakepit_client.execute("kind", {"value": 1})
    before = snakepit_server.client()
    await snakepit_client.close()
    assert await snakepit_client.execute("kind", {"value": 1}) == "int"
    assert snakepit_server.client() is not before


async def test_sessions_that_are_left_are_named(snakepit_client: Client, snakepit_server: SnakepitServer) -> None:
    """By id and owner, but those that were there before."""
    snakepit_server.assert_no_sessions_left()
    await snakepit_client.create_session("left", owner="web")
    with pytest.raises(AssertionError, match=r"1 sessions are left:\n  'left' of 'web', idle for") as raised:
        snakepit_server.assert_no_sessions_left()
    assert "made, of all that are live:\n  1 at testing/test_server_fixtures.py:" in str(raised.value)
    snakepit_server.assert_no_sessions_left(besides={"left"})


async def test_a_worker_can_be_killed(snakepit_client: Client, snakepit_server: SnakepitServer) -> None:
    """The request in it fails as in production, and the next one finds another worker."""
    waiting = asyncio.ensure_future(snakepit_client.execute("block", {"seconds": 30}))
    async with asyncio.timeout(20):
        while not any(worker.active for pool in snakepit_server.status().pools for worker in pool.workers):
            await asyncio.sleep(0.01)
    snakepit_server.kill_worker()
    with pytest.raises(WorkerExited):
        await waiting
    assert await snakepit_client.execute("kind", {"value": 1}) == "int"
    assert "was killed by SIGKILL" in snakepit_server.log
    with pytest.raises(LookupError, match="no worker of pool 'other'"):
        snakepit_server.kill_worker("other")


def test_options_of_the_server_are_plain(tmp_path: Path) -> None:
    """Classes and functions by name; what another process cannot get is refused by its place."""
    options = plain_options(Kit, {"workers": 2, "middleware": [Kit], "authority_tools": (run_once,), "x": tmp_path})
    assert options == {
        "adapter": "tests.testing.kit_adapter:Kit",
        "workers": 2,
        "middleware": ["tests.testing.kit_adapter:Kit"],
        "authority_tools": [f"{__name__}:run_once"],
        "x": str(tmp_path),
    }
    with pytest.raises(ConfigurationError, match=r"snakepit_settings\['middleware'\]\[0\] is <object"):
        plain_options(None, {"middleware": [object()]})
    with pytest.raises(ConfigurationError, match="must be a dict"):
        plain_options(None, [])  # type: ignore[arg-type]


def test_a_server_that_does_not_start_says_why() -> None:
    """With the setting that is wrong, or what keeps the adapter from being loaded."""
    with pytest.raises(ServerNotStarted, match=r"ConfigurationError: .*pool\.size"):
        SnakepitServer(Kit, {"workers": -1})


PROJECT = {
    "shop.py": """
from snakepit_otel import BaseAdapter, tool

class Shop(BaseAdapter):
    @tool
    def count(self) -> int:
        return self.session_context.state.change("n", lambda n: n + 1, default=0)
""",
    "conftest.py": """
import pytest

@pytest.fixture(scope="session")
def snakepit_adapter():
    return "shop:Shop"

@pytest.fixture(scope="session")
def snakepit_settings():
    return {"workers": 1}
""",
}
PLAIN = """
def test_plain(snakepit_server, snakepit_session):
    assert snakepit_server.execute("count", session_id=snakepit_session) == 1
"""
COROUTINES = """
import pytest

pytestmark = MARK

@pytest.mark.parametrize("turn", range(3))
async def test_counts(snakepit_client, snakepit_session, turn):
    assert await snakepit_client.execute("count", session_id="same") == 1
    assert await snakepit_client.execute("count", session_id="same") == 2
"""
LEAKING = """
import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("snakepit_no_sessions_left")]

@pytest.fixture
def anyio_backend():
    return "asyncio"

async def test_leaks(snakepit_client):
    await snakepit_client.execute("count", session_id="left over")

async def test_tidy(snakepit_client):
    async with snakepit_client.session() as session_id:
        await snakepit_client.execute("count", session_id=session_id)
"""


def run_project(folder: Path, files: dict[str, str], *arguments: str) -> str:
    """Run a project's tests in a process of their own, warnings as errors, and return what pytest prints."""
    for name, text in {**PROJECT, **files}.items():
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", "-W", "error", *arguments]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    return done.stdout + done.stderr


STRICT = {
    "test_each.py": COROUTINES.replace("MARK", "pytest.mark.asyncio"),
    "test_one_loop.py": COROUTINES.replace("MARK", "pytest.mark.asyncio(loop_scope='session')"),
    "test_anyio.py": COROUTINES.replace("MARK", "pytest.mark.anyio"),
    "test_plain.py": PLAIN,
    "test_leaking.py": LEAKING,
}


def test_every_way_to_run_coroutines_works(tmp_path: Path) -> None:
    """pytest-asyncio with a loop for each test and one for all, anyio, and plain tests, with one server.

    The test that leaks a session has an error which names it.
    """
    shown = run_project(tmp_path, STRICT, "-o", "asyncio_mode=strict", "-k", "not trio")
    assert "12 passed, 1 error" in shown, shown
    assert "AssertionError: 1 sessions are left:" in shown
    assert "'left over'" in shown


@pytest.mark.matrix
def test_without_an_adapter_the_error_says_what_to_do(tmp_path: Path) -> None:
    """With the lines to write."""
    shown = run_project(tmp_path, {"test_it.py": PLAIN, "conftest.py": ""})
    assert "no adapter for the server of the tests. Give one in conftest.py:" in shown


@pytest.mark.matrix
def test_with_xdist_each_process_has_a_server(tmp_path: Path) -> None:
    """No process of pytest sees another's sessions."""
    files = {"test_it.py": COROUTINES.replace("MARK", "[]") + PLAIN}
    shown = run_project(tmp_path, files, "-o", "asyncio_mode=auto", "-n", "2")
    assert "4 passed" in shown, shown
