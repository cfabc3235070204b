"""Check of the session store: whether it can be reached, would lose sessions, and has the limits of the settings."""

from __future__ import annotations

import asyncio
from typing import Any

from snakepit_otel.cli.doctor.report import Check, ok, problem, warning
from snakepit_otel.cli.session_store import survival
from snakepit_otel.common.clock import SystemClock
from snakepit_otel.errors import ConfigurationError, SnakepitError
from snakepit_otel.sessions import SessionSettings
from snakepit_otel.sessions.backends.factory import create_backend, open_backend

_TOPIC = "session store"


def check_session_store(settings: SessionSettings) -> list[Check]:
    """Open the store that the settings name, as a server would, and close it."""
    if not settings.url:
        return [ok(_TOPIC, survival(settings))]
    try:
        return asyncio.run(_check(settings))
    except ConfigurationError as error:
        return [problem(_TOPIC, str(error), "correct it; docs/shared-store.md has what a store needs", "bad_store")]
    except SnakepitError as error:
        return [problem(_TOPIC, str(error), "start the store, or correct session_store.url", "store_unavailable")]


async def _check(settings: SessionSettings) -> list[Check]:
    backend: Any = create_backend(None, settings, SystemClock())
    await open_backend(backend)
    try:
        ledger = await backend.stats()
    finally:
        await backend.close()
    found = [ok(_TOPIC, f"{backend.name}: {survival(settings)}; {ledger.live} sessions are live")]
    found += [
        warning(_TOPIC, text, "see docs/shared-store.md", "store_warning") for text in getattr(backend, "warnings", ())
    ]
    if skew := backend.client.clock_skew:
        found.append(
            warning(_TOPIC, f"its clock is {skew:.1f} s behind the time of its sessions", "set its clock", "skew")
        )
    return found
