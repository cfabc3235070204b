"""`snakepit-otel status`: show a running authority, its sessions, pools and workers."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.live import Live

from snakepit_otel.bridge.client.address import authority_address
from snakepit_otel.bridge.client.client import Client
from snakepit_otel.bridge.wire.status import Status
from snakepit_otel.cli.addresses import ADDRESS_HELP, Config, SocketAddress
from snakepit_otel.cli.output import EXIT_CODES_HELP, console, line, print_json, print_wide, run
from snakepit_otel.cli.status_view import Screenful, StatusView, ToolsView
from snakepit_otel.errors import AuthorityUnavailable, DeadlineExceeded, SnakepitError

Show = Callable[[Status | SnakepitError], None]
View = Callable[[Status], StatusView | ToolsView]
_WIDTH_WITHOUT_TERMINAL = 160  # columns
_ANSWER_TIMEOUT_S = 3.0  # with --watch


def status(
    address: SocketAddress = None,
    config: Config = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, for scripts; one line each with --watch.")
    ] = False,
    tools: Annotated[
        bool, typer.Option("--tools", help="The calls of each tool, in place of the pools; JSON has both.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between refreshes, with --watch.")] = 1.0,
) -> None:
    """Show a running server: its sessions, pools, queues and workers, or the calls of each tool."""
    view: View = ToolsView if tools else StatusView

    async def work() -> None:
        where = authority_address(address, config)
        if watch:
            await _watch_until_interrupted(where, interval, as_json, view)
            return
        async with Client(where) as client:
            found = await client.status()
        if as_json:
            print_json(as_dict(found))
        else:
            _print(view(found))

    run(work)


status.__doc__ = f"{status.__doc__}\n\n{ADDRESS_HELP}\n\n{EXIT_CODES_HELP}"


def as_dict(found: Status) -> dict[str, Any]:
    """Return a status for JSON, with null for no quota."""
    values = asdict(found)
    for name in ("max_sessions", "max_sessions_per_owner"):
        quota = values["sessions"][name]
        values["sessions"][name] = None if math.isinf(quota) else int(quota)
    return values


async def _watch_until_interrupted(address: str, interval: float, as_json: bool, view: View) -> None:
    live = None
    if not as_json and sys.stdout.isatty() and not console.is_dumb_terminal:
        # The alternate screen is redrawn well when the terminal becomes smaller.
        live = Live(console=console, screen=True, auto_refresh=False)
    shown: AbstractContextManager[object] = nullcontext() if live is None else live
    me = asyncio.current_task()
    assert me is not None
    # SIGTERM, too, leaves the terminal as it was.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    try:
        with shown:
            await _watch(address, interval, _shower(address, as_json, live, view))
    except asyncio.CancelledError:
        # Ctrl-C ends --watch.
        return


async def _watch(address: str, interval: float, show: Show) -> None:
    while True:
        # gRPC reconnects only after a while, so each attempt has a new client.
        async with Client(address) as client:
            try:
                while True:
                    show(await client.status(timeout=max(interval, _ANSWER_TIMEOUT_S)))
                    await asyncio.sleep(interval)
            except (AuthorityUnavailable, DeadlineExceeded) as error:
                show(error)
        await asyncio.sleep(interval)


def _shower(address: str, as_json: bool, live: Live | None, view: View) -> Show:
    last: list[Status] = []

    def show(found: Status | SnakepitError) -> None:
        if as_json:
            value = {"unavailable": str(found)} if isinstance(found, SnakepitError) else as_dict(found)
            print_json(value, indent=None)
            return
        parts: list[RenderableType] = []
        if isinstance(found, SnakepitError):
            parts.append(line(f"no answer at {address}; watching on", "bold red"))
        else:
            last[:] = [found]
        if live is not None:
            live.update(Screenful(*parts, *map(view, last)), refresh=True)
        elif parts:
            _print(*parts)
        else:
            _print(*map(view, last), "")

    return show


def _print(*parts: RenderableType) -> None:
    print_wide(*parts, width=_WIDTH_WITHOUT_TERMINAL)
