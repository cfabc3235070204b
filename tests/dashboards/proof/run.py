"""The run: deployments that are well and some that are not, two Elixirs, and all that can be asked of it afterwards."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dashboards.build import as_plain, pages
from tests.collector.landscape import free_ports
from tests.dashboards.proof.answers import Span
from tests.dashboards.proof.deployment import Deployment, Sending
from tests.dashboards.proof.elixirs import ours, upstreams
from tests.dashboards.proof.faltering import FALTERING
from tests.dashboards.proof.health import live
from tests.dashboards.proof.sharing import Account, two
from tests.dashboards.proof.sharing import live as sharing_live
from tests.dashboards.proof.stack import Programs, Stack, stack
from tests.dashboards.proof.troubles import (
    DOOM,
    EVICTING,
    EXPECTED,
    TROUBLED,
    Troubles,
    evicting_environ,
    evicting_settings,
    troubled_settings,
)
from tests.dashboards.proof.watch import watch

STEADY, DIRECT = "steady", "direct"
WELL = (STEADY, DIRECT)


@dataclass
class Run:
    """A run that is over; the stack still answers."""

    stack: Stack
    span: Span
    troubles_began: float
    """Seconds since 1970."""
    fired: dict[tuple[str, str], float]
    """Alerts and services, and when they were first seen firing."""
    dashboards: list[dict[str, Any]]
    account: Account
    """Of the store that two authorities share."""


@asynccontextmanager
async def run(programs: Programs, folder: Path) -> AsyncIterator[Run]:
    """Run all of it, and keep the stack for as long as the block lasts."""
    async with stack(programs, folder) as running:
        with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as short:
            span, began, fired, account = await _deployments(running, Path(short))
        yield Run(running, span, began, fired, [as_plain(page) for page in pages()], account)


async def _deployments(running: Stack, folder: Path) -> tuple[Span, float, dict[tuple[str, str], float], Account]:
    """Run the deployments from start to stop."""
    good = {
        "adapter": "tests.dashboards.proof.adapter:Good",
        "pool": {"size": 2},
        "session_store": {"max_sessions": 1_000, "cleanup_interval": 1_000},
    }
    straight = {
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": running.prometheus_otlp,
    }
    doom = folder / "doom"
    (nobody,) = free_ports(1)
    made = {
        STEADY: Deployment(STEADY, folder, good, {}, running.otlp),
        DIRECT: Deployment(DIRECT, folder, good, straight, running.otlp),
        TROUBLED: Deployment(TROUBLED, folder, troubled_settings(doom), {DOOM: str(doom)}, running.otlp),
        EVICTING: Deployment(EVICTING, folder, evicting_settings(), evicting_environ(nobody), running.otlp),
    }
    elsewhere = Sending(
        "elsewhere",
        folder,
        ["tests.dashboards.proof.elsewhere", str(folder / "elsewhere.sock"), str(folder / f"{TROUBLED}.sock")],
        {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": running.otlp_for_logs},
        running.otlp,
    )
    faltering = Sending(
        FALTERING, folder, ["tests.dashboards.proof.faltering", str(folder / "faltering.db")], {}, running.otlp
    )
    sharing = two(folder, running.otlp)
    elixirs = [upstreams(folder, running.otlp), ours(folder, running.otlp)]
    start, over = time.time(), asyncio.Event()
    async with AsyncExitStack() as to_stop, watch(running) as watching:
        everything: list[Sending] = [*made.values(), elsewhere, faltering, *sharing]
        for sending in everything:
            to_stop.push_async_callback(sending.stop)
        for elixir in elixirs:
            to_stop.push_async_callback(elixir.stop)
        await asyncio.gather(*(sending.start() for sending in everything))
        # Each as patient as Elixir is, so not while everybody starts.
        await asyncio.gather(*(elixir.start() for elixir in elixirs))
        # Only now: to start takes as long as ever, which to rules in a hurry is an hour without workers.
        await running.begin_to_judge()
        async with asyncio.TaskGroup() as group:
            for name in WELL:
                group.create_task(live(made[name], over))
            for elixir in elixirs:
                group.create_task(elixir.live(over))
            account = group.create_task(sharing_live(*sharing, over))
            async with asyncio.timeout(60):
                while not await asyncio.to_thread(_is_recorded, running):
                    await asyncio.sleep(0.2)
            began = time.time()
            troubles = Troubles(made[TROUBLED], made[EVICTING], running, watching, doom, over)
            await troubles.all()
        return Span(start, time.time()), began, watching.fired, account.result()


def _is_recorded(running: Stack) -> bool:
    found = running.query("service:snakepit_request_errors:ratio_rate30m")
    return set(WELL) <= {series["metric"]["service_name"] for series in found}


def expected() -> list[tuple[str, str]]:
    """Return the alerts that are to fire, each with the service that has it do so."""
    return [(f"Snakepit{alert}", service) for alert, service in EXPECTED.items()]
