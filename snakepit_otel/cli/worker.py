"""`snakepit-otel worker`: a worker for an authority that starts it itself, by upstream's flags."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from snakepit_otel import telemetry
from snakepit_otel.adapters import AdapterHost, ToolThreads, load_adapter, require_thread_safe
from snakepit_otel.bridge.addresses import split
from snakepit_otel.bridge.heartbeat import Heartbeats, HeartbeatSettings
from snakepit_otel.bridge.worker_server import WorkerServer, spare_what_is_loaded
from snakepit_otel.cli.output import complaints, fail
from snakepit_otel.errors import ConfigurationError, SnakepitError
from snakepit_otel.zero_copy.current import loose
from snakepit_otel.zero_copy.description import Owner

_HEARTBEAT = "Heartbeats to the authority: "


def worker(
    adapter: Annotated[str, typer.Option(help="The adapter class: package.module.Class.")],
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
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
    max_workers: Annotated[int, typer.Option(min=1, help="Plain tools that run at a time.")] = 1,
    thread_safety_check: Annotated[
        bool,
        typer.Option(
            "--thread-safety-check",
            help="With --max-workers above 1, refuse adapters not marked __thread_safe__ = True.",
        ),
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
) -> None:
    """Serve an adapter to an authority that starts its own workers, such as an Elixir Snakepit.

    Takes upstream's flags and environment: SNAKEPIT_READY_FILE gets the port once the worker serves,
    SNAKEPIT_PROCESS_GROUP=1 makes it leader of a session of its own, SNAKEPIT_THREAD_SENSITIVE names tools
    for the main thread, SNAKEPIT_LOG_LEVEL and SNAKEPIT_HEARTBEAT_CONFIG are honoured. SIGTERM and SIGINT
    stop it in good order, with exit code 0.
    """
    if os.environ.get("SNAKEPIT_PROCESS_GROUP") == "1":
        with suppress(PermissionError):  # already the leader of one
            os.setsid()
    telemetry.log_to_stderr(os.environ.get("SNAKEPIT_LOG_LEVEL", "ERROR").upper())
    try:
        if thread_safety_check and max_workers > 1:
            require_thread_safe(load_adapter(adapter), "--max-workers 1")
        if health_check:
            AdapterHost(load_adapter(adapter), ToolThreads())
            complaints.print(f"{adapter} can be served", highlight=False)
            return
        authority = _authority(elixir_address)
        heartbeat = HeartbeatSettings.read(
            {
                "enabled": heartbeat_enabled,
                "interval_ms": heartbeat_interval_ms,
                "timeout_ms": heartbeat_timeout_ms,
                "max_missed_heartbeats": heartbeat_max_missed,
                "initial_delay_ms": heartbeat_initial_delay_ms,
                "dependent": heartbeat_dependent,
            },
            os.environ.get("SNAKEPIT_HEARTBEAT_CONFIG"),
        )
        worker_id = snakepit_instance_name or f"python-{os.getpid()}"
        asyncio.run(_serve(adapter, f"{host}:{port}", authority, worker_id, max_workers, heartbeat))
    except SnakepitError as error:
        with suppress(typer.Exit):
            fail(error)
        # Upstream's one code for everything that keeps a worker from serving.
        raise typer.Exit(1) from None


async def _serve(
    adapter: str, address: str, authority: str, worker_id: str, threads: int, heartbeat: HeartbeatSettings
) -> None:
    beats: Heartbeats

    def on_session(session_id: str) -> None:
        beats.start(session_id)

    # What is made outside of a request here is a worker's, too.
    loose.owner = Owner.PYTHON
    server = WorkerServer(
        adapter=adapter,
        listen=address,
        authority=authority,
        worker_id=worker_id,
        threads=threads,
        register_tools=True,
        on_session=on_session,
    )
    await server.start()
    spare_what_is_loaded()
    beats = Heartbeats(server.link, heartbeat, server.tell_to_stop)
    await server.link.wait_until_reachable()
    _announce(split(server.address)[1])
    await server.run_until_told_to_stop(before_closing=beats.stop)


def _authority(flag: str | None) -> str:
    address = flag or os.environ.get("SNAKEPIT_GRPC_ADDRESS") or os.environ.get("SNAKEPIT_ELIXIR_ADDRESS")
    if not address:
        raise ConfigurationError("say where the authority is: --elixir-address HOST:PORT")
    if not address.startswith("unix:"):
        split(address)
    return address


def _announce(port: int) -> None:
    """Write the port to the file the authority watches, in one step, so that it never reads half of it."""
    named = os.environ.get("SNAKEPIT_READY_FILE")
    if not named:
        return
    target = Path(named)
    temporary = target.with_name(target.name + ".tmp")
    with temporary.open("w") as file:
        file.write(str(port))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(target)
