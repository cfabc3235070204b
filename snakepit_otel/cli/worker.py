"""`snakepit-otel worker`: a worker for an authority that starts it itself, by upstream's flags."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from snakepit_otel import compatibility, event_loop
from snakepit_otel.adapters import AdapterHost, SessionContext, ToolThreads, require_thread_safe
from snakepit_otel.bridge.addresses import split
from snakepit_otel.bridge.heartbeat import Heartbeats, HeartbeatSettings
from snakepit_otel.bridge.worker_server import WorkerServer, spare_what_is_loaded
from snakepit_otel.cli.elixir import SCRIPT
from snakepit_otel.cli.output import complaints, fail, misuse
from snakepit_otel.compatibility.environment import is_set, log_as_told, logs_information
from snakepit_otel.errors import ConfigurationError, SnakepitError
from snakepit_otel.telemetry import environment
from snakepit_otel.zero_copy.current import loose
from snakepit_otel.zero_copy.description import Owner

_HEARTBEAT = "Heartbeats to the authority: "


@dataclass(frozen=True)
class _Told:
    """What a worker is told about its work."""

    adapter: str
    address: str
    authority: str
    worker_id: str
    threads: int
    heartbeat: HeartbeatSettings
    bridge: bool


def _print_script(asked: bool) -> None:
    if asked:
        typer.echo(SCRIPT)
        raise typer.Exit


def worker(
    adapter: Annotated[str | None, typer.Option(help="The adapter class: package.module.Class.")] = None,
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "localhost",
    elixir_address: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of the authority.", show_default="SNAKEPIT_GRPC_ADDRESS, SNAKEPIT_ELIXIR_ADDRESS"),
    ] = None,
    snakepit_run_id: Annotated[str, typer.Option(help="The run this worker belongs to, to be seen in ps.")] = "",  # noqa: ARG001 - seen in the process list
    snakepit_instance_name: Annotated[str, typer.Option(help="The instance this worker belongs to.")] = "",
    snakepit_instance_token: Annotated[str, typer.Option(help="The instance's token, to be seen in ps.")] = "",  # noqa: ARG001 - seen in the process list
    health_check: Annotated[
        bool, typer.Option("--health-check", help="Import the adapter, and exit with 0 or 1.")
    ] = False,
    max_workers: Annotated[
        int,
        typer.Option(min=1, help="Plain tools that run at a time; above 1, of adapters with __thread_safe__ = True."),
    ] = 1,
    thread_safety_check: Annotated[  # noqa: ARG001 - upstream's; what it checks here is always checked
        bool, typer.Option("--thread-safety-check", help="Does nothing: thread safety is always asked for.")
    ] = False,
    heartbeat_enabled: Annotated[
        bool, typer.Option("--heartbeat-enabled/--heartbeat-disabled", help=_HEARTBEAT + "whether.")
    ] = True,
    heartbeat_interval_ms: Annotated[int, typer.Option(help=_HEARTBEAT + "how often.")] = 2_000,
    heartbeat_timeout_ms: Annotated[int, typer.Option(help=_HEARTBEAT + "how long to wait for one.")] = 10_000,
    heartbeat_max_missed: Annotated[int, typer.Option(help=_HEARTBEAT + "how many may be missed.")] = 3,
    heartbeat_initial_delay_ms: Annotated[int, typer.Option(help=_HEARTBEAT + "when to begin.")] = 0,
    heartbeat_dependent: Annotated[
        bool,
        typer.Option("--heartbeat-dependent/--heartbeat-independent", help="Stop when the authority is gone."),
    ] = True,
    snakepit_bridge: Annotated[
        bool,
        typer.Option(
            compatibility.FLAG,
            help="Run adapters written for Snakepit's own worker, which import snakepit_bridge.",
            show_default=f"{compatibility.VARIABLE}=1",
        ),
    ] = False,
    script_path: Annotated[  # noqa: ARG001 - answered by its callback
        bool,
        typer.Option(
            "--script-path",
            callback=_print_script,
            is_eager=True,
            help="Print the path of the script that Elixir's Snakepit is to start, and exit.",
        ),
    ] = False,
) -> None:
    """Serve an adapter to an authority that starts its own workers, such as an Elixir Snakepit.

    Takes upstream's flags and environment: SNAKEPIT_READY_FILE gets the port once the worker serves,
    SNAKEPIT_PROCESS_GROUP=1 makes it leader of a session of its own, SNAKEPIT_THREAD_SENSITIVE names what is
    for the main thread, SNAKEPIT_LOG_LEVEL and SNAKEPIT_HEARTBEAT_CONFIG are honoured. SIGTERM and SIGINT
    stop it in good order, with exit code 0. It is 2 for flags that are wrong or missing, and else 1.
    """
    log_as_told()
    bridge = snakepit_bridge or compatibility.asked_for()
    try:
        if bridge:
            compatibility.install()
        if Path.cwd() != SCRIPT.parent:
            # The adapter is looked for where the user is, as serve has it.
            sys.path.insert(0, str(Path.cwd()))
        if health_check:
            _check(adapter, _loader(bridge, max_workers))
            return
        if adapter is None:
            misuse("--adapter is missing: say which class to serve, --adapter package.module.Class")
        authority = elixir_address or environment.value("SNAKEPIT_GRPC_ADDRESS")
        authority = authority or environment.value("SNAKEPIT_ELIXIR_ADDRESS")
        if not authority:
            misuse("say where the authority is: --elixir-address HOST:PORT, or SNAKEPIT_GRPC_ADDRESS")
        if not authority.startswith("unix:"):
            split(authority)
        _lead_a_session()
        heartbeat = HeartbeatSettings.read(
            {
                "enabled": heartbeat_enabled,
                "interval_ms": heartbeat_interval_ms,
                "timeout_ms": heartbeat_timeout_ms,
                "max_missed_heartbeats": heartbeat_max_missed,
                "initial_delay_ms": heartbeat_initial_delay_ms,
                "dependent": heartbeat_dependent,
            },
            environment.value("SNAKEPIT_HEARTBEAT_CONFIG"),
        )
        # The name is that of Elixir's whole instance, and all of its workers have it.
        worker_id = f"{snakepit_instance_name or 'python'}-{os.getpid()}"
        address = f"{host}:{port}"
        event_loop.run(_serve(_Told(adapter, address, authority, worker_id, max_workers, heartbeat, bridge)))
    except SnakepitError as error:
        with suppress(typer.Exit):
            fail(error)
        # Upstream's one code for everything that keeps a worker from serving.
        raise typer.Exit(1) from None


async def _serve(told: _Told) -> None:
    beats: Heartbeats

    def on_session(session_id: str) -> None:
        beats.start(session_id)

    # What is made outside of a request here is a worker's, too.
    loose.owner = Owner.PYTHON
    server = WorkerServer(
        adapter=told.adapter,
        listen=told.address,
        authority=told.authority,
        worker_id=told.worker_id,
        threads=told.threads,
        register_tools=True,
        on_session=on_session,
        whole_process=True,
        load=_loader(told.bridge, told.threads),
        context=compatibility.BridgeContext if told.bridge else SessionContext,
    )
    await server.start()
    if told.bridge:
        compatibility.connect(server.events)
    spare_what_is_loaded()
    beats = Heartbeats(server.link, told.heartbeat, server.tell_to_stop)
    ready = asyncio.ensure_future(_be_ready(server))
    ready.add_done_callback(lambda _: _stop_unless_ready(server, ready))

    async def wind_up() -> None:
        # Told to stop while it still waits for its authority, it waits no longer.
        ready.cancel()
        await asyncio.wait([ready])
        await beats.stop()

    await server.run_until_told_to_stop(before_closing=wind_up)
    with suppress(asyncio.CancelledError):
        await ready


def _stop_unless_ready(server: WorkerServer, ready: asyncio.Future[None]) -> None:
    if ready.cancelled() or ready.exception() is not None:
        server.tell_to_stop()


async def _be_ready(server: WorkerServer) -> None:
    await server.link.wait_until_reachable()
    _announce(split(server.address)[1])


def _loader(bridge: bool, threads: int) -> Callable[[str], type]:
    """Return what loads the adapter: one that is thread-safe, if tools are to run at the same time."""

    def load(spec: str) -> type:
        found = compatibility.load(spec) if bridge else compatibility.load_or_advise(spec)
        if threads > 1:
            require_thread_safe(found, "--max-workers 1")
        return found

    return load


def _check(adapter: str | None, load: Callable[[str], type]) -> None:
    """Say whether the adapter can be served, or the worker started, where none is named."""
    if adapter is None:
        complaints.print("the worker can be started; name an adapter to have it checked, too")
        return
    AdapterHost(load(adapter), ToolThreads())
    if not logs_information():
        # Elixir checks the worker's health at each start, prints what it writes, and sets the level for both.
        return
    complaints.print(f"{adapter} can be served", soft_wrap=True)


def _lead_a_session() -> None:
    if is_set("SNAKEPIT_PROCESS_GROUP"):
        with suppress(PermissionError):  # already the leader of one
            os.setsid()


def _announce(port: int) -> None:
    """Write the port to the file the authority watches, in one step, so that it never reads half of it."""
    named = environment.value("SNAKEPIT_READY_FILE")
    if not named:
        return
    target = Path(named)
    temporary = target.with_name(target.name + ".tmp")
    try:
        with temporary.open("w") as file:
            file.write(str(port))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)
    except OSError as error:
        raise ConfigurationError(f"SNAKEPIT_READY_FILE, {named}, cannot be written: {error.strerror}") from None
