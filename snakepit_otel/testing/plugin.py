"""Fixtures for pytest, which finds them by itself where this package is installed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    # What these need takes longer to load than pytest itself, and not every project's tests use them.
    from snakepit_otel.bridge.client.client import Client
    from snakepit_otel.testing import Capture, FakeClock, SnakepitServer

_NO_ADAPTER = """no adapter for the server of the tests. Give one in conftest.py:

    @pytest.fixture(scope="session")
    def snakepit_adapter():
        return "package.module:Class"  # or the class
"""


@pytest.fixture(scope="session")
def _capture() -> Capture:
    from snakepit_otel.testing import Capture

    return Capture()


@pytest.fixture
def capture(_capture: Capture) -> Iterator[Capture]:
    """Everything this process emits during the test."""
    _capture.clear()
    yield _capture
    _capture.clear()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    from snakepit_otel.testing import FakeClock

    return FakeClock()


@pytest.fixture(scope="session")
def snakepit_adapter() -> type | str | None:
    """The adapter of `snakepit_server`, a class or its name: override it."""
    return None


@pytest.fixture(scope="session")
def snakepit_settings() -> dict[str, Any]:
    """Further arguments of `Snakepit` for `snakepit_server`: override it."""
    return {}


@pytest.fixture(scope="session")
def snakepit_environment() -> dict[str, str]:
    """Environment variables of `snakepit_server` and its workers, besides those of the tests: override it."""
    return {}


@pytest.fixture(scope="session")
def snakepit_server(
    snakepit_adapter: type | str | None, snakepit_settings: dict[str, Any], snakepit_environment: dict[str, str]
) -> Iterator[SnakepitServer]:
    """One server with its workers for all tests, or with pytest-xdist for all tests of one of its processes."""
    from snakepit_otel.errors import SnakepitError
    from snakepit_otel.testing import ServerNotStarted, SnakepitServer

    if snakepit_adapter is None and not {"adapter", "pools"} & snakepit_settings.keys():
        pytest.fail(_NO_ADAPTER, pytrace=False)
    try:
        server = SnakepitServer(snakepit_adapter, snakepit_settings, snakepit_environment)
    except (ServerNotStarted, SnakepitError) as error:
        pytest.fail(str(error), pytrace=False)
    with server:
        yield server


@pytest.fixture
def snakepit_client(snakepit_server: SnakepitServer, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of the server; the sessions that the test makes are deleted at its end.

    It is connected on first use in a coroutine, whichever plugin runs that, and shared by all tests of an event loop.
    What the server logs during the test is shown if it fails.
    """
    from snakepit_otel.testing._server import FixtureClient

    before, logged = snakepit_server.session_ids(), len(snakepit_server.log)
    yield cast("Client", FixtureClient(snakepit_server))
    request.node.add_report_section("teardown", "snakepit_server log", snakepit_server.log[logged:])
    snakepit_server.delete_sessions(snakepit_server.session_ids() - before)


@pytest.fixture
def snakepit_session() -> str:
    """A session id that no other test has."""
    return f"test-{os.getpid()}-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def snakepit_no_sessions_left(
    snakepit_server: SnakepitServer,
    snakepit_client: Client,  # noqa: ARG001 - ends after this one, and deletes what is left
) -> Iterator[None]:
    """Fail a test that leaves sessions on the server which were not there before."""
    before = snakepit_server.session_ids()
    yield
    snakepit_server.assert_no_sessions_left(besides=before)
