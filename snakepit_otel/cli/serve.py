"""`snakepit-otel serve`: an authority and its workers, until told to stop."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from snakepit_otel import telemetry
from snakepit_otel.adapters.left_behind import LeftBehind
from snakepit_otel.allocator import give_back_large_memory
from snakepit_otel.bridge.registry import authority_tools_in
from snakepit_otel.cli.addresses import default_socket
from snakepit_otel.cli.output import EXIT_CODES_HELP, complaints, run
from snakepit_otel.cli.signals import Signals
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.settings import Settings, load_settings
from snakepit_otel.snakepit import Snakepit

_TIME_TO_FLUSH = 1.7
"""Seconds; as long as workers have for their telemetry."""
_TIME_TO_STOP = 2.5
"""Seconds beyond the grace, of three, when the last of the telemetry is to be sent."""
_LEAST_CHANCE = 0.3
"""Seconds, in any case."""
_TIME_FOR_THE_REST = 2.0
"""Seconds, with a collector that answers."""
_LAST_CHANCE = 1.0
"""Seconds, with one that has not answered."""


def serve(
    adapter: Annotated[
        str | None, typer.Argument(help="The adapter class: package.module:Class or path/to/file.py:Class.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.", show_default="two for each core")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file with settings.", show_default="SNAKEPIT_OTEL_CONFIG, or ./snakepit.toml"),
    ] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT for callers on TCP, beside the Unix socket.")] = None,
    socket: Annotated[Path | None, typer.Option(help="The Unix socket.", show_default="one for each user")] = None,
    authority_tools: Annotated[
        list[str] | None, typer.Option(help="A module whose @authority_tool functions are registered.")
    ] = None,
    default_ttl: Annotated[float | None, typer.Option(help="Seconds a session lives after its last access.")] = None,
    max_sessions: Annotated[float | None, typer.Option(help="The quota of live sessions, or inf.")] = None,
    strict_mode: Annotated[
        bool | None, typer.Option("--strict-mode", help="Warn loudly, and say who, when sessions accumulate.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file, for TCP.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file, for TCP.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="PEM file; callers on TCP must have a certificate signed by it.")
    ] = None,
    insecure: Annotated[
        bool | None,
        typer.Option("--insecure", help="Listen beyond loopback without TLS. Anybody there may run tools."),
    ] = None,
    trust_trace_context: Annotated[
        bool | None,
        typer.Option(
            "--trust-trace-context/--no-trust-trace-context",
            help="Continue the traces of callers on TCP, and obey their sampling.",
            show_default="only with --tls-client-ca",
        ),
    ] = None,
) -> None:
    """Own sessions and run tools for callers, until told to stop.

    Settings come from the options, then the environment (SNAKEPIT_OTEL_<GROUP>__<NAME>), then the file.
    `snakepit-otel config show` has them all.
    Telemetry goes where the standard OTEL_* variables say.

    SIGTERM and SIGINT let requests that run end within pool.shutdown_grace, and stop; a second one stops at once.
    SIGHUP replaces all workers, one after the other.
    """
    given = {
        "adapter": adapter,
        "authority_tools": authority_tools or None,
        "pool": {"size": workers},
        "session_store": {
            "default_ttl": default_ttl,
            "max_sessions": max_sessions,
            "strict_mode": strict_mode,
        },
        "server": {
            "listen": listen,
            "socket": socket,
            "insecure": insecure,
            "trust_trace_context": trust_trace_context,
            "tls": {"certificate": tls_certificate, "key": tls_key, "client_ca": tls_client_ca},
        },
    }
    run(lambda: _serve(_stated(given), config))


serve.__doc__ = f"{serve.__doc__}\n\n{EXIT_CODES_HELP}"


async def _serve(given: dict[str, Any], config: Path | None) -> None:
    telemetry.log_to_stderr(logging.INFO)
    settings = load_settings(config, given)
    if settings.adapter is None and not settings.pools:
        raise ConfigurationError("say which adapter to serve: snakepit-otel serve package.module:Class")
    if settings.adapter is None and settings.pool.model_fields_set:
        raise ConfigurationError("pool.* is about the workers of the top-level adapter, and there is none")
    give_back_large_memory()
    exporting = telemetry.setup("snakepit-authority", whole_process=True)
    server = settings.server.model_copy(update={"socket": settings.server.socket or default_socket()})
    # Adapters and tools named on the command line are looked for where the user is.
    sys.path.insert(0, str(Path.cwd()))
    pit = Snakepit(
        settings.adapter,
        authority_tools=_authority_tools(settings),
        session_store=settings.session_store,
        zero_copy=settings.zero_copy,
        pool=settings.pool if settings.adapter is not None else None,
        pools=settings.pools,
        server=server,
    )
    signals = Signals(pit)
    began, flushing = 0.0, None
    try:
        async with pit:
            _say(
                f"serving {_adapters(pit)} on {pit.socket}"
                + (f" and {pit.address}" if pit.address else "")
                + _telemetry_of(exporting)
            )
            await signals.told_to_stop.wait()
            began = time.monotonic()
            _say("stopping: requests that run have their time; a second signal stops at once")
            await signals.drain()
            # While the workers send theirs, so that a collector that does not answer is waited for once.
            flushing = asyncio.ensure_future(asyncio.to_thread(exporting.flush, _TIME_TO_FLUSH, metrics=False))
    finally:
        answers = flushing is None or await flushing
        left = _TIME_FOR_THE_REST if answers else _LAST_CHANCE
        if began:
            left = max(min(left, began + pit.longest_grace + _TIME_TO_STOP - time.monotonic()), _LEAST_CHANCE)
        processes = LeftBehind.by_this_process()
        processes.terminate("the authority")
        await asyncio.gather(processes.end(), asyncio.to_thread(exporting.shutdown, left))


def _adapters(pit: Snakepit) -> str:
    pools = pit.pools.values()
    if len(pools) == 1:
        return f"{pit.pool.adapter} with {pit.pool.settings.size} workers"
    each = (f"{pool.adapter} with {pool.settings.size} workers (pool {pool.name})" for pool in pools)
    return ", ".join(each)


def _telemetry_of(exporting: telemetry.Telemetry) -> str:
    if telemetry.controls.level is telemetry.Level.OFF:
        return "; telemetry is off"
    if exporting.set_up_before:
        return "; telemetry was set up before, as opentelemetry-instrument does, and goes by that"
    return "" if exporting.exporting else "; no telemetry is exported, set OTEL_EXPORTER_OTLP_ENDPOINT"


def _say(text: str) -> None:
    complaints.print(text, soft_wrap=True)


def _authority_tools(settings: Settings) -> list[Any]:
    functions = []
    for name in settings.authority_tools:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise ConfigurationError(f"authority_tools: importing {name} failed: {error!r}") from error
        found = authority_tools_in(vars(module))
        if not found:
            raise ConfigurationError(f"authority_tools: {name} has no function marked with @authority_tool")
        functions += found
    return functions


def _stated(values: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given, without those that were not."""
    stated = {key: _stated(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in stated.items() if value is not None and value != {}}
