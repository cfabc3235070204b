"""`snakepit-otel serve`: an authority and its workers, until told to stop."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from snakepit_otel import telemetry
from snakepit_otel.adapters._leftover_processes import LeftoverProcesses
from snakepit_otel.app import Snakepit
from snakepit_otel.bridge.authority.tool_registry import authority_tools_in
from snakepit_otel.cli.addresses import default_socket
from snakepit_otel.cli.output import EXIT_CODES_HELP, complaints, exit_code, run
from snakepit_otel.cli.signals import Signals
from snakepit_otel.common.secrets import learn
from snakepit_otel.errors import ConfigurationError, SnakepitError
from snakepit_otel.settings import Settings, load_settings
from snakepit_otel.system.daemon_thread import run_in_daemon_thread
from snakepit_otel.system.heap import limit_heap
from snakepit_otel.system.process_exit import ProcessExit
from snakepit_otel.telemetry import _controls

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
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file, for TCP; a new one in its place needs no restart.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file, for TCP.")] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(help="PEM file; callers on TCP must have a certificate it signed. Needed beyond loopback."),
    ] = None,
    insecure: Annotated[
        bool | None,
        typer.Option(
            "--insecure", help="Listen beyond loopback without TLS, or without --tls-client-ca: anybody may run tools."
        ),
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
    At its start, they end it at once. In any case it is gone three seconds after the grace: with exit code 0, or 1 if
    tools had to be left as they were. SIGHUP replaces all workers, one after the other.
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
    limit_heap()
    run(lambda: _serve(_stated(given), config))


serve.__doc__ = f"{serve.__doc__}\n\n{EXIT_CODES_HELP}"


async def _serve(given: dict[str, Any], config: Path | None) -> None:
    ending = ProcessExit()
    signals = Signals(ending)
    status = 1
    try:
        await _serve_until_told_to_stop(given, config, signals)
        status = 0
    except SnakepitError as error:
        status = exit_code(error)
        raise
    except SystemExit:
        # Told to stop while it imported.
        status = 0
        raise
    finally:
        # The event loop's end waits for tasks, and the interpreter's for threads, some of them users'.
        ending.done(status)


async def _serve_until_told_to_stop(given: dict[str, Any], config: Path | None, signals: Signals) -> None:
    telemetry.log_to_stderr(logging.INFO)
    settings = load_settings(config, given)
    if settings.adapter is None and not settings.pools:
        raise ConfigurationError("say which adapter to serve: snakepit-otel serve package.module:Class")
    if settings.adapter is None and settings.pool.model_fields_set:
        raise ConfigurationError("pool.* is about the workers of the top-level adapter, and there is none")
    for pool in (settings.pool, *settings.pools.values()):
        learn(pool.environment)
    exporting = telemetry.setup("snakepit-authority", whole_process=True)
    server = settings.server.model_copy(update={"socket": settings.server.socket or default_socket()})
    # Adapters and tools named on the command line are looked for where the user is.
    sys.path.insert(0, str(Path.cwd()))
    flushing = None
    try:
        with signals.importing():
            authority_tools = _authority_tools(settings)
        pit = Snakepit(
            settings.adapter,
            authority_tools=authority_tools,
            authority=settings.authority,
            session_store=settings.session_store,
            zero_copy=settings.zero_copy,
            middleware=settings.middleware,
            pool=settings.pool if settings.adapter is not None else None,
            pools=settings.pools,
            server=server,
        )
        if not await _started(pit, signals):
            return
        try:
            _say(
                f"serving {_adapters(pit)} on {pit.socket}"
                + (f" and {pit.address}" if pit.address else "")
                + _telemetry_of(exporting)
            )
            await signals.told_to_stop.wait()
            _say("stopping: requests that run have their time; a second signal stops at once")
            await signals.drain()
            # While the workers send theirs, so that a collector that does not answer is waited for once.
            flush = partial(exporting.flush, _TIME_TO_FLUSH, metrics=False)
            flushing = asyncio.ensure_future(run_in_daemon_thread(flush))
        finally:
            await pit.stop()
    finally:
        answers = flushing is None or await flushing
        left = _TIME_FOR_THE_REST if answers else _LAST_CHANCE
        if signals.grace_ends is not None:
            left = max(min(left, signals.grace_ends + _TIME_TO_STOP - time.monotonic()), _LEAST_CHANCE)
        processes = LeftoverProcesses.by_this_process()
        processes.terminate("the authority")
        await asyncio.gather(processes.end(), run_in_daemon_thread(partial(exporting.shutdown, left)))


async def _started(pit: Snakepit, signals: Signals) -> bool:
    """Start it, unless told to stop meanwhile, which ends the start; return whether it serves."""
    starting = asyncio.ensure_future(pit.start())
    stopping = asyncio.ensure_future(signals.told_to_stop.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    if signals.told_to_stop.is_set():
        _say("stopping before it serves")
        starting.cancel()
        await asyncio.wait([starting])
        if not starting.cancelled() and starting.exception() is None:
            await pit.stop()
        return False
    stopping.cancel()
    await starting
    signals.serves(pit)
    return True


def _adapters(pit: Snakepit) -> str:
    pools = pit.pools.values()
    if len(pools) == 1:
        return f"{pit.pool.adapter} with {pit.pool.settings.size} workers"
    each = (f"{pool.adapter} with {pool.settings.size} workers (pool {pool.name})" for pool in pools)
    return ", ".join(each)


def _telemetry_of(exporting: telemetry.Telemetry) -> str:
    if _controls.level is telemetry.Level.OFF:
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
