"""`snakepit-otel serve`: run an authority and its workers."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from snakepit_otel import telemetry
from snakepit_otel.adapters._leftover_processes import LeftoverProcesses
from snakepit_otel.app import Snakepit
from snakepit_otel.bridge.authority.predecessor import Offer
from snakepit_otel.bridge.authority.tool_registry import authority_tools_in
from snakepit_otel.cli.output import EXIT_CODES_HELP, error_console, exit_code, run
from snakepit_otel.cli.serve_log import DEFAULT, configure_log
from snakepit_otel.cli.session_store import survival, url_of
from snakepit_otel.cli.signals import Signals
from snakepit_otel.cli.socket_folder import may_make_folder
from snakepit_otel.common.import_failure import import_failure
from snakepit_otel.common.secrets import learn
from snakepit_otel.errors import ConfigurationError, SnakepitError
from snakepit_otel.settings import Settings
from snakepit_otel.settings._loading import load
from snakepit_otel.system import service_manager
from snakepit_otel.system.daemon_thread import run_in_daemon_thread
from snakepit_otel.system.default_socket import default_socket
from snakepit_otel.system.heap import limit_heap
from snakepit_otel.system.process_exit import ProcessExit
from snakepit_otel.telemetry import _controls

_FLUSH_TIMEOUT_S = 1.7  # as long as workers have for their telemetry
_STOP_TIMEOUT_S = 2.5  # of the three seconds beyond the grace; the telemetry must be sent by then
_MIN_SHUTDOWN_TIMEOUT_S = 0.3
_SHUTDOWN_TIMEOUT_S = 2.0
_UNANSWERED_SHUTDOWN_TIMEOUT_S = 1.0  # after a flush that the collector did not answer


def serve(
    adapter: Annotated[
        str | None, typer.Argument(help="The adapter class: package.module:Class or path/to/file.py:Class.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.", show_default="two for each core")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file with settings.", show_default="SNAKEPIT_OTEL_CONFIG, or ./snakepit.toml"),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(help="debug, info, warning, error, critical or none.", show_default="SNAKEPIT_LOG_LEVEL, or info"),
    ] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT for callers on TCP, beside the Unix socket.")] = None,
    socket: Annotated[Path | None, typer.Option(help="The Unix socket.", show_default="one for each user")] = None,
    authority_tools: Annotated[
        list[str] | None, typer.Option(help="A module whose @authority_tool functions are registered.")
    ] = None,
    default_ttl: Annotated[float | None, typer.Option(help="Seconds a session lives after its last access.")] = None,
    max_sessions: Annotated[float | None, typer.Option(help="The quota of live sessions, or inf.")] = None,
    strict_mode: Annotated[
        bool | None,
        typer.Option("--strict-mode", help="Warn loudly when sessions accumulate, and name their creators."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="Where sessions are kept: a SQLite FILE, or a URL as in session_store.url.", show_default="memory"
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file, for TCP; a new file is read without a restart.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file, for TCP.")] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(help="PEM file; callers on TCP need a certificate it signed. Required beyond loopback."),
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
            help="Continue the traces and the sampling decisions of callers on TCP.",
            show_default="only with --tls-client-ca",
        ),
    ] = None,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Start beside the server that runs at the same socket, then take its addresses and have it stop.",
        ),
    ] = False,
) -> None:
    """Keep sessions and run tools for callers.

    Settings come from the options, then the environment (SNAKEPIT_OTEL_<GROUP>__<NAME>), then the file;
    `snakepit-otel config show` lists all of them. The standard OTEL_* variables configure telemetry.

    SIGTERM and SIGINT stop the server, once running requests have ended or pool.shutdown_grace is over; a second
    signal stops it at once, and so does one during the start. The process exits at most three seconds after the
    grace, with code 0, or 1 if tools still ran. SIGHUP replaces all workers, one after the other. SIGUSR2
    starts the same command again with --take-over. With that, the running server goes on if the new one does not
    start; without a running server, it makes no difference.
    """
    given = {
        "adapter": adapter,
        "authority_tools": authority_tools or None,
        "pool": {"size": workers},
        "session_store": {
            "default_ttl": default_ttl,
            "max_sessions": max_sessions,
            "strict_mode": strict_mode,
            "url": None if store is None else url_of(store),
        },
        "log": {"level": log_level},
        "server": {
            "listen": listen,
            "socket": socket,
            "insecure": insecure,
            "trust_trace_context": trust_trace_context,
            "tls": {"certificate": tls_certificate, "key": tls_key, "client_ca": tls_client_ca},
        },
    }
    limit_heap()
    run(lambda: _serve(_without_unset(given), config, take_over=take_over))


serve.__doc__ = f"{serve.__doc__}\n\n{EXIT_CODES_HELP}"


async def _serve(given: dict[str, Any], config: Path | None, *, take_over: bool) -> None:
    process_exit = ProcessExit()
    signals = Signals(process_exit)
    status = 1
    try:
        await _serve_until_stopped(given, config, signals, take_over=take_over)
        status = 0
    except SnakepitError as error:
        status = exit_code(error)
        raise
    except SystemExit:
        # A signal during an import.
        status = 0
        raise
    finally:
        # The loop waits for tasks when it closes, and the interpreter for threads; some are users'.
        process_exit.done(status)


async def _serve_until_stopped(
    given: dict[str, Any], config: Path | None, signals: Signals, *, take_over: bool
) -> None:
    telemetry.log_to_stderr(DEFAULT)
    loaded = load(config, given)
    settings, log = loaded.settings, configure_log(loaded)
    if settings.adapter is None and not settings.pools:
        raise ConfigurationError("no adapter to serve: snakepit-otel serve package.module:Class")
    if settings.adapter is None and settings.pool.model_fields_set:
        raise ConfigurationError("pool.* is for the workers of the top-level adapter, and there is none")
    for pool in (settings.pool, *settings.pools.values()):
        for variables in (pool.environment, *pool.slot_environment):
            learn(variables)
    exporting = telemetry.setup("snakepit-authority", whole_process=True)
    _print(log)
    if exporting.exports:
        _print(f"exporting {exporting.exports}; telemetry level {_controls.level}")
    server = settings.server.model_copy(update={"socket": settings.server.socket or default_socket()})
    # Adapters and tools named on the command line are found in the current folder, too.
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
        pit.on_handed_over = signals.on_handed_over
        if not await _start(pit, signals, settings.server.socket, take_over=take_over):
            return
        pings = asyncio.ensure_future(service_manager.ping_watchdog())
        try:
            note = _telemetry_note(exporting)
            _print(f"serving {_adapters(pit)} on {pit.socket}{f' and {pit.address}' if pit.address else ''}{note}")
            _print_survival(pit, settings)
            service_manager.ready(f"serving {_adapters(pit)}")
            await signals.stop_requested.wait()
            if signals.successor is None:
                why = "stopping"
                service_manager.stopping("running requests may end")
            else:
                # The service goes on, with the successor as its main process.
                why = f"process {signals.successor} has taken over"
            _print(f"{why}: running requests may end; a second signal stops at once")
            await signals.drain()
            # While the workers flush, so that a collector that hangs costs its timeout only once.
            flush = partial(exporting.flush, _FLUSH_TIMEOUT_S, metrics=False)
            flushing = asyncio.ensure_future(run_in_daemon_thread(flush))
        finally:
            await pit.stop()
            pings.cancel()
    finally:
        answers = flushing is None or await flushing
        left = _SHUTDOWN_TIMEOUT_S if answers else _UNANSWERED_SHUTDOWN_TIMEOUT_S
        if signals.grace_ends is not None:
            left = max(min(left, signals.grace_ends + _STOP_TIMEOUT_S - time.monotonic()), _MIN_SHUTDOWN_TIMEOUT_S)
        processes = LeftoverProcesses.by_this_process()
        processes.terminate("the authority")
        await asyncio.gather(processes.end(), run_in_daemon_thread(partial(exporting.shutdown, left)))


def _print_survival(pit: Snakepit, settings: Settings) -> None:
    """Print what becomes of the sessions of the server before, if there is one, and of those of this one."""
    if pit.predecessor is not None:
        _print(_succession(pit.predecessor))
    _print(survival(settings.session_store))


async def _start(pit: Snakepit, signals: Signals, socket: Path | None, *, take_over: bool) -> bool:
    """Start the server, unless a signal cancels the start; return whether it serves. `socket` is the one given."""
    if socket is not None and not await may_make_folder(Path(socket), signals.stop_requested):
        return False
    starting = asyncio.ensure_future(pit.start(take_over=take_over))
    stopping = asyncio.ensure_future(signals.stop_requested.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    if signals.stop_requested.is_set():
        _print("stopping during the start")
        starting.cancel()
        await asyncio.wait([starting])
        if not starting.cancelled() and starting.exception() is None:
            await pit.stop()
        return False
    stopping.cancel()
    await starting
    signals.on_started(pit)
    return True


def _succession(predecessor: Offer) -> str:
    lost = predecessor.lost_sessions
    return f"took over from process {predecessor.pid}" + (
        f"; {lost} sessions in its memory end with it" if lost else ""
    )


def _adapters(pit: Snakepit) -> str:
    pools = pit.pools.values()
    if len(pools) == 1:
        return f"{pit.pool.adapter} with {pit.pool.settings.size} workers"
    each = (f"{pool.adapter} with {pool.settings.size} workers (pool {pool.name})" for pool in pools)
    return ", ".join(each)


def _telemetry_note(exporting: telemetry.Telemetry) -> str:
    if _controls.level is telemetry.Level.OFF:
        return "; telemetry is off"
    if exporting.set_up_before:
        return "; telemetry was already set up, as by opentelemetry-instrument"
    return "" if exporting.exporting else "; no telemetry is exported, set OTEL_EXPORTER_OTLP_ENDPOINT"


def _print(text: str) -> None:
    error_console.print(text, soft_wrap=True)


def _authority_tools(settings: Settings) -> list[Any]:
    functions = []
    for name in settings.authority_tools:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise ConfigurationError(f"authority_tools: importing {name} failed: {import_failure(error)}") from error
        found = authority_tools_in(vars(module))
        if not found:
            raise ConfigurationError(f"authority_tools: {name} has no function marked with @authority_tool")
        functions += found
    return functions


def _without_unset(values: dict[str, Any]) -> dict[str, Any]:
    set_here = {key: _without_unset(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in set_here.items() if value is not None and value != {}}
